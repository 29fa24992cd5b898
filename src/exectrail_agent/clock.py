"""The two clocks of a record: the one that orders and the one that people read."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_SECOND = 1_000_000_000
_JUMP = _SECOND // 2


def _boot_time() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class ClockJump:
    """The wall clock was set: by how many nanoseconds, found at boot time `time`."""

    time: int
    nanoseconds: int


class Clock:
    """Converts nanoseconds of CLOCK_BOOTTIME to wall-clock time.

    The offset between the two changes when somebody sets the wall clock, never by a suspend.
    """

    def __init__(
        self,
        boot_time: Callable[[], int] = _boot_time,
        wall_time: Callable[[], int] = time.time_ns,
    ) -> None:
        self._boot_time = boot_time
        self._wall_time = wall_time
        self._offset = self._measure()
        self._begin = -_SECOND
        self._text = ""

    def now(self) -> int:
        """Return the boot time in nanoseconds."""
        return self._boot_time()

    def sample(self) -> ClockJump | None:
        """Measure the offset anew; tell of a change too large for a clock that is being slewed."""
        offset = self._measure()
        change, self._offset = offset - self._offset, offset
        self._begin -= change
        return ClockJump(self.now(), change) if abs(change) >= _JUMP else None

    def text(self, boot_time: int) -> str:
        """Return a boot time as RFC 3339 in UTC with nanoseconds."""
        rest = boot_time - self._begin
        if not 0 <= rest < _SECOND:
            second, rest = divmod(boot_time + self._offset, _SECOND)
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            self._begin = boot_time - rest
        # Nine digits, in half the time of a format.
        return f"{self._text}{str(_SECOND + rest)[1:]}Z"

    def _measure(self) -> int:
        before = self._boot_time()
        wall = self._wall_time()
        return wall - (before + self._boot_time()) // 2
