"""What becomes of the events of a session that is known to be an access."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exectrail_agent.containers.model import Container
from exectrail_agent.events import UNSET_LOGIN_UID, Event, ExecEvent, ExitEvent
from exectrail_agent.log.escape import to_text
from exectrail_agent.log.records import (
    COMMAND,
    Record,
    RecordMaker,
    container_details,
    container_fields,
)
from exectrail_agent.sessions.crossing import Crossing
from exectrail_agent.sessions.entry import Entry, ids_of
from exectrail_agent.sessions.flood import Collapsed
from exectrail_agent.sessions.probecounts import ProbeCount, ProbeCounts
from exectrail_agent.sessions.program import arguments, base, name, terminal
from exectrail_agent.sessions.program import fields as program_fields
from exectrail_agent.sessions.routine import ended
from exectrail_agent.sessions.session import Process, Session, State
from exectrail_agent.sessions.wording import words

_SIGNAL = 0x7F
_PROGRAM_FIELDS = (
    "process.name",
    "process.args",
    "process.cmdline",
    "process.executable",
    "process.interpreter",
    "escaped",
)


@dataclass
class Outcome:
    """What follows from events: `records` to write, in this order, and sessions to `drop`.

    `dismissed` is how many execs need no record, because they are part of no access.
    """

    records: list[Record] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    dismissed: int = 0


class Narrator:
    """Turns the events of sessions into records."""

    def __init__(
        self, maker: RecordMaker, counts: ProbeCounts, parent_of: Callable[[int], int]
    ) -> None:
        self._maker = maker
        self._counts = counts
        self._parent_of = parent_of

    def begin(self, session: Session, event: ExecEvent, crossing: Crossing, entry: Entry) -> Record:
        """Open a session with its entry's exec; return the record of the access."""
        fields = self._access(session, crossing, entry)
        args = arguments(event).values
        text, changed = to_text(b" ".join(args))
        fields["entry.cmdline"] = text
        fields["entry.tty"] = event.tty is not None
        if event.tty:
            fields["process.tty"] = terminal(event.tty)
        fields["process.user.uid"] = event.uid
        fields["process.user.gid"] = event.gid
        if event.login_uid != UNSET_LOGIN_UID:
            fields["loginuid"] = event.login_uid
        if event.audit_session != UNSET_LOGIN_UID:
            fields["auditSession"] = event.audit_session
        ids = ids_of(event)
        escaped = ["entry.cmdline"] if changed else []
        found = (
            ("audit.id", ids.audit),
            ("audit.spoRequestUid", ids.spo),
            ("entry.parentname", base(event.parent.executable)),
        )
        for field_name, raw in found:
            if raw:
                fields[field_name], changed = to_text(raw)
                escaped += [field_name] if changed else []
        if escaped:
            fields["escaped"] = escaped
        session.begin = event.time
        session.first_pid = event.task.pid
        return self._opened(session, fields)

    def resume(self, session: Session, crossing: Crossing, entry: Entry, time: int) -> Record:
        """Open a session whose entry was not seen, at boot time `time`; return its record."""
        session.recovered = True
        session.begin = time
        fields = self._access(session, crossing, entry)
        return self._opened(session, fields)

    def _opened(self, session: Session, fields: Mapping[str, object]) -> Record:
        return self._maker.make(
            "Kubernetes", session.begin, fields, event_id=session.root, trace=session.trace
        )

    def _access(self, session: Session, crossing: Crossing, entry: Entry) -> dict[str, object]:
        container = crossing.container
        session.state = State.OPEN
        session.trace = self._maker.ids.make()
        session.root = self._maker.ids.make()
        session.fields = container_fields(container, crossing.container_id)
        fields = {**session.fields, **self._maker.access_fields}
        if container:
            fields.update(container_details(container))
        fields["entry.type"] = entry.type
        fields["entry.confidence"] = entry.confidence
        if entry.reason:
            fields["entry.reason"] = entry.reason
        if entry.probe:
            fields["entry.probe"] = entry.probe
        if container and container.pod and entry.operation:
            fields["kubeObject.operation.kind"] = entry.operation
        if session.recovered:
            fields["recovered"] = True
        return fields

    def count(self, session: Session, event: ExecEvent, container: Container, entry: Entry) -> None:
        """Begin a session that is only counted."""
        session.state = State.COUNTED
        session.begin = event.time
        session.first_pid = event.task.pid
        described = container_fields(container, container.id)
        described["throttle.reason"] = entry.type
        described["throttle.probe"] = entry.probe
        session.fields = {**described, **_program(event)}
        session.count_key = f"{container.id} {entry.probe} {event.argv!r}"
        self._counts.begin(session.count_key, session.fields, event.time)

    def tell(self, session: Session, event: Event, outcome: Outcome) -> None:
        """Add the records of an event of an open or a counted session."""
        if session.state is State.COUNTED:
            self._count(session, event)
        elif isinstance(event, ExitEvent):
            self._exit(session, event, outcome)
        elif isinstance(event, ExecEvent):
            self.command(session, event, outcome)
        else:
            self.end(session, event.time, outcome)

    def _count(self, session: Session, event: Event) -> None:
        if isinstance(event, ExecEvent):
            self._counts.note(session.count_key, session.fields, event.time)
        elif isinstance(event, ExitEvent) and event.pid == session.first_pid and event.status:
            self._counts.failed(session.count_key, session.fields, event.time)

    def command(self, session: Session, event: ExecEvent, outcome: Outcome) -> None:
        """Add the record of an exec, unless it is one too many of the same."""
        if session.flood.over(event.time):
            self.settle(session, outcome)
        parent = session.parent(event)
        above = session.process(event.task) or parent
        if above is None and not event.above_pid:
            above = session.above(event.parent, self._parent_of)
        above_id = above.event_id if above else session.root
        session.commands += 1
        if not session.flood.admit(_identity(event), event.time):
            self._collapse(session, event, above_id)
            return
        event_id = self._maker.ids.make()
        told = words(session, event, parent, above_id)
        called = str(told["process.name"])
        session.remember(event.task.pid, Process(event.task.start, event_id, called, event.time))
        outcome.records.append(
            self._maker.make(
                COMMAND, event.time, told, event_id=event_id, trace=session.trace, execs=1
            )
        )

    def _collapse(self, session: Session, event: ExecEvent, parent_event_id: str) -> None:
        """Count a program that is one too many of the same."""
        flood, identity = session.flood, _identity(event)
        event_id = flood.again(identity, event.time)
        if not event_id:
            event_id = self._maker.ids.make()
            flood.collapse(identity, event, event_id, parent_event_id)
        called = to_text(name(event, arguments(event).values))[0]
        process = Process(event.task.start, event_id, called, event.time, recorded=False)
        session.remember(event.task.pid, process)

    def settle(self, session: Session, outcome: Outcome) -> None:
        """Add the records of what was collapsed, and begin to count anew."""
        outcome.records.extend(self._flooded(session, one) for one in session.flood.end())

    def _flooded(self, session: Session, one: Collapsed) -> Record:
        fields: dict[str, object] = {"throttle.reason": "flood", "throttle.count": one.count}
        if one.parent_event_id:
            fields["parentEventId"] = one.parent_event_id
        fields.update(session.fields)
        fields.update(_program(one.first))
        return self._maker.throttle(one.event_id, one.begin, one.end, fields, session.trace)

    def counted(self, one: ProbeCount) -> Record:
        """Return the record of an hour of one probe."""
        fields = dict(one.fields)
        fields["throttle.count"] = one.execs
        fields["throttle.runs"] = one.runs
        fields["throttle.failures"] = one.failures
        return self._maker.throttle(self._maker.ids.make(), one.begin, one.end, fields)

    def _exit(self, session: Session, event: ExitEvent, outcome: Outcome) -> None:
        found = session.processes.get(event.pid)
        if found and found.start and event.start and found.start != event.start:
            found = None
        if found:
            del session.processes[event.pid]
            if found.has_run and found.recorded:
                outcome.records.append(ended(self._maker, session, found, event))
            return
        if session.origin and session.origin.pid == event.pid:
            return
        signal, code = event.status & _SIGNAL, event.status >> 8 & 0xFF
        fields: dict[str, object] = {"process.pid": event.pid, "process.unseen": True}
        fields.update({"exit.signal": signal} if signal else {"exit.code": code})
        outcome.records.append(
            self._maker.make("CommandExit", event.time, fields, trace=session.trace)
        )

    def end(self, session: Session, time: int, outcome: Outcome, *, unseen: bool = False) -> None:
        """Add the records of a session's end, which nobody saw if `unseen`."""
        self.settle(session, outcome)
        fields: dict[str, object] = {
            **session.fields,
            "session.duration": max(0, time - session.begin),
            "session.commands": session.commands,
        }
        if session.recovered:
            fields["recovered"] = True
        if unseen:
            fields["session.endUnseen"] = True
        outcome.records.append(
            self._maker.make("SessionEnd", time, fields, event_id=session.root, trace=session.trace)
        )


def _identity(event: ExecEvent) -> int:
    """Return what tells execs of another program, or with another argv, from this one.

    Nobody can aim at a hash of Python's for bytes: each process has a secret of its own.
    """
    return hash((event.task.executable, event.argv_size, event.argv))


def _program(event: ExecEvent) -> Mapping[str, object]:
    found = program_fields(event)
    return {each: found[each] for each in _PROGRAM_FIELDS if each in found}
