"""Counts what probes and hooks run, by command and hour, where they are not recorded in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PERIOD = 3600.0
_SIZE = 4096


@dataclass
class ProbeCount:
    """The runs of one probe's command in one container since `begin` (boot time, nanoseconds).

    `execs` counts every program that ran in them, `failures` the runs that did not end with 0.
    `fields` describes the container and the command.
    """

    fields: Mapping[str, object]
    begin: int
    end: int
    runs: int = 0
    execs: int = 0
    failures: int = 0


class ProbeCounts:
    """What is counted and not yet written."""

    def __init__(self) -> None:
        self._counts: dict[str, ProbeCount] = {}

    def begin(self, key: str, fields: Mapping[str, object], time: int) -> None:
        """Note that a run begins. `key` tells commands and containers apart."""
        self._counts.setdefault(key, ProbeCount(fields, time, time)).runs += 1

    def note(self, key: str, fields: Mapping[str, object], time: int) -> None:
        """Note a program that ran, whether or not its run began in this hour."""
        found = self._counts.setdefault(key, ProbeCount(fields, time, time))
        found.execs += 1
        found.end = max(found.end, time)

    def failed(self, key: str, fields: Mapping[str, object], time: int) -> None:
        """Note that a run did not end with 0."""
        self._counts.setdefault(key, ProbeCount(fields, time, time)).failures += 1

    def due(self, now: float) -> Iterator[ProbeCount]:
        """Yield and forget what is an hour old at `now` (seconds), and what is beyond a bound."""
        for key, found in list(self._counts.items()):
            if found.begin / 1e9 + PERIOD <= now or len(self._counts) > _SIZE:
                yield self._counts.pop(key)

    def all(self) -> Iterator[ProbeCount]:
        """Yield and forget everything."""
        counts, self._counts = self._counts, {}
        yield from counts.values()

    def next_due(self) -> float | None:
        """Return when the next count is an hour old, in seconds; None if nothing is counted."""
        return min((one.begin / 1e9 + PERIOD for one in self._counts.values()), default=None)
