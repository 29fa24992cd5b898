"""Collapses a session's floods: identical programs in great number become one counted record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii

from exectrail_agent.events import Event, ExecEvent

LIMIT = 20
WINDOW = 1_000_000_000
_KEPT = 1 << 20
_EVENT = 1024


def size_of(event: Event) -> int:
    """Return about how many bytes an event takes, or its record if that is more.

    There its arguments are twice, and a control character is six.
    """
    if not isinstance(event, ExecEvent):
        return _EVENT
    task, parent = event.task, event.parent
    argv = encode_basestring_ascii(event.argv.decode("latin-1"))
    texts = (argv, argv, event.filename, event.cwd, event.through, *event.environment.values())
    places = (task.cgroup, task.executable, parent.cgroup, parent.executable)
    return _EVENT + sum(map(len, texts)) + sum(map(len, places))


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
    """Counts identical execs (executable and argv) in windows of a second.

    A window ends sooner where what was collapsed takes too much room.
    """

    def __init__(self) -> None:
        self._begin = 0
        self._kept = 0
        self._seen: dict[int, int] = {}
        self._collapsed: dict[int, Collapsed] = {}

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
        return not 0 <= time - self._begin < WINDOW

    def admit(self, key: int, time: int) -> bool:
        """Count an exec, and say whether it is to have a record of its own.

        False too once the window is over: the caller then takes what `end` yields, and asks again.
        """
        if not 0 <= time - self._begin < WINDOW:
            if self._seen:
                return False
            self._begin = time
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        return count <= LIMIT

    def collapse(self, key: int, event: ExecEvent, event_id: str, parent_event_id: str) -> None:
        """Count the first exec that has no record; one with this id will stand for it."""
        self._collapsed[key] = Collapsed(
            event_id, event, parent_event_id, 1, event.time, event.time
        )
        self._kept += size_of(event)
        if self._kept > _KEPT:
            self._begin = event.time - WINDOW

    def again(self, key: int, time: int) -> str:
        """Count one more; return the id of the record that will stand for it.

        That is "" if it is the first in this window: nothing is counted.
        """
        found = self._collapsed.get(key)
        if found is None or self.over(time):
            return ""
        found.count += 1
        found.end = time
        return found.event_id

    def end(self) -> Iterator[Collapsed]:
        """End the window and yield what was collapsed in it."""
        collapsed, self._collapsed = self._collapsed, {}
        self._seen, self._kept = {}, 0
        yield from collapsed.values()
