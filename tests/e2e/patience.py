"""What is asked again of an emulated machine that is too slow for those who look at it."""

from __future__ import annotations

ATTEMPTS = 3


def gave_up(report: str) -> bool:
    """Whether a preflight's report tells of a probe that was ended before it had an answer."""
    slow = ("no answer in time", "not finished within", "not reached within")
    return any(words in report for words in slow)
