"""What happened and is not told yet, because more may still become known of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Tuple, Union  # noqa: UP035  Python 3.8

from exectrail_agent.audit.execve import Sighting
from exectrail_agent.audit.lineage import Process
from exectrail_agent.events import EndEvent, ExitEvent

BEHIND_SECONDS = 30.0
_PASSED = 1_000_000_000
_MOST = 16384

Exited = Tuple[Process, ExitEvent]
Item = Union[Sighting, Exited, EndEvent]


class Waiting:
    """Execs, exits and ends of sessions, in the order in which they happened."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._dropped: set[int] = set()

    def add(self, item: Item) -> None:
        """Note what has just happened."""
        self._items.append(item)

    def remove(self, item: Item) -> None:
        """Take back what has not happened after all."""
        self._items.remove(item)

    def drop(self, session: int) -> None:
        """Note that what waits of a session is of no interest."""
        if self._items:
            self._dropped.add(session)
        if len(self._dropped) > 2 * _MOST:
            self._dropped &= {_session_of(item) for item in self._items}

    def is_dropped(self, item: Item) -> bool:
        """Whether something is of a session that is of no interest."""
        return _session_of(item) in self._dropped

    def is_wanted(self, sighting: Sighting) -> bool:
        """Whether an exec is to be told."""
        return not sighting.retracted and sighting.session not in self._dropped

    def sightings(self) -> Iterator[Sighting]:
        """Give the execs that are to be told and whose records are still to come."""
        for item in self._items:
            if isinstance(item, Sighting) and self.is_wanted(item) and not item.event:
                yield item

    def overdue(self, now: float) -> bool:
        """Whether the first has waited long enough for its records, if those are not behind."""
        item = self._items[0] if self._items else None
        if not isinstance(item, Sighting) or self.is_dropped(item):
            return False
        return not self._must_wait(item, now, math.inf) and (
            item.event is None or (not item.crossed and item.late > 0)
        )

    def ready(self, now: float, heard: float) -> Iterator[Item]:
        """Take out what nothing has to be waited for, up to the first that has to wait.

        HEARD is the time since boot up to which audit has told everything for certain.
        """
        while self._items and not self._must_wait(self._items[0], now, heard):
            yield self._items.popleft()
        if not self._items:
            self._dropped.clear()

    def _must_wait(self, item: Item, now: float, heard: float) -> bool:
        if not isinstance(item, Sighting) or not self.is_wanted(item) or len(self._items) > _MOST:
            return False
        more = BEHIND_SECONDS if heard < item.time + _PASSED else 0.0
        if item.event is None:
            return now < item.deadline + more
        return not item.crossed and now < item.late + more


def _session_of(item: Item) -> int:
    return item[1].session if isinstance(item, tuple) else item.session
