"""What nearly all events of a busy session are: programs like others before, and processes' ends.

Does what the Narrator does, in few calls: a storm of programs should cost the node little.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from json.encoder import encode_basestring_ascii

from exectrail_agent.events import AlikeEvent, Event, ExitEvent
from exectrail_agent.log.records import COMMAND, Record, RecordMaker
from exectrail_agent.sessions.session import Process, Session, State
from exectrail_agent.sessions.wording import Wording

_EXIT = "CommandExit"
_SIGNAL = 0x7F
_NUL = "\\u0000"
_BETWEEN = '","'


class Routine:
    """Tells of what takes no care."""

    def __init__(self, maker: RecordMaker, sessions: Mapping[int, Session]) -> None:
        self._maker = maker
        self._sessions = sessions
        self._wording = Wording(maker)

    def tell(self, events: Iterable[Event], records: list[Record]) -> Iterator[Event]:
        """Add the records of routine events; yield the others, which are to be told at once."""
        sessions, maker, is_open = self._sessions, self._maker, State.OPEN
        for event in events:
            session = sessions.get(event.session)
            if session is None or session.state is not is_open:
                yield event
            elif isinstance(event, ExitEvent):
                process = session.processes.get(event.pid)
                if process and process.start == event.start:
                    del session.processes[event.pid]
                    if process.has_run and process.recorded:
                        records.append(ended(maker, session, process, event))
                else:
                    yield event
            elif not isinstance(event, AlikeEvent) or not self._alike(session, event, records):
                yield event

    def _alike(self, session: Session, event: AlikeEvent, records: list[Record]) -> bool:
        """Add the record of a program, if one like it was told below the same parent before."""
        _, process, argv, model = event
        time, start, pid, host_pid, _, above_start, above_pid, parent_pid, _ = process
        parent = session.processes.get(above_pid)
        if parent is None or parent.start != above_start or pid in session.processes:
            return False
        try:
            args = argv.decode()
        except UnicodeDecodeError:
            return False
        if "\\" in args or args[-1:] != "\0":
            return False
        wording, maker = self._wording, self._maker
        family = wording.families.get(id(model)) or wording.family(model)
        hosts = 0 != host_pid != pid
        key: Hashable = (parent_pid, parent.event_id, hosts)
        if not family.plain:
            key = key, family.way(argv)
        template = family.templates.get(key)
        if template is None or template.common is not session.fields:
            template = wording.learn(family, key, session, event, parent)
            if template is None:
                return False
        size, flood = len(argv), session.flood
        identity = hash((model.task.executable, size, argv))
        if not flood.admit(identity, time):
            stands_for = flood.again(identity, time)
            if stands_for:
                session.commands += 1
                counted = Process(start, stands_for, template.name, time, recorded=False)
                session.remember(pid, counted)
            return bool(stands_for)
        event_id = maker.ids.more()
        args = encode_basestring_ascii(args[:-1])
        cmdline, args = args.replace(_NUL, " "), args.replace(_NUL, _BETWEEN)
        pids = f'{pid},"process.hostPid":{host_pid}' if hosts else pid
        text = maker.clock.text(time)
        (a, b, c, d, e, f, g, h), name, _ = template
        body = f"{a}{text}{b}{time}{c}{event_id}{d}{pids}{e}{args}{f}{cmdline}{g}{size}{h}"
        session.commands += 1
        session.remember(pid, Process(start, event_id, name, time))
        records.append(Record(COMMAND, time, body, 1))
        return True


def ended(maker: RecordMaker, session: Session, process: Process, event: ExitEvent) -> Record:
    """Return the record of the end of a process that has run a program, as a RecordMaker does."""
    time, status, begun = event.time, event.status, process.time
    signal = status & _SIGNAL
    duration = time - begun if time > begun else 0
    how = f'"exit.signal":{signal}' if signal else f'"exit.code":{status >> 8 & 0xFF}'
    body = (
        f'"kind":"{_EXIT}",{maker.node_fields},"traceId":"{session.trace}",'
        f'"time":"{maker.clock.text(time)}","time.boot":{time},"eventId":"{process.event_id}",'
        f'"process.pid":{event.pid},"process.name":{encode_basestring_ascii(process.name)},'
        f'"process.duration":{duration},{how}}}'
    )
    return Record(_EXIT, time, body)
