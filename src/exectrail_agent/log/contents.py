"""Which records a file of the log holds, as its lines say."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

_TAIL = 4 * 1024 * 1024
_CHUNK = 1024 * 1024
_SEQ = re.compile(rb'\{"seq":([0-9]{1,18}),')
_COMMAND = re.compile(rb'^\{"seq":[0-9]+,"kind":"Command",', re.MULTILINE)
_COUNT = re.compile(rb'"(?:throttle\.count|loss\.execs)":([0-9]+)')


@dataclass
class Extent:
    """The numbers of the records in a file, and how many execs they stand for; -1 if unknown."""

    first: int = 0
    last: int = 0
    execs: int = 0


def execs_in(lines: bytes) -> int:
    """Return how many execs whole lines account for.

    What a program's arguments hold can't look like a field, since a quote in them is escaped.
    """
    counts = sum(map(int, _COUNT.findall(lines)))
    return counts + sum(1 for _ in _COMMAND.finditer(lines))


def settles(line: bytes) -> int:
    """Return how many execs that were taken from the sensor a line of the log accounts for."""
    record = json.loads(line)
    if record["kind"] == "Loss":
        mine = record["loss.unit"] == "records" and "loss.firstSeq" not in record
        return int(record.get("loss.execs", 0)) if mine else 0
    return 1 if record["kind"] == "Command" else int(record.get("throttle.count", 0))


def seq_of(line: bytes) -> int:
    """Return the number of a line; 0 if it has none."""
    found = _SEQ.match(line)
    return int(found.group(1)) if found else 0


def repair(descriptor: int) -> bool:
    """Cut off what follows the last whole line, where a write was interrupted; say whether.

    A power cut may also leave zeros at the end.
    """
    end = os.fstat(descriptor).st_size
    begin = max(0, end - _TAIL)
    tail = os.pread(descriptor, end - begin, begin)
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        os.ftruncate(descriptor, begin + whole)
    return whole < len(tail)


def extent(descriptor: int) -> Extent:
    """Read a whole file."""
    found = Extent()
    rest, offset = b"", 0
    while True:
        chunk = os.pread(descriptor, _CHUNK, offset)
        if not chunk:
            return found
        offset += len(chunk)
        lines, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            found.first = found.first or seq_of(lines)
            found.last = seq_of(lines[lines.rfind(b"\n") + 1 :]) or found.last
            found.execs += execs_in(lines)


def since(descriptor: int, first: int) -> list[bytes]:
    """Return the lines at the file's end from number `first` on."""
    end = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL, max(0, end - _TAIL))
    return [line for line in tail.split(b"\n") if seq_of(line) >= first]


def ends(path: Path) -> Extent:
    """Return the first and last number in a file that is set aside, without reading it all."""
    try:
        descriptor = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return Extent(execs=-1)
    try:
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL, max(0, size - _TAIL)).rstrip(b"\n")
        first = seq_of(os.pread(descriptor, 64, 0))
        return Extent(first, seq_of(tail[tail.rfind(b"\n") + 1 :]), -1)
    finally:
        os.close(descriptor)
