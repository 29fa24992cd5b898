"""Identifiers that are unique over nodes and boots and sort by time: ULIDs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_RANDOM_BITS = 80
_SHIFTS = range(120, -1, -10)


class IdSource:
    """Makes identifiers; each is greater than the one before, whatever the clock does."""

    def __init__(
        self,
        milliseconds: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._milliseconds = milliseconds
        self._random = random
        self._last = 0

    def make(self) -> str:
        """Return 26 characters: 48 bits of time, 80 of chance; within a millisecond, a count."""
        now = self._milliseconds()
        if now > self._last >> _RANDOM_BITS:
            chance = int.from_bytes(self._random(_RANDOM_BITS // 8), "big")
            self._last = now << _RANDOM_BITS | chance
        else:
            self._last += 1
        value = self._last
        return "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])
