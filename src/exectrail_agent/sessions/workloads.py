"""What containers run by themselves, where that is recorded too."""

from __future__ import annotations

from collections import OrderedDict

from exectrail_agent.events import ExecEvent
from exectrail_agent.log.records import container_fields
from exectrail_agent.sessions.crossing import ContainerLookup, join
from exectrail_agent.sessions.session import Session, State

_SIZE = 4096


class Workloads:
    """One lasting session for each container, without an id: nobody has entered anything.

    Their numbers are below zero, so that they are none of the kernel's.
    """

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._made = 0

    def session(self, event: ExecEvent, index: ContainerLookup) -> Session | None:
        """Return what an exec belongs to; None if it is in no container."""
        where = join(event, index)
        if not where.container and not where.container_id:
            return None
        found = self._sessions.get(where.container_id)
        if found is None:
            self._made += 1
            found = Session(-self._made, State.OPEN)
            self._sessions[where.container_id] = found
            if len(self._sessions) > _SIZE:
                self._sessions.popitem(last=False)
        fields = container_fields(where.container, where.container_id)
        if fields != found.fields:
            found.fields = fields
        self._sessions.move_to_end(where.container_id)
        return found
