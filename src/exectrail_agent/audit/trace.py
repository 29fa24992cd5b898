"""Sessions kept in user space: what the process connector and kernel audit say, made one story.

The connector says at once that there was an exec, by whom and when; where that process is can then
still be read. The audit records that follow fill in the rest. Events leave in the order in which
the connector told them, each exec as soon as its records are there.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Union

from exectrail_agent.audit.connector import Exec, Exit, Fork, ProcEvent
from exectrail_agent.audit.execve import Sighting, Sightings, complete, without_records
from exectrail_agent.audit.kin import Kin
from exectrail_agent.audit.lineage import Lineage, Process
from exectrail_agent.audit.parse import Call
from exectrail_agent.audit.places import Place, ProcReader, to_tick
from exectrail_agent.audit.rules import CROSSINGS
from exectrail_agent.events import EndEvent, Event, ExecEvent, ExitEvent, LiveSession

PATIENCE_SECONDS = 3.0
_SAME_START = 50_000_000
_MOST_WAITING = 16384
_GONE = "gone before it could be read"
_PLACE_FIELDS = ("task.cgroup", "task.mount_namespace", "task.pid_namespace")

_Item = Union[Sighting, "tuple[Process, ExitEvent]", EndEvent]


class Trace:
    """Sessions, from the events of both sources to those of a sensor.

    - `number`: gives a new session its number. `cause`: says why records are missing at present.
    - `lost`: execs and exits that could not be told, by cause.
    """

    def __init__(
        self,
        reader: ProcReader,
        number: Callable[[], int],
        cause: Callable[[], str],
        *,
        everything: bool = False,
    ) -> None:
        self.lost: Counter[str] = Counter()
        self._doubtful_until = float("-inf")
        self._reader = reader
        self._number = number
        self._cause = cause
        self._everything = everything
        self._lineage = Lineage()
        self._kin = Kin(self._lineage, reader)
        self._items: deque[_Item] = deque()
        self._sightings = Sightings()
        self._lingering: dict[int, tuple[int, int]] = {}
        self._claimed: dict[int, Sighting] = {}
        self._undecided: dict[int, Sighting] = {}
        self._dropped: set[int] = set()
        self._latest = 0

    def proc(self, event: ProcEvent, now: float) -> None:
        """Take in an event of the connector, with its time since boot."""
        self._latest = event.time
        if isinstance(event, Exec):
            self._exec(event, now)
        elif isinstance(event, Fork):
            self._fork(event)
        else:
            self._exit(event)

    def wants(self, name: str, pid: int, serial: int, began: int, now: float) -> bool:
        """Whether a call's records are of use; `began` is when it did, in time since boot.

        To be asked once for each call, in their order.
        """
        if name in CROSSINGS:
            self._crossing(pid)
            return False
        claimed = self._sightings.claim(pid, began)
        if claimed is None and now < self._doubtful_until:
            self._exec(Exec(began, pid), now)
            claimed = self._sightings.claim(pid, began)
        if not isinstance(claimed, Sighting) or claimed.session in self._dropped:
            return False
        if claimed.undecided and not claimed.crossed:
            self.drop(claimed.session)
            return False
        self._claimed[serial] = claimed
        return True

    def call(self, call: Call) -> None:
        """Take in the records of a call that was wanted."""
        sighting = self._claimed.pop(call.stamp.serial, None)
        if sighting and sighting.session not in self._dropped:
            sighting.event = complete(sighting, call)

    def take(self, now: float) -> list[Event]:
        """Return the events that nothing has to be waited for."""
        self._end_lingering()
        self._sightings.expire(now)
        ready: list[Event] = []
        while self._items and not self._must_wait(self._items[0], now):
            item = self._items.popleft()
            if _session_of(item) in self._dropped:
                continue
            if isinstance(item, Sighting):
                event = item.event or self._give_up(item)
                if event:
                    item.note(event)
                    ready.append(event)
            elif isinstance(item, EndEvent):
                ready.append(item)
            elif item[0].told:
                ready.append(item[1])
        if not self._items:
            self._dropped.clear()
        return ready

    def drop(self, session: int) -> None:
        """Forget a session, and what waits of it."""
        ended = self._lineage.drop(session)
        self._undecided.pop(session, None)
        if self._items:
            self._dropped.add(session)
        self._items += [EndEvent(self._latest, number) for number in ended]
        if len(self._dropped) > 2 * _MOST_WAITING:
            self._dropped &= {_session_of(item) for item in self._items}

    def live(self) -> list[LiveSession]:
        """List the processes of the node; each that is not where its parent is begins a session."""
        self._kin.survey(self._number)
        return [
            LiveSession(number, tuple(one.task for one in members if one.task))
            for number, members in self._lineage.members().items()
        ]

    def resync(self, now: float) -> None:
        """Compare with /proc after events of the connector were lost."""
        self._doubtful_until = now + PATIENCE_SECONDS
        present = {*self._reader.pids()}
        for pid in self._lineage.pids():
            process = self._lineage.get(pid)
            if process and pid not in present:
                self._without_status(process)
        for pid in present:
            self._kin.process(pid)

    def _fork(self, event: Fork) -> None:
        start = to_tick(event.time)
        known = self._lineage.get(event.child)
        # When the end of one is told /proc may show the next one of that pid already.
        if known and event.child not in self._lingering and _same(known.start, start):
            return
        if known:
            self._without_status(known)
        process = self._lineage.add(event.child, event.parent, start)
        above = self._lineage.get(event.parent)
        if above and above.entering and not process.session and not process.crossed:
            self._kin.look(process, above)

    def _exec(self, event: Exec, now: float) -> None:
        process = self._kin.process(event.pid)
        if process is None:
            process = self._lineage.add(event.pid, 0, to_tick(event.time))
        self._lingering.pop(event.pid, None)
        place = self._reader.place(event.pid)
        if process.session:
            before, process.place = process.place, place or process.place
            if place and before and place != before:
                self._open(process, event.time, now, place)
            else:
                self._see(process, event.time, now, process.place)
            return
        crossed, seen = process.crossed, process.place
        process.crossed, process.entering = False, False
        process.looked_at = float("-inf")
        process.place = place = place or (seen if crossed else None)
        if place is None and (crossed or not self._kin.of_kernel(process)):
            self._open(process, event.time, now, None, undecided=not crossed)
        elif place is None or place.foreign:
            self._pass_over(event, now)
        elif self._kin.has_left(process, place, now, crossed=crossed):
            self._open(process, event.time, now, place)
        elif self._everything:
            self._see(process, event.time, now, place)
        else:
            self._pass_over(event, now)

    def _pass_over(self, event: Exec, now: float) -> None:
        self._sightings.pass_over(event.pid, event.time, now + PATIENCE_SECONDS)

    def _open(
        self,
        process: Process,
        time: int,
        now: float,
        place: Place | None,
        *,
        undecided: bool = False,
    ) -> None:
        outer = self._lineage.open(process, self._number())
        sighting = self._see(process, time, now, place)
        if outer < 0:
            return
        sighting.outer, sighting.entry, sighting.undecided = outer, True, undecided
        if undecided:
            self._undecided[process.session] = sighting
        environment = self._reader.audit_ids(process.pid)
        if environment is None:
            sighting.unknown["environment"] = _GONE
        else:
            sighting.environment = environment

    def _see(self, process: Process, time: int, now: float, place: Place | None) -> Sighting:
        sighting = Sighting(
            time=time,
            process=process,
            session=process.session,
            entry=False,
            deadline=now + PATIENCE_SECONDS,
            parent=self._kin.parent(process),
            place=place,
        )
        if place is None:
            sighting.unknown.update(dict.fromkeys(_PLACE_FIELDS, _GONE))
        if not sighting.parent.executable:
            sighting.unknown["parent.executable"] = _GONE
        process.task = None
        self._items.append(sighting)
        self._sightings.add(sighting)
        return sighting

    def _exit(self, event: Exit) -> None:
        process = self._lineage.get(event.pid)
        if process is None:
            return
        if process.session:
            standing = self._reader.standing(event.pid)
            # The leader can go before other threads, also to make room for one that execs.
            if standing and not standing.over:
                self._lingering[event.pid] = (event.time, event.status)
                return
        self._gone(process, event.time, event.status)

    def _gone(self, process: Process, time: int, status: int | None) -> None:
        session = process.session
        self._lingering.pop(process.pid, None)
        ended = self._lineage.remove(process)
        if not session:
            return
        if status is not None:
            gone = ExitEvent(time, session, process.pid, process.start, status)
            self._items.append((process, gone))
        elif process.told:
            self.lost["connector-overrun"] += 1
        self._items += [EndEvent(time, number) for number in ended]

    def _without_status(self, process: Process) -> None:
        time, status = self._lingering.get(process.pid, (0, None))
        self._gone(process, time or self._latest, status)

    def _end_lingering(self) -> None:
        for pid, (time, status) in list(self._lingering.items()):
            standing = self._reader.standing(pid)
            process = self._lineage.get(pid)
            if process and (standing is None or standing.over):
                self._gone(process, time, status)

    def _crossing(self, pid: int) -> None:
        for sighting in self._undecided.values():
            if pid in {sighting.process.pid, sighting.parent.pid}:
                sighting.crossed = True
        self._kin.crossed(pid)

    def _must_wait(self, item: _Item, now: float) -> bool:
        return (
            isinstance(item, Sighting)
            and item.event is None
            and now < item.deadline
            and len(self._items) <= _MOST_WAITING
            and item.session not in self._dropped
        )

    def _give_up(self, sighting: Sighting) -> ExecEvent | None:
        self._sightings.forget(sighting, sighting.process.pid)
        self._undecided.pop(sighting.session, None)
        if not sighting.entry or (sighting.undecided and not sighting.crossed):
            self.lost[self._cause()] += 1
            if sighting.undecided:
                self.drop(sighting.session)
            return None
        # The access must not get lost, so it is told with what there is.
        alive = self._lineage.get(sighting.process.pid) is sighting.process
        name = self._reader.name(sighting.process.pid) if alive else (b"", b"")
        return without_records(sighting, *name)


def _same(one: int, other: int) -> bool:
    return abs(one - other) <= _SAME_START


def _session_of(item: _Item) -> int:
    return item[1].session if isinstance(item, tuple) else item.session
