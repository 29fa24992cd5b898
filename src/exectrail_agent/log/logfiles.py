"""The files of the log: the one that grows and the ones that were set aside."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

_TAIL = 4 * 1024 * 1024
_CHUNK = 1024 * 1024
_SEQ = re.compile(rb'\{"seq":([0-9]{1,18}),')
_COMMAND = re.compile(rb'^\{"seq":[0-9]+,"kind":"Command",', re.MULTILINE)
_COUNT = re.compile(rb'"(?:throttle\.count|loss\.execs)":([0-9]+)')


class LogError(Exception):
    """The log can't be kept here; the text says why and what would help."""


@dataclass
class Extent:
    """The numbers of the records in a file, and how many execs they stand for; -1 if unknown."""

    first: int = 0
    last: int = 0
    execs: int = 0


def prepare(folder: Path) -> None:
    """Make the folder of the log, for its owner alone. Raise LogError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise LogError(f"{folder} must be a folder that belongs to the agent's user")
        if stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004 - a mode
            folder.chmod(0o700)
    except OSError as error:
        raise LogError(f"{folder} can't be used: {error.strerror}") from error


def execs_in(lines: bytes) -> int:
    """Return how many execs whole lines account for.

    What a program's arguments hold can't look like a field, since a quote in them is escaped.
    """
    counts = sum(map(int, _COUNT.findall(lines)))
    return counts + sum(1 for _ in _COMMAND.finditer(lines))


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


def shipped(path: Path) -> int:
    """Return the number of the last record that a shipper says it has sent; 0 if it says nothing.

    The shipper replaces the file ``LOG.shipped`` by one that holds the number in decimal.
    """
    try:
        text = path.with_name(f"{path.name}.shipped").read_bytes()[:32].strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def older(path: Path, number: int) -> Path:
    """Return the name of the file that was set aside as the `number`th last."""
    return path.with_name(f"{path.name}.{number}")
