"""What says of an exec that it is an entry, or that it is none after all."""

from __future__ import annotations

from collections.abc import Sequence

from exectrail_agent.audit.execve import GONE, Runtime, Sighting
from exectrail_agent.audit.parse import Call, Caller, text_of
from exectrail_agent.audit.waiting import Waiting
from exectrail_agent.proc import ProcReader, file_of, to_tick

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

    def __init__(self, reader: ProcReader, waiting: Waiting) -> None:
        self._reader = reader
        self._waiting = waiting
        self.unentered: dict[int, int] = {}
        self._undecided: dict[int, list[Sighting]] = {}
        self._late: list[Sighting] = []
        self._starting: dict[int, tuple[int, int]] = {}
        self._runtimes: dict[int, tuple[int, Runtime]] = {}

    def enter(self, sighting: Sighting, outer: int, now: float, *, crossed: bool) -> None:
        """Note an exec that opens a session; OUTER is the one that the process was in.

        CROSSED: it was seen to go into other namespaces before.
        """
        self._enter(sighting, self.unentered.get(outer, outer))
        if not crossed:
            self._watch(sighting, now)

    def enter_late(self, sighting: Sighting) -> None:
        """Note an exec of a session: it is the entry if none was before."""
        if sighting.session in self.unentered:
            self._enter(sighting, self.unentered.pop(sighting.session))

    def pass_on(self, sighting: Sighting, now: float) -> bool:
        """Take back an entry that is none; say whether what was run next in its session is one."""
        sighting.retracted = True
        later = self._undecided.pop(sighting.session, [])[1:]
        while later:
            item = later.pop(0)
            if item.has_left:
                self._enter(item, sighting.outer)
                sure = bool(item.parent.mount_namespace)
                self._watch(item, now, sure=sure, later=later)
                return True
            item.retracted = True
        return False

    def follow(self, sighting: Sighting) -> None:
        """Note an exec: if its session's first one is no entry, it may be."""
        if sighting.session in self._undecided:
            self._undecided[sighting.session].append(sighting)

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

    def crossing(self, caller: Caller, began: int, *, joins: bool) -> None:
        """Note that a process went into other namespaces.

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
                    self._retract(sighting)
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
            argv = call.arguments.finish()[0]
            self._runtimes[pid] = (began, Runtime(file_of(executable, argv), argv))
            if len(self._runtimes) > _MOST_RUNTIMES:
                del self._runtimes[next(iter(self._runtimes))]

    def runtime(self, sighting: Sighting) -> Runtime | None:
        """Return the runtime that an entry is the child of, if it is of one."""
        began, runtime = self._runtimes.get(sighting.parent.pid, (0, None))
        return runtime if sighting.entry and sighting.time - began < _RUNTIME else None

    def _enter(self, sighting: Sighting, outer: int) -> None:
        sighting.outer, sighting.entry = outer, True
        current = sighting.process.ran == sighting.time
        environment = self._reader.audit_ids(sighting.process.pid) if current else None
        if environment is None:
            sighting.unknown["environment"] = GONE
        else:
            sighting.environment = environment

    def _watch(
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

    def _retract(self, sighting: Sighting) -> None:
        """Take back an entry: the process went in afterwards, so what it runs next is the entry."""
        sighting.retracted = True
        for item in self._waiting.sightings():
            if item.session == sighting.session:
                self._enter(item, sighting.outer)
                return
            if item.outer == sighting.session:
                item.outer = sighting.outer
                return
        self.unentered[sighting.session] = sighting.outer


def _may_come_of(sighting: Sighting, caller: Caller, began: int) -> bool:
    """Whether a caller may have made a process, which then may be its own parent's child."""
    process = sighting.process
    return sighting.parent.pid in {caller.pid, caller.parent} and process.start >= to_tick(began)
