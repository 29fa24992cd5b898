"""An exec as kernel audit tells it, and what /proc told of it before."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from exectrail_agent.audit.lineage import Process
from exectrail_agent.audit.parse import ARGV_END, Call, number_of, text_of
from exectrail_agent.events import UNSET_LOGIN_UID, ExecEvent, Task
from exectrail_agent.proc import Place, task_at

GONE = "gone before it could be read"
NO_RECORD = "no audit record came"
_IDENTITY = {
    "uid": b"uid",
    "gid": b"gid",
    "login_uid": b"auid",
    "audit_session": b"ses",
    "tty": b"tty",
}
_CLOCK_SLACK = 5_000_000
_TERMINAL = re.compile(rb"([a-zA-Z]+)(\d{1,7})")
_CONSOLE = (5, 1)
_PTS, _PTS_SIZE = 136, 256
_TTY_MAJORS = {b"tty": (4, 0), b"ttyS": (4, 64), b"ttyAMA": (204, 64), b"hvc": (229, 0)}


@dataclass(eq=False)
class Sighting:
    """An exec that happened and whose audit records are still to come.

    - `time`: nanoseconds since boot. `deadline`: when to wait no longer, monotonic seconds.
    - `undecided`: nobody could see where the process was; `crossed` is what says it after all.
    - `late`: until then, monotonic seconds, a crossing may turn up that came after this exec: where
      the process was is read a moment too late. `retracted`: it did.
    - `claimed`: the first of its records came.
    """

    time: int
    process: Process
    session: int
    entry: bool
    deadline: float
    parent: Task
    outer: int = 0
    place: Place | None = None
    undecided: bool = False
    crossed: bool = False
    claimed: bool = False
    late: float = float("-inf")
    retracted: bool = False
    environment: Mapping[bytes, bytes] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    event: ExecEvent | None = None

    @property
    def has_left(self) -> bool:
        """Whether the process may be elsewhere than its parent, as far as that was seen."""
        place, parent = self.place, self.parent
        there = (parent.cgroup, parent.mount_namespace, parent.pid_namespace)
        return place is None or there != (
            place.cgroup,
            place.mount_namespace,
            place.pid_namespace,
        )

    def place_parent(self, place: Place) -> None:
        """Say where the parent was if it is gone: where its child was before."""
        above = self.parent
        if not above.mount_namespace:
            self.parent = task_at(above.pid, above.start, place, above.executable, above.comm)

    def note(self, event: ExecEvent) -> None:
        """Note in the process that this was told, if it is still in the session."""
        if event.session and self.process.session == event.session:
            self.process.told = True
            self.process.task = event.task


class Sightings:
    """The execs whose records are to come, by process, oldest first.

    Those that nobody wants to know more of are among them: else the record of one would be taken
    for another's. Of these only the time is kept, and not for long.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[Sighting | int]] = {}

    def add(self, sighting: Sighting) -> None:
        """Note an exec."""
        self._waiting.setdefault(sighting.process.pid, deque()).append(sighting)

    def pass_over(self, pid: int, time: int) -> None:
        """Note an exec that is of no interest."""
        self._waiting.setdefault(pid, deque()).append(time)

    def claim(self, pid: int, began: int) -> Sighting | int | None:
        """Take out the exec that a call which began then is; older ones are waited for no longer.

        An exec of no interest is its time; None if there is none. BEGAN may be too early.
        """
        waiting = self._waiting.get(pid)
        if not waiting or _time_of(waiting[-1]) < began - _CLOCK_SLACK:
            return None
        while True:
            claimed = waiting.popleft()
            if _time_of(claimed) >= began - _CLOCK_SLACK:
                break
            if isinstance(claimed, Sighting):
                claimed.deadline = float("-inf")
        if not waiting:
            del self._waiting[pid]
        return claimed

    def give_up(self, one: Sighting) -> None:
        """Wait for an exec no longer; if its records do come, they are of no interest."""
        waiting = self._waiting.get(one.process.pid)
        if waiting and one in waiting:
            waiting[waiting.index(one)] = one.time

    def expire(self, oldest: int) -> None:
        """Forget the execs of no interest, older than that, whose records never came."""
        for pid, waiting in list(self._waiting.items()):
            kept = deque(one for one in waiting if not isinstance(one, int) or one >= oldest)
            if kept:
                self._waiting[pid] = kept
            else:
                del self._waiting[pid]


def _time_of(one: Sighting | int) -> int:
    return one if isinstance(one, int) else one.time


@dataclass(frozen=True)
class Runtime:
    """A container runtime: its file, and its arguments, each ended by a NUL."""

    executable: bytes
    argv: bytes


def complete(sighting: Sighting, call: Call, runtime: Runtime | None = None) -> ExecEvent:
    """Make the event of an exec from both, and from the start of the RUNTIME that is its parent."""
    told, unknown = call.fields, dict(sighting.unknown)
    parent, through = sighting.parent, b""
    if runtime:
        through = b"" if sighting.place else runtime.argv
        if not parent.executable:
            parent = replace(parent, executable=runtime.executable)
            unknown.pop("parent.executable", None)
    argv, cut = call.arguments.finish()
    if call.arguments.problem:
        unknown["argv"] = call.arguments.problem
    executable = text_of(told.get(b"exe", b""))
    if executable is None:
        unknown["task.executable"] = "not in the audit record" if told else GONE
    unknown.update((name, NO_RECORD) for name, key in _IDENTITY.items() if key not in told)
    if call.cwd is None:
        unknown["cwd"] = NO_RECORD
    filename = _filename(call)
    if filename is None:
        unknown["filename"] = NO_RECORD
    tty = terminal(told.get(b"tty", b"(none)"))
    if tty is None and told.get(b"tty") not in {None, b"(none)", b"(null)"}:
        unknown["tty"] = "a terminal without a known number"
    return ExecEvent(
        time=sighting.time,
        session=sighting.session,
        entry=sighting.entry,
        task=_task(sighting, executable or b"", text_of(told.get(b"comm", b"")) or b""),
        parent=parent,
        argv=argv,
        argv_size=call.arguments.size,
        filename=filename or b"",
        cwd=call.cwd or b"",
        argv_cut=cut,
        argv_cut_at=ARGV_END if cut else 0,
        uid=number_of(told.get(b"uid"), 0),
        gid=number_of(told.get(b"gid"), 0),
        login_uid=number_of(told.get(b"auid"), UNSET_LOGIN_UID),
        audit_session=number_of(told.get(b"ses"), UNSET_LOGIN_UID),
        tty=tty,
        memfd=(executable or b"").startswith(b"/memfd:"),
        environment=sighting.environment,
        unknown=unknown,
        outer=sighting.outer,
        device=call.device,
        through=through,
    )


def terminal(name: bytes) -> tuple[int, int] | None:
    """Return the number of a terminal that audit names; None for none, or an unknown one."""
    if name == b"console":
        return _CONSOLE
    found = _TERMINAL.fullmatch(name)
    if not found:
        return None
    driver, number = found[1], int(found[2])
    if driver == b"pts":
        return _PTS + number // _PTS_SIZE, number % _PTS_SIZE
    if driver not in _TTY_MAJORS:
        return None
    major, first = _TTY_MAJORS[driver]
    return major, first + number


def _task(sighting: Sighting, executable: bytes, comm: bytes) -> Task:
    process = sighting.process
    return task_at(process.pid, process.start, sighting.place, executable, comm)


def _filename(call: Call) -> bytes | None:
    if call.name != "execveat" or (call.filename or b"").startswith(b"/"):
        return call.filename
    # The kernel itself calls it so; audit only has the part that was given beside the descriptor.
    try:
        descriptor = int(call.fields.get(b"a0", b""), 16)
    except ValueError:
        return call.filename
    if descriptor & 0xFFFFFFFF == 0xFFFFFF9C:  # AT_FDCWD  # noqa: PLR2004
        return call.filename
    rest = b"/" + call.filename if call.filename else b""
    return b"/dev/fd/%d" % (descriptor & 0x7FFFFFFF) + rest
