"""Sessions kept in user space: what the process connector and kernel audit say, made one story.

The connector says at once that there was an exec, by whom and when; where that process is can then
still be read. The audit records that follow fill in the rest. Events leave in the order in which
the connector told them, each exec as soon as its records are there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from exectrail_agent.audit.connector import Exec, Exit, Fork, ProcEvent
from exectrail_agent.audit.entries import Entries
from exectrail_agent.audit.execve import GONE, NO_RECORD, Sighting, Sightings, complete
from exectrail_agent.audit.kin import Kin
from exectrail_agent.audit.lineage import Lineage, Process
from exectrail_agent.audit.parse import Arguments, Call, Caller, Stamp
from exectrail_agent.audit.rules import CROSSINGS
from exectrail_agent.audit.waiting import Exited, Item, Waiting
from exectrail_agent.events import EndEvent, Event, ExecEvent, ExitEvent, LiveSession, Task
from exectrail_agent.proc import Place, ProcReader, to_tick

PATIENCE_SECONDS = 3.0
_SAME_START = 50_000_000
_SWEEP_SECONDS = 10.0
_UNWANTED = 20_000_000_000
_PLACE_FIELDS = ("task.cgroup", "task.mount_namespace", "task.pid_namespace")


class Trace:
    """Sessions, from the events of both sources to those of a sensor.

    - `number`: gives a new session its number. `cause`: says why records are missing at present.
    - `lost`: execs and exits that could not be told, by cause.
    - `since`: execs that began before that time are of no interest if the connector is silent.
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
        self.since = 0
        self._reader = reader
        self._number = number
        self._cause = cause
        self._everything = everything
        self._lineage = Lineage()
        self._kin = Kin(self._lineage, reader)
        self._waiting = Waiting()
        self._sightings = Sightings()
        self._lingering: dict[int, tuple[int, int, Exited | None]] = {}
        self._claimed: dict[int, Sighting] = {}
        self._entries = Entries(reader, self._waiting)
        self._swept = 0.0
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

    def wants(self, name: str, caller: Caller, serial: int, began: int, now: float) -> bool:
        """Whether a call's records are of use; `began` is when it did, in time since boot.

        To be asked once for each call, in their order, after `proc` has told of them all.
        """
        if name in CROSSINGS:
            self._entries.crossing(caller, began, joins=name == "setns")
            self._kin.crossed(caller, began)
            return False
        claimed = self._sightings.claim(caller.pid, began)
        if claimed is None and began > self.since:
            # The connector must have lost it, and perhaps its fork too.
            self._exec(Exec(began, caller.pid), now, caller.parent)
            claimed = self._sightings.claim(caller.pid, began)
        if isinstance(claimed, Sighting) and self._waiting.is_wanted(claimed):
            if not claimed.undecided or claimed.crossed:
                claimed.claimed = True
                # What is on its way is worth another wait.
                claimed.deadline = max(claimed.deadline, now + PATIENCE_SECONDS)
                self._claimed[serial] = claimed
                return True
            self._pass_on(claimed, now)
        return self._entries.starts(serial, caller, began)

    def call(self, call: Call) -> None:
        """Take in the records of a call that was wanted."""
        sighting = self._claimed.pop(call.stamp.serial, None)
        if sighting and self._waiting.is_wanted(sighting):
            sighting.event = self._completed(sighting, call)
        self._entries.started(call)

    def overdue(self, now: float) -> bool:
        """Whether `take` has waited long enough for something, if the records are not behind."""
        return self._waiting.overdue(now)

    def take(self, now: float, heard: float = math.inf) -> list[Event]:
        """Return the events that nothing has to be waited for.

        HEARD is the time since boot up to which audit has told everything for certain.
        """
        self._end_lingering()
        if now - self._swept > _SWEEP_SECONDS:
            self._swept = now
            self._sightings.expire(int(min(self._latest, heard)) - _UNWANTED)
        ready: list[Event] = []
        for item in self._waiting.ready(now, heard):
            event = self._tell(item, now)
            if event:
                ready.append(event)
        return ready

    def _tell(self, item: Item, now: float) -> Event | None:
        if isinstance(item, Sighting) and item.entry:
            self._entries.settle(item)
        if self._waiting.is_dropped(item):
            return None
        if isinstance(item, EndEvent):
            return item
        if not isinstance(item, Sighting):
            return item[1] if item[0].told else None
        if item.retracted:
            return None
        event = item.event or self._give_up(item, now)
        if event:
            item.note(event)
        return event

    def drop(self, session: int) -> None:
        """Forget a session, and what waits of it."""
        ended = self._lineage.drop(session)
        self._entries.forget(session)
        self._waiting.drop(session)
        for number in ended:
            self._waiting.add(EndEvent(self._latest, number))

    def adopt(self, sessions: Sequence[Sequence[Task]]) -> list[int]:
        """Follow sessions that began unseen. See events.Sensor."""
        numbers = ((tasks, self._number()) for tasks in sessions)
        return [number if self._kin.adopt(tasks, number) else 0 for tasks, number in numbers]

    def live(self) -> list[LiveSession]:
        """List the sessions that are open, with those processes that have run a program there."""
        return [
            LiveSession(number, tuple(one.task for one in members if one.task))
            for number, members in self._lineage.members().items()
        ]

    def resync(self) -> None:
        """Compare with /proc after events of the connector were lost."""
        present = self._kin.catch_up()
        for pid in self._lineage.pids():
            process = self._lineage.get(pid)
            if process and pid not in present:
                self._without_status(process)

    def _fork(self, event: Fork) -> None:
        start = to_tick(event.time)
        known = self._lineage.get(event.child)
        # When the end of one is told /proc may show the next one of that pid already.
        if known and event.child not in self._lingering and abs(known.start - start) <= _SAME_START:
            return
        if known:
            self._without_status(known)
        process = self._lineage.add(event.child, event.parent, start)
        above = self._lineage.get(event.parent)
        if above and above.entering and not process.session and not process.crossed:
            self._kin.look(process, above)

    def _exec(self, event: Exec, now: float, parent: int = 0) -> None:
        process = self._kin.process(event.pid)
        if process is None:
            process = self._lineage.add(event.pid, parent, to_tick(event.time))
        _, _, exited = self._lingering.pop(event.pid, (0, 0, None))
        if exited:  # Only the leader was gone, to make room for the thread that has done this.
            self._waiting.remove(exited)
        place = self._reader.place(event.pid)
        if process.session:
            before, process.place = process.place, place or process.place
            if place and before and place != before:
                self._open(process, event.time, now, place).place_parent(before)
            else:
                self._entries.enter_late(self._see(process, event.time, now, process.place))
            return
        crossed, seen = process.crossed, process.place
        process.crossed, process.entering = False, False
        process.looked_at = float("-inf")
        process.place = place = place or (seen if crossed else None)
        if place is None and (crossed or not self._kin.of_kernel(process)):
            self._open(process, event.time, now, None, crossed=crossed)
        elif place is None or place.foreign:
            self._sightings.pass_over(event.pid, event.time)
        elif self._kin.has_left(process, place, now, crossed=crossed):
            self._open(process, event.time, now, place, crossed=crossed)
        elif self._everything:
            self._see(process, event.time, now, place)
        else:
            self._sightings.pass_over(event.pid, event.time)

    def _open(
        self,
        process: Process,
        time: int,
        now: float,
        place: Place | None,
        *,
        crossed: bool = False,
    ) -> Sighting:
        outer = self._lineage.open(process, self._number())
        sighting = self._see(process, time, now, place)
        if outer >= 0:
            self._entries.enter(sighting, outer, now, crossed=crossed)
        return sighting

    def _pass_on(self, sighting: Sighting, now: float) -> None:
        if not self._entries.pass_on(sighting, now):
            self.drop(sighting.session)

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
            sighting.unknown.update(dict.fromkeys(_PLACE_FIELDS, GONE))
        if not sighting.parent.executable:
            sighting.unknown["parent.executable"] = GONE
        process.task, process.ran = None, time
        self._waiting.add(sighting)
        self._sightings.add(sighting)
        self._entries.follow(sighting)
        return sighting

    def _exit(self, event: Exit) -> None:
        process = self._lineage.get(event.pid)
        if process is None:
            return
        if not process.session and not process.crossed:
            self._gone(process, event.time, event.status)
            return
        # The leader can go before other threads, also to make room for one that execs.
        standing, exited = self._reader.standing(event.pid), None
        if process.session and (standing is None or standing.over):
            exited = _exited(process, event.time, event.status)
            self._waiting.add(exited)
        self._lingering[event.pid] = (event.time, event.status, exited)

    def _gone(self, process: Process, time: int, status: int | None) -> None:
        session = process.session
        _, _, exited = self._lingering.pop(process.pid, (0, 0, None))
        ended = self._lineage.remove(process)
        if not session:
            return
        if status is not None and not exited:
            self._waiting.add(_exited(process, time, status))
        elif not exited and process.told:
            self.lost["exit-status"] += 1
        for number in ended:
            self._entries.unentered.pop(number, None)
            self._waiting.add(EndEvent(time, number))

    def _without_status(self, process: Process) -> None:
        time, status, _ = self._lingering.get(process.pid, (0, None, None))
        self._gone(process, time or self._latest, status)

    def _end_lingering(self) -> None:
        for pid, (time, status, exited) in list(self._lingering.items()):
            standing = None if exited else self._reader.standing(pid)
            process = self._lineage.get(pid)
            if process and (standing is None or standing.over):
                self._gone(process, time, status)

    def _completed(self, sighting: Sighting, call: Call) -> ExecEvent:
        process, problem = sighting.process, call.arguments.lacking()
        current = self._lineage.get(process.pid) is process and process.ran == sighting.time
        found = self._reader.program(process.pid) if problem and current else None
        if found:
            told, argv = found
            call = replace(
                call,
                fields=call.fields or told,
                arguments=Arguments.of(argv, f"{problem}: read from /proc later"),
            )
        return complete(sighting, call, self._entries.runtime(sighting))

    def _give_up(self, sighting: Sighting, now: float) -> ExecEvent | None:
        self._sightings.give_up(sighting)
        if sighting.undecided and not sighting.crossed:
            self.lost[self._cause()] += 1
            self._pass_on(sighting, now)
            return None
        arguments = Arguments(problem=NO_RECORD)
        event = self._completed(
            sighting, Call(Stamp(0, 0), 0.0, "execve", sighting.process.pid, {}, arguments)
        )
        # An access must not get lost, so it is told with what there is.
        if event.task.executable or sighting.entry:
            return event
        self.lost[self._cause()] += 1
        return None


def _exited(process: Process, time: int, status: int) -> Exited:
    return process, ExitEvent(time, process.session, process.pid, process.start, status)
