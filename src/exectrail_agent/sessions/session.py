"""One session: what the tracker keeps of it from its first program to its last process."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

from exectrail_agent.events import Event, ExecEvent, Task
from exectrail_agent.sessions.flood import Flood

_PROCESSES = 16384
_SAVED = 256
_BESIDE = 128
"""Bytes that a saved process takes beside its name, at most."""
_HOPS = 8


class State(enum.Enum):
    """How far a session is."""

    STAGED = "staged"
    HELD = "held"
    OPEN = "open"
    COUNTED = "counted"


@dataclass
class Process:
    """A process that has run a program in a session, or stands below one that has.

    `event_id` is its last program's; `recorded` tells a program with a record of its own from one
    that is only counted. Its end is told if it `has_run` one itself.
    """

    start: int
    event_id: str
    name: str
    time: int
    recorded: bool = True
    has_run: bool = True


@dataclass
class Session:
    """A session by the kernel's number; `fields` is what each of its records carries.

    - `trace`: the id of its records, `root` the id of the record that opened it.
    - `begin`: boot time of the entry in nanoseconds.
    - `waiting`: events that can't be told before the exec `first` is judged, or `deadline` (seconds
      of boot time) has come.
    - `origin`: the runtime's own process through which the session came in.
    - `count_key`: under which its programs are counted, of a session that is only counted.
    - `most`: how many processes are remembered.
    """

    number: int
    state: State = State.HELD
    trace: str = ""
    root: str = ""
    begin: int = 0
    fields: Mapping[str, object] = field(default_factory=dict)
    recovered: bool = False
    commands: int = 0
    first_pid: int = 0
    outer: int = 0
    first: ExecEvent | None = None
    waiting: list[Event] = field(default_factory=list)
    deadline: float = 0.0
    origin: Task | None = None
    count_key: str = ""
    processes: OrderedDict[int, Process] = field(default_factory=OrderedDict)
    flood: Flood = field(default_factory=Flood)
    most: int = _PROCESSES

    def remember(self, pid: int, process: Process) -> None:
        """Note what a process runs; the oldest are forgotten beyond a bound."""
        self.processes[pid] = process
        self.processes.move_to_end(pid)
        if len(self.processes) > self.most:
            self.processes.popitem(last=False)

    def process(self, task: Task) -> Process | None:
        """Return what a process last ran; None if its pid was another's."""
        found = self.processes.get(task.pid)
        if found and found.start and task.start and found.start != task.start:
            return None
        return found

    def parent(self, event: ExecEvent) -> Process | None:
        """Return what started a program, as far as it has run one in this session itself."""
        if not event.above_pid:
            return self.process(event.parent)
        found = self.processes.get(event.above_pid)
        return found if found and found.start in {0, event.above_start} else None

    def above(self, task: Task, parent_of: Callable[[int], int]) -> Process | None:
        """Return the nearest ancestor of a process that only forked that has run a program here."""
        pid = task.pid
        for _ in range(_HOPS):
            pid = parent_of(pid)
            if pid <= 1:
                return None
            found = self.processes.get(pid)
            if found:
                # So that its other children need no search.
                alias = Process(task.start, found.event_id, found.name, found.time, has_run=False)
                self.remember(task.pid, alias)
                return found
        return None

    def saved(self, room: int) -> dict[str, Any]:
        """Return what a restarted agent needs to go on with the session, as JSON has it.

        Of its processes these are the newest, as many as have `room`, in bytes.
        """
        newest: list[list[object]] = []
        for pid, one in reversed(self.processes.items()):
            room -= _BESIDE + len(encode_basestring_ascii(one.name))
            if room < 0 or len(newest) == _SAVED:
                break
            newest.append(
                [pid, one.start, one.event_id, one.name, one.time, one.recorded, one.has_run]
            )
        return {
            "number": self.number,
            "state": self.state.value,
            "trace": self.trace,
            "root": self.root,
            "begin": self.begin,
            "fields": dict(self.fields),
            "recovered": self.recovered,
            "commands": self.commands,
            "first_pid": self.first_pid,
            "count_key": self.count_key,
            "processes": newest[::-1],
        }


def load(saved: Mapping[str, Any]) -> Session:
    """Return a saved session. Raise KeyError, TypeError or ValueError if it is none."""
    session = Session(
        number=int(saved["number"]),
        state=State(saved["state"]),
        trace=str(saved["trace"]),
        root=str(saved["root"]),
        begin=int(saved["begin"]),
        fields=dict(saved["fields"]),
        recovered=bool(saved["recovered"]),
        commands=int(saved["commands"]),
        first_pid=int(saved["first_pid"]),
        count_key=str(saved["count_key"]),
    )
    for pid, start, event_id, name, time, recorded, has_run in saved["processes"]:
        session.processes[int(pid)] = Process(
            int(start), str(event_id), str(name), int(time), bool(recorded), bool(has_run)
        )
    return session
