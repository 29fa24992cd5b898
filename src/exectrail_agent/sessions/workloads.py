"""What containers run by themselves, where that is recorded too."""

from __future__ import annotations

from collections import OrderedDict

from exectrail_agent.events import ExecEvent
from exectrail_agent.log.records import container_fields
from exectrail_agent.sessions.crossing import ContainerLookup, join
from exectrail_agent.sessions.session import Session, State

_SIZE = 4096
_EACH = 256
_ALL = 16384
"""Processes to remember of one container, and of all others: nobody tells when they end."""


class Workloads:
    """One lasting session for each container, without an id: nobody has entered anything.

    Their numbers are below zero, so that they are none of the kernel's.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._made = 0
        self._last = Session(0)
        self._others = 0

    def session(self, event: ExecEvent, index: ContainerLookup) -> Session | None:
        """Return what an exec belongs to; None if it is in no container."""
        where = join(event, index)
        if not where.container and not where.container_id:
            return None
        found = self._sessions.get(where.container_id)
        if found is None:
            self._made += 1
            found = Session(-self._made, State.OPEN, most=_EACH)
            self._sessions[where.container_id] = found
        fields = container_fields(where.container, where.container_id)
        if fields != found.fields:
            found.fields = fields
        self._sessions.move_to_end(where.container_id)
        self._bound(found)
        if event.parent.pid in found.processes:
            # Who goes on starting programs is known longer than these.
            found.processes.move_to_end(event.parent.pid)
        return found

    def _bound(self, session: Session) -> None:
        """Forget the containers that nothing was run in for longest, if there is too much."""
        if session is not self._last:
            # Only the last one's processes have become more.
            self._others += len(self._last.processes) - len(session.processes)
            self._last = session
        while self._others > _ALL or len(self._sessions) > _SIZE:
            _, gone = self._sessions.popitem(last=False)
            self._others -= len(gone.processes)
