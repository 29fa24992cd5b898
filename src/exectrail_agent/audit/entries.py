"""What says of an exec that it is an entry, or that it is none after all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exectrail_agent.audit.execve import Runtime, Sighting
from exectrail_agent.audit.parse import Call, Caller, text_of
from exectrail_agent.audit.places import to_tick

LATE_SECONDS = 1.0
_RUNTIME = 60_000_000_000
_MOST_RUNTIMES = 64


class Entries:
    """Entries that the kernel's records of setns and unshare are still to decide on.

    - undecided ones: nobody could see where the process was, so a crossing must turn up;
    - late ones: it was seen inside, but perhaps went there only after its exec, as `nsenter` does;
    - unentered sessions: that was so, and what is run next in them is the entry.

    And the runtimes that were started of late, which name the container that they go into.
    """

    def __init__(self) -> None:
        self.unentered: dict[int, int] = {}
        self._undecided: dict[int, list[Sighting]] = {}
        self._late: list[Sighting] = []
        self._starting: dict[int, tuple[int, int]] = {}
        self._runtimes: dict[int, tuple[int, Runtime]] = {}

    def watch(
        self,
        sighting: Sighting,
        now: float,
        *,
        sure: bool = True,
        later: Sequence[Sighting] = (),
    ) -> None:
        """Note an entry before which no crossing was seen.

        SURE: it was seen to be elsewhere than its parent. LATER execs of the session follow it.
        """
        place, parent = sighting.place, sighting.parent
        if place is None or not sure:
            sighting.undecided = True
            self._undecided[sighting.session] = [sighting, *later]
        elif (place.mount_namespace, place.pid_namespace) != (
            parent.mount_namespace,
            parent.pid_namespace,
        ):
            sighting.late = now + LATE_SECONDS
            self._late.append(sighting)

    def follow(self, sighting: Sighting) -> None:
        """Note an exec: if its session's first one is no entry, it may be."""
        if sighting.session in self._undecided:
            self._undecided[sighting.session].append(sighting)

    def followers(self, sighting: Sighting) -> list[Sighting]:
        """Forget an undecided entry; return the execs that follow it in its session."""
        return self._undecided.pop(sighting.session, [])[1:]

    def settle(self, sighting: Sighting) -> None:
        """Forget an entry that is told, or never will be."""
        if sighting in self._undecided.get(sighting.session, ())[:1]:
            del self._undecided[sighting.session]
        if sighting in self._late:
            self._late.remove(sighting)

    def forget(self, session: int) -> None:
        """Forget a session."""
        self._undecided.pop(session, None)
        self.unentered.pop(session, None)

    def crossing(self, caller: Caller, began: int, *, joins: bool) -> Iterator[Sighting]:
        """Note that a process went into other namespaces; give the entries that are none.

        JOINS: they were somebody's before.
        """
        for sighting, *_ in self._undecided.values():
            # Who only may have been born inside is taken to be, if it is the child of a runtime.
            if caller.pid in {sighting.process.pid, sighting.parent.pid} or (
                caller.parent in self._runtimes and _may_come_of(sighting, caller, began)
            ):
                sighting.crossed = True
        for sighting in self._late:
            if sighting.process.pid == caller.pid:
                if joins and sighting.claimed and not sighting.crossed:
                    sighting.retracted = True
                    yield sighting
                else:
                    sighting.crossed = True
            elif _may_come_of(sighting, caller, began):
                sighting.crossed = True

    def starts(self, serial: int, caller: Caller, began: int) -> bool:
        """Note a call; say whether it starts a runtime, so that its records are of use."""
        if caller.runtime:
            self._starting[serial] = (caller.pid, began)
        return caller.runtime

    def started(self, call: Call) -> None:
        """Take in the records of such a call."""
        pid, began = self._starting.pop(call.stamp.serial, (0, 0))
        if pid:
            self._runtimes.pop(pid, None)
            executable = text_of(call.fields.get(b"exe", b"")) or b""
            self._runtimes[pid] = (began, Runtime(executable, call.arguments.finish()[0]))
            if len(self._runtimes) > _MOST_RUNTIMES:
                del self._runtimes[next(iter(self._runtimes))]

    def runtime(self, sighting: Sighting) -> Runtime | None:
        """Return the runtime that an entry is the child of, if it is of one."""
        began, runtime = self._runtimes.get(sighting.parent.pid, (0, None))
        return runtime if sighting.entry and sighting.time - began < _RUNTIME else None


def _may_come_of(sighting: Sighting, caller: Caller, began: int) -> bool:
    """Whether a caller may have made a process, which then may be its own parent's child."""
    process = sighting.process
    return sighting.parent.pid in {caller.pid, caller.parent} and process.start >= to_tick(began)
