"""Identifiers that are unique over nodes and boots and sort by time: ULIDs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_RANDOM_BITS = 80
_COUNTED_BITS = 20
_COUNTS = 1 << _COUNTED_BITS
_FIXED_SHIFTS = range(120, _COUNTED_BITS - 1, -10)


class IdSource:
    """Makes identifiers; each is greater than the one before, whatever the clock does.

    An agent draws its 60 bits of chance once, and counts in the other 20: what all its identifiers
    have in common costs nothing in a compressed log.
    """

    def __init__(
        self,
        milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._milliseconds = milliseconds
        chance = int.from_bytes(random(_RANDOM_BITS // 8), "big") >> _COUNTED_BITS
        self._fixed = chance
        self._count = -1
        self._now = -1
        self._head = ""

    def make(self) -> str:
        """Return 26 characters: 48 bits of time, 60 of chance, 20 of a count."""
        self.refresh()
        return self.more()

    def more(self) -> str:
        """Return another one with the time of the last `refresh`."""
        count = self._count = self._count + 1
        if count == _COUNTS:
            self._begin(self._now)
            count = 0
        return self._head + _PAIRS[count >> 10] + _PAIRS[count & 1023]

    def refresh(self) -> None:
        """Look at the clock."""
        now = self._milliseconds()
        if now > self._now:
            self._begin(now)

    def _begin(self, now: int) -> None:
        """Begin a millisecond, or another million identifiers in one."""
        if self._count == _COUNTS:
            self._count = 0
            # Should the chance be all ones, the next millisecond is begun.
            self._fixed += 1
        self._now = now
        value = (now << _RANDOM_BITS) + (self._fixed << _COUNTED_BITS)
        self._head = "".join([_PAIRS[value >> shift & 1023] for shift in _FIXED_SHIFTS])
