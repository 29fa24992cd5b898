"""Numbers records, appends them to the log, and accounts for those that it can't write."""

from __future__ import annotations

import errno
from collections import Counter, deque
from collections.abc import Callable, Sequence
from pathlib import Path

from exectrail_agent.log import contents
from exectrail_agent.log.ledger import Ledger
from exectrail_agent.log.loss import Unwritten
from exectrail_agent.log.records import Lost, Record, RecordMaker
from exectrail_agent.log.rotation import LogFile

_BATCH = 128 * 1024
_BACKLOG = 8 * 1024 * 1024
_LEAST_BYTES = 4096
_LEAST_FILES = 2
_CAUSES = {
    errno.ENOSPC: "disk-full",
    errno.EDQUOT: "disk-full",
    errno.EFBIG: "disk-full",
    errno.EROFS: "read-only",
}


class RecordWriter:
    """Keeps the log at `path`: at most `max_files` of `max_bytes` each.

    What can't be written at once is kept, up to 8 MiB, and tried again with each call; beyond that
    records are lost, and a Loss says so as soon as there is room. There is one write(2) for each
    128 KiB. Numbers go on from the last line of the log, over restarts and boots.

    - `alive`: called after each write, for a disk may take long for all that waits.
    - `records`: how many were written, by kind; `lost`: how many were not, by cause.
    - `problem`: why the last write failed, in words; None if it did not.
    """

    def __init__(
        self,
        path: Path,
        maker: RecordMaker,
        *,
        max_bytes: int = 100_000_000,
        max_files: int = 10,
        ledger: Ledger | None = None,
    ) -> None:
        """Open the log. Raise LogError, also if another agent writes to it."""
        if max_bytes < _LEAST_BYTES or max_files < _LEAST_FILES:
            raise ValueError(f"a log needs {_LEAST_FILES} files of {_LEAST_BYTES} bytes at least")
        self._path = path
        self._maker = maker
        self._max_bytes = max_bytes
        self._ledger = ledger
        self._waiting: deque[Record] = deque()
        self._waiting_bytes = 0
        self._unwritten = Unwritten()
        self._overflowing = False
        self._cause = "write-error"
        self.alive: Callable[[], None] = lambda: None
        self.records: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.problem: str | None = None
        self._log = LogFile(path, max_bytes, max_files)
        self._tell_of_the_past()
        self.tick()

    @property
    def seq(self) -> int:
        """The number of the last record."""
        return self._log.seq

    @property
    def backlog(self) -> int:
        """How many records wait to be written."""
        return len(self._waiting)

    @property
    def owes(self) -> bool:
        """Whether there is anything that the log does not tell yet."""
        return bool(self._waiting or self._unwritten)

    def append(self, records: Sequence[Record]) -> None:
        """Write records, in this order. Never raises for what the disk does."""
        if self._overflowing:
            self.tick()
        size = sum([len(one.body) for one in records])
        if not self._overflowing and self._waiting_bytes + size <= _BACKLOG:
            self._waiting.extend(records)
            self._waiting_bytes += size
            records = ()
        for record in records:
            if self._overflowing:
                self._lose(record, self._cause)
                continue
            self._waiting.append(record)
            self._waiting_bytes += len(record.body)
            if self._waiting_bytes >= _BATCH:
                self._write_waiting()
            if self._waiting_bytes > _BACKLOG:
                last = self._waiting.pop()
                self._waiting_bytes -= len(last.body)
                self._lose(last, self._cause)
                self._overflowing = True
        self.tick()

    def tick(self) -> None:
        """Try again what could not be written."""
        self._write_waiting()
        while not self._waiting:
            self._overflowing = False
            if not self._unwritten:
                return
            for record in self._unwritten.take(self._maker):
                self._queue(record)
            self._write_waiting()

    def close(self) -> None:
        """Write what can be written and let go of the log."""
        self.tick()
        if self._ledger and self.owes:
            self._ledger.leave(self._cause)
        self._log.close()

    def _tell_of_the_past(self) -> None:
        """Tell of what an earlier agent left unfinished."""
        now = self._maker.clock.now()
        if self._log.torn:
            self._tell(Lost("torn-line", 1, "records", 0, now))
        if self._ledger is None:
            return
        begun = self._ledger.interrupted
        if begun:
            self._ledger.settle(sum(map(contents.settles, self._log.since(begun))))
        missing = self._ledger.open
        if missing:
            self._tell(Lost(self._ledger.cause, missing, "records", 0, now, missing), missing)

    def _tell(self, lost: Lost, execs: int = 0) -> None:
        self._queue(self._maker.loss(lost, execs=execs), first=True)
        self.lost[lost.cause] += lost.count

    def _queue(self, record: Record, *, first: bool = False) -> None:
        (self._waiting.appendleft if first else self._waiting.append)(record)
        self._waiting_bytes += len(record.body)

    def _lose(self, record: Record, cause: str) -> None:
        self._unwritten.add(record, cause)
        if not record.loss:
            self.lost[cause] += 1

    def _write_waiting(self) -> None:
        while self._waiting:
            try:
                for lost in self._log.check(self._maker.clock.now()):
                    self._tell(lost)
                lines = self._fit()
                if lines:
                    self._write(lines)
                    self.alive()
                self.problem = None
            except OSError as error:
                self._cause = _CAUSES.get(error.errno or 0, "write-error")
                self.problem = f"{self._path}: {error.strerror}"
                return

    def _fit(self) -> list[str]:
        """Return the lines of the next write; where there is no room for one, make some."""
        lines: list[str] = []
        size, room = 0, self._log.room
        for number, record in enumerate(self._waiting, self._log.seq + 1):
            one = f'{{"seq":{number},{record.body}\n'
            if not lines and len(one) > self._max_bytes:
                self._lose(record, "too-large")
                self._waiting.popleft()
                self._waiting_bytes -= len(record.body)
                return []
            size += len(one)
            if size > room:
                break
            lines.append(one)
            if size >= _BATCH:
                break
        if not lines:
            for lost in self._log.rotate(self._maker.clock.now()):
                self._tell(lost)
        return lines

    def _write(self, lines: list[str]) -> None:
        if self._ledger:
            self._ledger.begin(self._log.seq + 1)
        whole = 0
        try:
            whole = self._log.write(lines)
        finally:
            execs = self._written(whole)
            if self._ledger:
                self._ledger.settle(execs)

    def _written(self, whole: int) -> int:
        """Count the first `whole` of the waiting records as written; return how many execs."""
        written = [self._waiting.popleft() for _ in range(whole)]
        self._waiting_bytes -= sum([len(one.body) for one in written])
        self.records.update([one.kind for one in written])
        execs = sum([one.execs for one in written])
        told = sum([(one.loss.execs or 0) - one.execs for one in written if one.loss])
        extent = self._log.extent
        if whole:
            extent.first = extent.first or self._log.seq + 1
            self._log.seq += whole
            extent.last = self._log.seq
        extent.execs += execs + told
        return execs
