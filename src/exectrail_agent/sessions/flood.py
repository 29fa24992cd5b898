"""Collapses a session's floods: identical programs in great number become one counted record."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from exectrail_agent.events import ExecEvent

LIMIT = 20
WINDOW = 1_000_000_000


@dataclass
class Collapsed:
    """Execs of one program with one argv that have no record of their own; `first` is one of them.

    `begin` and `end` are boot times of the first and last one in nanoseconds.
    """

    event_id: str
    first: ExecEvent
    parent_event_id: str
    count: int
    begin: int
    end: int


class Flood:
    """Counts identical execs (executable and argv) in windows of a second."""

    def __init__(self) -> None:
        self._begin = 0
        self._seen: dict[Hashable, int] = {}
        self._collapsed: dict[Hashable, Collapsed] = {}

    @property
    def pending(self) -> bool:
        """Whether something is collapsed that no record tells of yet."""
        return bool(self._collapsed)

    @property
    def ends(self) -> int:
        """The boot time in nanoseconds at which the window is over."""
        return self._begin + WINDOW

    def over(self, time: int) -> bool:
        """Whether the window has ended at a boot time; a clock that went back ends it too."""
        return not self._begin <= time < self.ends

    def key(self, event: ExecEvent) -> Hashable:
        """Return what makes execs identical, small also where argv is not.

        Nobody can aim at a hash of Python's for bytes: each process has a secret of its own.
        """
        return event.task.executable, event.argv_size, hash(event.argv)

    def admit(self, key: Hashable, time: int) -> bool:
        """Count an exec, and say whether it is still to have a record of its own.

        The caller takes what `end` yields whenever the window is over, before it asks.
        """
        if not self._seen:
            self._begin = time
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        return count <= LIMIT

    def collapse(self, key: Hashable, event: ExecEvent, event_id: str, parent_event_id: str) -> str:
        """Count an exec that has no record; return the id of the record that stands for it."""
        found = self._collapsed.get(key)
        if found is None:
            found = Collapsed(event_id, event, parent_event_id, 0, event.time, event.time)
            self._collapsed[key] = found
        found.count += 1
        found.end = event.time
        return found.event_id

    def end(self) -> Iterator[Collapsed]:
        """End the window and yield what was collapsed in it."""
        collapsed, self._collapsed = self._collapsed, {}
        self._seen = {}
        yield from collapsed.values()
