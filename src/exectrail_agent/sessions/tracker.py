"""Decides which of the kernel's sessions are accesses, and keeps those that are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from exectrail_agent.events import (
    AlikeEvent,
    EndEvent,
    Event,
    ExecEvent,
    LiveSession,
    Task,
)
from exectrail_agent.log.records import RecordMaker
from exectrail_agent.proc import comm_of as comm_in_proc
from exectrail_agent.proc import parent_of as parent_in_proc
from exectrail_agent.sessions import returning
from exectrail_agent.sessions.crossing import ContainerLookup, Crossing, Way, cross, join
from exectrail_agent.sessions.entry import UNSEEN, IntervalWatch, classify
from exectrail_agent.sessions.flood import size_of
from exectrail_agent.sessions.narrator import Narrator, Outcome
from exectrail_agent.sessions.probecounts import ProbeCounts
from exectrail_agent.sessions.returning import Returning, going_on
from exectrail_agent.sessions.routine import Routine
from exectrail_agent.sessions.session import Session, State
from exectrail_agent.sessions.workloads import Workloads

_WAITING = 6 << 20
"""Bytes of events, of those that have no text some thousand."""
_REMEMBERED = 8192
_OTHERS = 16
_BY_ANOTHER = 0.9
_ANOTHER = "the container is told by a later program of the session alone"


class SessionTracker:
    """Turns a sensor's events into records.

    `now` is CLOCK_BOOTTIME in seconds throughout. An entry that can't be judged yet is held for at
    most `hold` seconds, and its session's events with it. With `everything` programs outside
    sessions are recorded too if they are in a container; `probes` is ``counts`` or ``full``.
    """

    def __init__(  # noqa: PLR0913 - what it works on, and then options
        self,
        maker: RecordMaker,
        index: ContainerLookup,
        *,
        hold: float = 2.0,
        everything: bool = False,
        probes: str = "counts",
        parent_of: Callable[[int], int] = parent_in_proc,
        comm_of: Callable[[int], bytes] = comm_in_proc,
    ) -> None:
        self._maker = maker
        self._index = index
        self._hold = hold
        self._everything = everything
        self._count_probes = probes == "counts"
        self._counts = ProbeCounts()
        self._comm_of = comm_of
        self._narrator = Narrator(maker, self._counts, parent_of)
        self._watch = IntervalWatch()
        self._sessions: dict[int, Session] = {}
        self._routine = Routine(maker, self._sessions)
        self._inner: dict[int, int] = {}
        self._dropped: OrderedDict[int, None] = OrderedDict()
        self._held: dict[int, Session] = {}
        self._waiting = 0
        self._flooded: dict[int, Session] = {}
        self._workloads = Workloads()
        self._returning = Returning()

    @property
    def open_sessions(self) -> int:
        """How many accesses go on."""
        return sum(one.state in {State.OPEN, State.HELD} for one in self._sessions.values())

    def handle(self, events: Iterable[Event], now: float) -> Outcome:
        """Return what follows from events, which come in the order in which they happened."""
        outcome = Outcome()
        if not self._returning.deadline:
            self._maker.ids.refresh()
            events = self._routine.tell(events, outcome.records)
        for event in events:
            self._take(event, now, outcome)
        return outcome

    def tick(self, now: float) -> Outcome:
        """Return what is due although nothing happened. Call it at `next_due`, or each second."""
        outcome = Outcome()
        for session in list(self._held.values()):
            self._decide(session, now, outcome)
        for session in list(self._flooded.values()):
            if session.flood.over(int(now * 1e9)):
                self._settle(session, outcome)
        self._judge_live(now, outcome)
        outcome.records.extend(map(self._narrator.counted, self._counts.due(now)))
        return outcome

    def next_due(self) -> float | None:
        """Return the boot time in seconds at which `tick` has something to do, None if never."""
        times = [one.deadline for one in self._held.values()]
        times += [one.flood.ends / 1e9 for one in self._flooded.values()]
        times += [self._returning.deadline] if self._returning.deadline else []
        probes = self._counts.next_due()
        return min(times if probes is None else [*times, probes], default=None)

    def flush(self, now: float) -> Outcome:
        """Return all that is held back: for an agent that is about to stop."""
        outcome = Outcome()
        for session in list(self._held.values()):
            self._decide(session, now, outcome, final=True)
        for session in list(self._flooded.values()):
            self._settle(session, outcome)
        outcome.records.extend(map(self._narrator.counted, self._counts.all()))
        return outcome

    def snapshot(self) -> dict[str, Any]:
        """Return what a later agent of the same boot goes on with, as JSON has it."""
        return returning.saved(self._maker.node.boot, self._sessions, self._inner, self._dropped)

    def restore(self, saved: Mapping[str, Any]) -> bool:
        """Take an earlier agent's state; return False if it is of another boot or no state."""
        kept = returning.load(saved, self._maker.node.boot, self._comm_of)
        if kept is None:
            return False
        self._sessions.update((one.number, one) for one in kept.sessions)
        self._inner.update(kept.inner)
        self._dropped.update(dict.fromkeys(kept.dropped))
        return True

    def recover(self, live: Sequence[LiveSession], now: float) -> Outcome:
        """Return what follows from the sessions that are open, at the start or after a loss.

        Their events may still be waiting in the sensor, so what is not clear yet is judged by a
        later `tick`.
        """
        outcome = Outcome()
        open_ones = {*self._sessions, *self._inner}
        outcome.drops += [one.session for one in live if one.session in self._dropped]
        known = {*open_ones, *self._dropped}
        self._returning.begin(live, known, open_ones, now + self._hold)
        return outcome

    def adopt(self, found: Sequence[Sequence[Task]], numbers: Sequence[int], now: float) -> Outcome:
        """Return what follows from sessions that began unseen.

        `numbers` are those under which the sensor follows each, 0 for one that it does not.
        """
        outcome = Outcome()
        for number, tasks in zip(numbers, found):  # noqa: B905 - Python 3.8 can't be strict
            if number:
                self._resume(LiveSession(number, tasks), now, outcome)
        return outcome

    def _judge_live(self, now: float, outcome: Outcome) -> None:
        unknown, missing = self._returning.due(now)
        for one in unknown:
            self._resume(one, now, outcome)
        for number in missing:
            self._inner.pop(number, None)
            session = self._sessions.pop(number, None)
            if session and session.state is State.OPEN:
                self._narrator.end(session, int(now * 1e9), outcome, unseen=True)

    def _resume(self, live: LiveSession, now: float, outcome: Outcome) -> None:
        found = going_on(live, self._index)
        if found is None:
            self._drop(live.session, outcome)
            return
        task, crossing = found
        session = Session(live.session)
        self._sessions[live.session] = session
        outcome.records.append(
            self._narrator.resume(session, crossing, UNSEEN, task.start or int(now * 1e9))
        )

    def _take(self, event: Event, now: float, outcome: Outcome) -> None:
        number = event.session
        if isinstance(event, AlikeEvent):
            event = event.whole()
        if isinstance(event, ExecEvent):
            if not number or number in self._dropped:
                self._outside(event, outcome)
                return
            self._returning.seen(number)
            session = self._known(number)
            if session is None:
                session = Session(number, recovered=not event.entry, outer=event.outer)
                self._sessions[number] = session
            self._feed(session, event, now, outcome)
            return
        if isinstance(event, EndEvent):
            self._returning.seen(number)
            self._dropped.pop(number, None)
            if self._inner.pop(number, None) is not None:
                return
        session = self._known(number)
        if session:
            self._feed(session, event, now, outcome)

    def _known(self, number: int) -> Session | None:
        return self._sessions.get(self._inner.get(number, number))

    def _feed(self, session: Session, event: Event, now: float, outcome: Outcome) -> None:
        if session.state is State.STAGED:
            if isinstance(event, ExecEvent):
                session.state = State.HELD
            elif isinstance(event, EndEvent):
                self._sessions.pop(session.number, None)
                return
            else:
                return
        if session.state is State.HELD:
            self._wait(session, event, now)
            self._decide(session, now, outcome)
            while self._waiting > _WAITING:
                self._decide(next(iter(self._held.values())), now, outcome, final=True)
            return
        self._tell(session, event, outcome)

    def _tell(self, session: Session, event: Event, outcome: Outcome) -> None:
        self._narrator.tell(session, event, outcome)
        if isinstance(event, EndEvent):
            self._sessions.pop(session.number, None)
            self._flooded.pop(session.number, None)
        elif session.flood.pending:
            self._flooded[session.number] = session

    def _wait(self, session: Session, event: Event, now: float) -> None:
        if session.first is None and isinstance(event, ExecEvent):
            session.first = event
            session.deadline = now + self._hold
            self._held[session.number] = session
        session.waiting.append(event)
        self._waiting += size_of(event)

    def _decide(
        self, session: Session, now: float, outcome: Outcome, *, final: bool = False
    ) -> None:
        """Judge a held session by its first exec, if that is possible by now."""
        first = session.first
        if first is None:
            return
        crossing = self._judge(session, first)
        if crossing.way is Way.WAIT and not final and now < session.deadline:
            return
        events, session.waiting, session.first = session.waiting, [], None
        self._waiting -= sum(map(size_of, events))
        del self._held[session.number]
        if crossing.is_own:
            self._refuse(session, events, now, outcome)
            return
        if crossing.way is Way.STAGE:
            session.state = State.STAGED
            session.origin = first.task
            outcome.dismissed += 1
            events = events[1:]
        else:
            self._open(session, first, crossing, outcome)
        for event in events:
            self._feed(session, event, now, outcome)

    def _judge(self, session: Session, event: ExecEvent) -> Crossing:
        if session.origin and not event.task.cgroup:
            # Sensors tell where a process is when it moves; until then it is where it was.
            event = replace(event, task=replace(event.task, cgroup=session.origin.cgroup))
        crossing = (join if session.recovered else cross)(event, self._index)
        if crossing.container or event.task.cgroup or event.task.mount_namespace:
            return crossing
        # Who is of its session and has not gone elsewhere is where it was.
        for later in session.waiting[:_OTHERS]:
            if isinstance(later, ExecEvent) and later.task.cgroup:
                where = replace(event, task=replace(later.task, pid=event.task.pid))
                found = cross(where, self._index)
                return replace(found, certainty=_BY_ANOTHER, doubt=_ANOTHER)
        return crossing

    def _open(
        self, session: Session, event: ExecEvent, crossing: Crossing, outcome: Outcome
    ) -> None:
        if session.recovered:
            outcome.records.append(self._narrator.resume(session, crossing, UNSEEN, event.time))
            return
        regular = self._watch.regular(crossing.container_id, event)
        entry = classify(event, crossing, regular=regular, client=self._index.client)
        if entry.probe and crossing.container and self._count_probes:
            self._narrator.count(session, event, crossing.container, entry)
            return
        outcome.records.append(self._narrator.begin(session, event, crossing, entry))

    def _refuse(
        self, session: Session, events: Iterable[Event], now: float, outcome: Outcome
    ) -> None:
        """Let go of a session that is no access; one within an access is a part of that."""
        self._sessions.pop(session.number, None)
        outer = self._known(session.outer)
        if outer is None and session.outer and session.outer not in self._dropped:
            outer = Session(session.outer, recovered=True)
            self._sessions[outer.number] = outer
        if outer and outer.state is not State.STAGED:
            self._inner[session.number] = outer.number
            for event in events:
                self._take(event, now, outcome)
            return
        self._drop(session.number, outcome)
        for event in events:
            if isinstance(event, ExecEvent):
                self._outside(event, outcome)

    def _drop(self, number: int, outcome: Outcome) -> None:
        outcome.drops.append(number)
        self._dropped[number] = None
        if len(self._dropped) > _REMEMBERED:
            self._dropped.popitem(last=False)

    def _outside(self, event: ExecEvent, outcome: Outcome) -> None:
        session = self._workloads.session(event, self._index) if self._everything else None
        if session is None:
            outcome.dismissed += 1
            return
        self._narrator.command(session, event, outcome)
        if session.flood.pending:
            self._flooded[session.number] = session

    def _settle(self, session: Session, outcome: Outcome) -> None:
        self._narrator.settle(session, outcome)
        self._flooded.pop(session.number, None)
