"""What sensors tell: the boundary between a kernel interface and the session tracker.

Times are nanoseconds of CLOCK_BOOTTIME. Process ids are those of the agent's own pid namespace.
Text from the kernel stays bytes.

Nobody changes an event. They are not frozen, since to make a frozen one of so many fields costs as
much as all else that is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol, Union

UNSET_LOGIN_UID = 0xFFFFFFFF
"""Login uid, and audit session, of a process that no login began."""

AUDIT_VARIABLES = (b"KUBERNETES_EXEC_AUDIT_ID", b"SPO_EXEC_REQUEST_UID")
"""Environment variables by which an exec's audit id comes with it: the API server's, and SPO's."""


@dataclass
class Task:
    """A process, and where it is.

    `start` is when its group leader began; with `pid` it names the process for all of the boot.
    `cgroup` is the path below the hierarchy's root, b"" if unknown; namespaces are inode numbers,
    0 if unknown. `comm` is at most 15 bytes and never a program's name in a record.
    """

    pid: int
    start: int = 0
    host_pid: int = 0
    comm: bytes = b""
    cgroup: bytes = b""
    mount_namespace: int = 0
    pid_namespace: int = 0
    executable: bytes = b""


@dataclass
class ExecEvent:
    """A program that has replaced another in `task`.

    - `session`: the kernel's number, unique in this boot; 0 for a process of no session.
    - `entry`: this exec opened the session, by crossing a boundary from `parent`.
    - `argv`: the arguments, each ended by a NUL; of more than the sensor keeps, head and tail, with
      `argv_cut` bytes missing between them at offset `argv_cut_at`; `argv_size` is the whole size.
    - `filename`: as it was given to the kernel: of a script, the script; `task.executable` is what
      runs, of a script its interpreter.
    - `environment`: of an entry, those of AUDIT_VARIABLES that it has.
    - `tty`: (major, minor), or None.
    - `unknown`: what the sensor could not find out, by field name, with the reason.
    - `above_pid`, `above_start`: of the nearest ancestor in the session that has run a program; 0
      if there is none, or if the sensor does not know. Of an entry within a session: in the outer.
    - `outer`: of an entry, the session that the process belonged to until then; 0 for none.
    - `device`: of an entry that was gone too soon to be found anywhere, that of the file system its
      program was on, as stat has it; `through`: the arguments of the runtime that started it.
    """

    time: int
    session: int
    entry: bool
    task: Task
    parent: Task
    argv: bytes
    argv_size: int
    filename: bytes = b""
    cwd: bytes = b""
    argv_cut: int = 0
    argv_cut_at: int = 0
    uid: int = 0
    gid: int = 0
    login_uid: int = UNSET_LOGIN_UID
    audit_session: int = UNSET_LOGIN_UID
    tty: tuple[int, int] | None = None
    memfd: bool = False
    environment: Mapping[bytes, bytes] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    above_pid: int = 0
    above_start: int = 0
    outer: int = 0
    device: int = 0
    through: bytes = b""


class AlikeEvent(NamedTuple):
    """An exec that differs from an earlier one, `model`, in process and arguments alone.

    `argv` is whole, `process` is ``(time, start, pid, host_pid, parent_start, above_start,
    above_pid, parent_pid, parent_host_pid)``: to read, tell and write the commands of a loop so
    takes a fraction of the time.
    """

    session: int
    process: tuple[int, ...]
    argv: bytes
    model: ExecEvent

    @property
    def time(self) -> int:
        """When it was."""
        return self.process[0]

    def whole(self) -> ExecEvent:
        """Return it as any other exec."""
        time, start, pid, host_pid, *others = self.process
        parent_start, above_start, above_pid, parent_pid, parent_host_pid = others
        model = self.model
        return replace(
            model,
            time=time,
            session=self.session,
            task=replace(model.task, pid=pid, start=start, host_pid=host_pid),
            parent=replace(
                model.parent, pid=parent_pid, start=parent_start, host_pid=parent_host_pid
            ),
            above_pid=above_pid,
            above_start=above_start,
            argv=self.argv,
            argv_size=len(self.argv),
        )


@dataclass
class ExitEvent:
    """A process of a session that had run a program is gone, with all its threads.

    `status` is the wait status: an exit code in the second byte, or a signal in the low seven bits.
    """

    time: int
    session: int
    pid: int
    start: int
    status: int


@dataclass
class EndEvent:
    """The last process of a session is gone."""

    time: int
    session: int


Event = Union[ExecEvent, AlikeEvent, ExitEvent, EndEvent]


@dataclass(frozen=True)
class LiveSession:
    """A session that went on while no agent ran: its number and the processes now in it."""

    session: int
    tasks: Sequence[Task]


class SensorError(Exception):
    """A sensor can't work here, or not any more; the text says why and what would help."""


class Sensor(Protocol):
    """A source of events. One thread uses it; no call blocks."""

    name: str
    """``bpf`` or ``audit``."""

    resumed: bool
    """Whether it goes on with what an earlier agent has left in the kernel."""

    taken: Callable[[int], None]
    """Called with how many execs were taken just now, before anything is done with them."""

    def fileno(self) -> int:
        """Return what is readable when events wait."""

    def read(self) -> Sequence[Event]:
        """Return the events that wait, in the order in which they happened."""

    def fill(self) -> float:
        """Return how full the kernel's buffer is: 0 to 1, beyond which events are lost."""

    def drop(self, session: int) -> None:
        """Say that a session is no access: nothing more of it is told."""

    def live(self) -> Sequence[LiveSession]:
        """Return the sessions that are open, for an agent that has just started."""

    def adopt(self, sessions: Sequence[Sequence[Task]]) -> Sequence[int]:
        """Follow sessions that began unseen, given by their processes from now on.

        Returns the number of each, 0 for one whose processes are all gone or in others.
        """

    def losses(self) -> Mapping[str, int]:
        """Return how many events were lost by cause, since the sensor was first loaded."""

    def close(self, *, keep: bool) -> None:
        """Let go. With `keep` capture goes on in the kernel where the sensor can do that."""
