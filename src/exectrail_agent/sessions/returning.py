"""What a newly started agent makes of the sessions that it finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exectrail_agent.events import ExecEvent, LiveSession, Task
from exectrail_agent.sessions import session
from exectrail_agent.sessions.crossing import ContainerLookup, Crossing, Way, join
from exectrail_agent.sessions.session import Session, State

_SAVED = 1024
_ROOM = 4 << 20
"""Bytes for the processes of all sessions, and as many for the rest: a state has twice that."""
_COMM = 15


class Returning:
    """Sessions of which the sensor and the saved state tell different things.

    What waits in the sensor may explain it, so they are given a while.
    """

    def __init__(self) -> None:
        self.deadline = 0.0
        self._unknown: dict[int, LiveSession] = {}
        self._missing: set[int] = set()

    def begin(
        self,
        live: Sequence[LiveSession],
        known: Collection[int],
        open_ones: Collection[int],
        deadline: float,
    ) -> None:
        """Note the open sessions that nobody knows, and the known ones that are not open."""
        self._unknown = {one.session: one for one in live if one.session not in known}
        self._missing = {*open_ones} - {one.session for one in live}
        self.deadline = deadline if self._unknown or self._missing else 0.0

    def seen(self, number: int) -> None:
        """Note that an event of a session came: it explains itself."""
        self._unknown.pop(number, None)
        self._missing.discard(number)

    def due(self, now: float) -> tuple[Sequence[LiveSession], Collection[int]]:
        """Return, once, the unknown and the missing sessions whose time is up."""
        if not self.deadline or now < self.deadline:
            return (), ()
        unknown, missing = list(self._unknown.values()), self._missing
        self._unknown, self._missing, self.deadline = {}, set(), 0.0
        return unknown, missing


@dataclass(frozen=True)
class Kept:
    """What an earlier agent left: sessions, which are part of which, what was no access.

    What it had counted is written when it stops; what it had when it was killed, the ledger knows.
    """

    sessions: Sequence[Session]
    inner: Mapping[int, int]
    dropped: Sequence[int]


def saved(
    boot: str,
    sessions: Mapping[int, Session],
    inner: Mapping[int, int],
    dropped: Collection[int],
) -> dict[str, Any]:
    """Return what a later agent of the same boot needs, as JSON has it; the newest of each."""
    kept = [one for one in sessions.values() if one.state in {State.OPEN, State.COUNTED}]
    return {
        "boot": boot,
        "sessions": _newest(kept[-_SAVED:]),
        "inner": [list(pair) for pair in list(inner.items())[-_SAVED:]],
        "dropped": list(dropped)[-_SAVED:],
    }


def _newest(sessions: Sequence[Session]) -> list[dict[str, Any]]:
    """Return the newest that there is room for, with equal shares of it for their processes."""
    found: list[dict[str, Any]] = []
    room = 2 * _ROOM
    for one in reversed(sessions):
        told = one.saved(_ROOM // len(sessions))
        size = len(json.dumps(told))
        if size <= room:
            found.append(told)
            room -= size
    return found[::-1]


def load(state: Mapping[str, Any], boot: str, comm_of: Callable[[int], bytes]) -> Kept | None:
    """Return what was saved; None if it is of another boot or damaged.

    `comm_of` tells what the kernel calls what a process runs, b"" if it is gone.
    """
    if state.get("boot") != boot:
        return None
    try:
        return Kept(
            [_verified(session.load(one), comm_of) for one in state["sessions"]],
            {int(one): int(other) for one, other in state["inner"]},
            [int(one) for one in state["dropped"]],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _verified(session: Session, comm_of: Callable[[int], bytes]) -> Session:
    """Forget the processes that run something else by now: who is killed saves nothing more.

    One that has only renamed itself looks the same.
    """
    for pid, one in list(session.processes.items()):
        comm = comm_of(pid)
        if comm and comm != one.name.encode(errors="replace")[:_COMM]:
            del session.processes[pid]
    return session


def going_on(live: LiveSession, index: ContainerLookup) -> tuple[Task, Crossing] | None:
    """Return a session's first process in a container; None if it is no access.

    That is where none is in a container, or the container's own first process is a part of it
    and no access.
    """
    tasks = sorted(live.tasks, key=lambda task: task.start)
    judged = [(task, join(_standing(task), index)) for task in tasks]
    if any(one.own_start and one.is_own for _, one in judged):
        return None
    return next(((task, one) for task, one in judged if one.way is not Way.INSIDE), None)


def _standing(task: Task) -> ExecEvent:
    return ExecEvent(task.start, 0, entry=False, task=task, parent=Task(0), argv=b"", argv_size=0)
