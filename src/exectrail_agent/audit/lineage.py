"""The processes of the node and which of them are in sessions: what forks hand on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from exectrail_agent.events import Task
from exectrail_agent.proc import Place

_DEEPEST = 4


class Process:
    """A process. Times are nanoseconds since boot.

    - `session`: its number, 0 for none. `told`: a program that it ran in there was told of.
    - `place`: of a member where it, or who forked it, ran its last program; with `crossed` where it
      went, as it, or who forked it, entered other namespaces and has run no program since.
    - `looked`: where it was when it was last looked at, `looked_at` in monotonic seconds.
    - `entering`: a child of it has crossed, so that one may be born there.
    - `task`: as it was when it last ran a program in a session; `ran`: when that was.
    """

    __slots__ = (
        "crossed",
        "entering",
        "looked",
        "looked_at",
        "parent",
        "pid",
        "place",
        "ran",
        "session",
        "start",
        "task",
        "told",
    )

    def __init__(self, pid: int, parent: int, start: int) -> None:
        self.pid = pid
        self.parent = parent
        self.start = start
        self.session = 0
        self.told = False
        self.crossed = False
        self.entering = False
        self.place: Place | None = None
        self.looked: Place | None = None
        self.looked_at = float("-inf")
        self.task: Task | None = None
        self.ran = 0


@dataclass
class _Session:
    members: set[int] = field(default_factory=set)
    outer: int = 0
    inner: int = 0
    depth: int = 0


class Lineage:
    """All processes by pid, the youngest last, and the members of each session.

    A session opened by a member of another is itself a member of that one.
    """

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._sessions: dict[int, _Session] = {}

    def get(self, pid: int) -> Process | None:
        """Return a process that is known."""
        return self._processes.get(pid)

    def pids(self) -> list[int]:
        """Return the processes that are known."""
        return list(self._processes)

    def members(self) -> dict[int, list[Process]]:
        """Return the processes of each session."""
        return {
            number: [self._processes[pid] for pid in sorted(session.members)]
            for number, session in self._sessions.items()
        }

    def add(self, pid: int, parent: int, start: int) -> Process:
        """Note a process; its parent's session, and crossing, are its own."""
        process = Process(pid, parent, start)
        above = self._processes.get(parent)
        if above:
            process.crossed, process.place = above.crossed, above.place
            process.task = above.task
            if above.session:
                process.session = above.session
                self._sessions[above.session].members.add(pid)
        self._processes.pop(pid, None)
        self._processes[pid] = process
        return process

    def open(self, process: Process, number: int) -> int:
        """Begin a session with a process; return the session that it was in, 0 for none.

        Where sessions are in sessions too deeply, the process stays where it is: returns -1.
        """
        outer = process.session
        session = _Session({process.pid}, outer)
        if outer:
            above = self._sessions[outer]
            if above.depth >= _DEEPEST:
                return -1
            session.depth = above.depth + 1
            above.members.discard(process.pid)
            above.inner += 1
        self._sessions[number] = session
        process.session = number
        return outer

    def adopt(self, process: Process, number: int) -> None:
        """Make a process a member of a session, which it may be the first of."""
        process.session = number
        self._sessions.setdefault(number, _Session()).members.add(process.pid)

    def remove(self, process: Process) -> list[int]:
        """Forget a process; return the sessions that ended with it, the innermost first."""
        self._processes.pop(process.pid, None)
        session = self._sessions.get(process.session)
        if session is None:
            return []
        session.members.discard(process.pid)
        return self._end(process.session)

    def drop(self, number: int) -> list[int]:
        """Take every process out of a session; return the sessions that ended with it."""
        session = self._sessions.get(number)
        if session is None:
            return []
        for pid in session.members:
            process = self._processes[pid]
            process.session, process.told, process.task = 0, False, None
        session.members.clear()
        session.inner = 0
        return self._end(number)[1:]

    def born_since(self, start: int) -> Iterator[Process]:
        """Give the processes that are no older than that, youngest first."""
        for process in reversed(list(self._processes.values())):
            if process.start < start:
                return
            yield process

    def _end(self, number: int) -> list[int]:
        ended: list[int] = []
        while number in self._sessions:
            session = self._sessions[number]
            if session.members or session.inner:
                break
            del self._sessions[number]
            ended.append(number)
            number = session.outer
            if number in self._sessions:
                self._sessions[number].inner -= 1
        return ended
