"""Losses that are known and not written yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exectrail_agent.log.records import Lost, Record, RecordMaker

_EXECS = "exec-"
_RING_FULL = "ring-full"


def _counts_execs(cause: str) -> bool:
    """Whether a sensor's cause counts execs alone; of others nobody knows how many came of them."""
    return cause == _RING_FULL or cause.startswith(_EXECS)


class LossAccountant:
    """Turns a sensor's totals by cause into Loss records.

    Totals grow since the sensor was loaded, which may have been before this agent began: `totals`
    is what an earlier agent of the same boot has told of already, up to boot time `since`; less
    than nothing where it had no time to tell.

    `told` are the totals of which the log tells.
    """

    def __init__(
        self, maker: RecordMaker, totals: Mapping[str, int] | None = None, since: int = 0
    ) -> None:
        self._maker = maker
        self.totals: dict[str, int] = dict(totals or {})
        self.told = dict(self.totals)
        self._since = since

    def update(self, totals: Mapping[str, int]) -> list[Record]:
        """Return a record for each cause whose total has grown. A smaller one began anew."""
        now = self._maker.clock.now()
        records = []
        for cause, total in totals.items():
            before = self.totals.get(cause, 0)
            count = total - before if total >= before else total
            self.totals[cause] = total
            if count:
                execs = count if _counts_execs(cause) else None
                lost = Lost(cause, count, "events", self._since, now, execs)
                records.append(self._maker.loss(lost))
        self._since = now
        return records

    def settle(self) -> None:
        """Note that all records that were returned have been written."""
        self.told = dict(self.totals)


class Unwritten:
    """Records that could not be written, by cause, until a record can tell of them."""

    def __init__(self) -> None:
        self._lost: dict[str, Lost] = {}
        self._execs: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._lost)

    def add(self, record: Record, cause: str) -> None:
        """Note a record that is lost; a Loss stays the loss that it tells of."""
        lost = record.loss
        if lost is None:
            lost = Lost(cause, 1, "records", record.time, record.time, record.execs)
        key = f"{lost.unit} {lost.cause}"
        known = self._lost.get(key)
        self._lost[key] = _merged(known, lost) if known else lost
        self._execs[key] = self._execs.get(key, 0) + record.execs

    def take(self, maker: RecordMaker) -> list[Record]:
        """Return, once, the records that tell of it."""
        records = [maker.loss(lost, execs=self._execs[key]) for key, lost in self._lost.items()]
        self._lost, self._execs = {}, {}
        return records


def _merged(one: Lost, other: Lost) -> Lost:
    execs = None if one.execs is None or other.execs is None else one.execs + other.execs
    details = dict(one.details)
    if "loss.lastSeq" in other.details:
        details["loss.lastSeq"] = other.details["loss.lastSeq"]
    return replace(
        one,
        count=one.count + other.count,
        begin=min(one.begin, other.begin),
        end=max(one.end, other.end),
        execs=execs,
        details=details,
    )
