"""Kernel audit's records: each is a line of text, several make an event."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

SYSCALL, PATH, CWD, EXECVE, PROCTITLE, END = 1300, 1302, 1307, 1309, 1327, 1320
CONFIG_CHANGE, REPLACE = 1305, 1329

WHOLE_ARGV = 32 << 10
ARGV_END = WHOLE_ARGV // 2
_MOST_OPEN = 4096
_SERIALS = 1 << 32

_STAMP = re.compile(rb"audit\((\d{1,12})\.(\d{3}):(\d{1,10})\): ?")
_PAIR = re.compile(rb'(?:^| )([a-z0-9_-]{1,16})=("[^"]*"|[^ "\x1d]*)')
_ARGUMENT = re.compile(rb' a(\d{1,7})(?:\[(\d{1,7})\])?=(?:"([^"]*)"|([0-9A-F]*))(?= |$)')
_ARGUMENT_COUNT = re.compile(rb"argc=(\d{1,9})")
_PID = re.compile(rb" ppid=(\d{1,10}) pid=(\d{1,10}) ")
_DEVICE = re.compile(rb" dev=([0-9a-f]{2,3}):([0-9a-f]{2,5})(?: |$)")
_RUNTIME = re.compile(rb' comm="(?:runc|crun|youki|docker-runc)" ')


@dataclass(frozen=True)
class Stamp:
    """When an event's system call began, in nanoseconds of the wall clock, and its number."""

    time: int
    serial: int


@dataclass(frozen=True)
class Caller:
    """Who made a call: pids of the process and its parent; whether it is a container runtime."""

    pid: int
    parent: int = 0
    runtime: bool = False


def stamp(line: bytes) -> tuple[Stamp, bytes] | None:
    """Take a record's stamp off; None for what is no record."""
    found = _STAMP.match(line)
    if not found:
        return None
    seconds, milliseconds, serial = (int(one) for one in found.groups())
    when = (seconds * 1000 + milliseconds) * 1_000_000
    return Stamp(when, serial), line[found.end() :].rstrip(b"\0\n")


def pairs(text: bytes) -> dict[bytes, bytes]:
    """Read ``key=value`` pairs, the values as they stand. What auditd adds to them is left out."""
    return dict(_PAIR.findall(text.partition(b"\x1d")[0]))


def text_of(value: bytes) -> bytes | None:
    """Decode a value that somebody may have chosen: quoted, in hexadecimal, or absent."""
    if value[:1] == b'"':
        return value[1:-1] if value[-1:] == b'"' and len(value) > 1 else None
    if not value or value == b"(null)":
        return None
    try:
        return bytes.fromhex(value.decode("ascii"))
    except ValueError:
        return None


def number_of(value: bytes | None, default: int) -> int:
    """Read a decimal number as kernel audit writes it; negative ones stand for unset ids."""
    if value is None or not re.fullmatch(rb"-?\d{1,10}", value):
        return default
    return int(value) & 0xFFFFFFFF


@dataclass
class Arguments:
    """The argument vector of one exec, put together from its pieces within bounded memory."""

    size: int = 0
    problem: str = ""
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)
    _count: int = -1
    _done: int = 0
    _part: int = -1

    @classmethod
    def of(cls, argv: bytes, problem: str) -> Arguments:
        """Make them from arguments that each are ended by a NUL; PROBLEM says why so."""
        values = argv[:-1].split(b"\0")
        found = cls(problem=problem, _count=len(values))
        for number, value in enumerate(values):
            found._piece(number, -1, value, b"")
        return found

    def add(self, text: bytes) -> None:
        """Take in the next of the EXECVE records."""
        count = _ARGUMENT_COUNT.match(text)
        if count:
            self._count = int(count[1])
            text = text[count.end() :]
        elif self._count < 0:
            self.problem = "the first record is missing"
            return
        for number, part, quoted, encoded in _ARGUMENT.findall(text.partition(b"\x1d")[0]):
            self._piece(int(number), int(part) if part else -1, quoted, encoded)

    def _piece(self, number: int, part: int, quoted: bytes, encoded: bytes) -> None:
        goes_on = part > 0 and number == self._done - 1 and part == self._part + 1
        if not goes_on and (number != self._done or part > 0):
            self.problem = "records are missing"
            return
        if len(encoded) % 2:
            self.problem = "a piece is cut"
            encoded = encoded[:-1]
        if not goes_on:
            self._end_argument()
            self._done += 1
        self._part = part
        self._append(quoted or bytes.fromhex(encoded.decode("ascii")))

    def _end_argument(self) -> None:
        if self._done:
            self._append(b"\0")

    def _append(self, piece: bytes) -> None:
        self.size += len(piece)
        room = WHOLE_ARGV - len(self._head)
        self._head += piece[:room]
        self._tail += piece[room:]
        if len(self._tail) > WHOLE_ARGV:
            del self._tail[:-ARGV_END]

    def lacking(self) -> str:
        """Say what is missing, once all records that there are were taken in."""
        if self._count < 0:
            self.problem = self.problem or "the record is missing"
        elif self._done != self._count:
            self.problem = self.problem or f"{self._done} of {self._count} arguments were told"
        return self.problem

    def finish(self) -> tuple[bytes, int]:
        """Return what is kept and how many bytes are cut out at ARGV_END; to be called once."""
        self.lacking()
        self._end_argument()
        if self.size <= WHOLE_ARGV:
            return bytes(self._head), 0
        ends = bytes(self._head[ARGV_END:] + self._tail)[-ARGV_END:]
        return bytes(self._head[:ARGV_END]) + ends, self.size - 2 * ARGV_END


@dataclass
class Call:
    """An event: a system call with what its records tell.

    `fields` are those of the SYSCALL record; `cwd` and `filename` are None if they did not come.
    `device` is that of the file system with the program's file, as stat has it, 0 if unknown.
    `complete` is False of an event whose end never came; `opened` is when its first record did.
    """

    stamp: Stamp
    opened: float
    name: str
    pid: int
    fields: dict[bytes, bytes]
    arguments: Arguments = field(default_factory=Arguments)
    cwd: bytes | None = None
    filename: bytes | None = None
    device: int = 0
    complete: bool = False

    def add(self, kind: int, text: bytes) -> None:
        """Take in another of its records."""
        if kind == EXECVE:
            self.arguments.add(text)
        elif kind == CWD:
            self.cwd = text_of(pairs(text).get(b"cwd", b""))
        elif kind == PATH and self.filename is None and text.startswith(b"item=0 "):
            self.filename = text_of(pairs(text).get(b"name", b""))
            found = _DEVICE.search(text)
            if found:
                self.device = os.makedev(int(found[1], 16), int(found[2], 16))


class Serials:
    """Finds numbers of events that never came. Events may come a little out of order.

    The numbers have 32 bits. `missing` counts those that at least `slack` others, or a time, have
    passed.
    """

    def __init__(self, slack: int = 512) -> None:
        self.missing = 0
        self._slack = slack
        self._next: int | None = None
        self._absent: OrderedDict[int, float] = OrderedDict()

    def add(self, serial: int, now: float = 0.0) -> None:
        """Note an event's number, as often as it comes."""
        skipped = 0 if self._next is None else (serial - self._next) % _SERIALS
        if skipped >= _SERIALS // 2:
            self._absent.pop(serial, None)
            return
        passed = max(0, skipped - self._slack)
        self.missing += passed
        for ago in range(skipped - passed, 0, -1):
            self._absent[(serial - ago) % _SERIALS] = now
        self._next = (serial + 1) % _SERIALS
        while self._absent and (serial - next(iter(self._absent))) % _SERIALS > self._slack:
            self._absent.popitem(last=False)
            self.missing += 1

    def expire(self, before: float) -> None:
        """Give up the numbers that others have passed before a time."""
        while self._absent and next(iter(self._absent.values())) < before:
            self._absent.popitem(last=False)
            self.missing += 1


class Assembler:
    """Puts records together that come mixed with those of other events.

    - `call_of`: names the call that (architecture, number) is, None if it is of no interest.
    - `wants`: says of a call's name, caller and stamp whether the rest of the event is needed. It
      is asked once for each call, in the order of their first records.

    It keeps a bounded number of events that have not ended, the youngest ones. `latest` is the
    latest stamp's time.
    """

    def __init__(
        self,
        call_of: Callable[[tuple[int, int]], str | None],
        wants: Callable[[str, Caller, Stamp], bool],
    ) -> None:
        self._call_of = call_of
        self._wants = wants
        self.serials = Serials()
        self.latest = 0
        self._open: OrderedDict[int, Call] = OrderedDict()

    def add(self, kind: int, line: bytes, now: float) -> Iterator[Call]:
        """Take in a record; gives the event that it ends, or that there is no more room for."""
        taken = stamp(line)
        if taken is None:
            return
        when, text = taken
        self.serials.add(when.serial, now)
        self.latest = max(self.latest, when.time)
        if kind == SYSCALL:
            call = self._begin(when, text, now)
            if call:
                self._open[when.serial] = call
                if len(self._open) > _MOST_OPEN:
                    yield self._open.popitem(last=False)[1]
            return
        call = self._open.get(when.serial)
        if call is None:
            return
        if kind == END:
            call.complete = True
            yield self._open.pop(when.serial)
        else:
            call.add(kind, text)

    def overdue(self, before: float) -> bool:
        """Whether the first record of some event that has not ended came before a time."""
        return bool(self._open) and next(iter(self._open.values())).opened < before

    def expire(self, before: float) -> Iterator[Call]:
        """Give up the events whose first record came before a time."""
        while self.overdue(before):
            yield self._open.popitem(last=False)[1]

    def _begin(self, when: Stamp, text: bytes, now: float) -> Call | None:
        # Most calls on a node are not wanted: say so before the record is read.
        found = _PID.search(text)
        head = text[:48].split(b" ", 2)
        # The rules of others record attempts too, and a search along PATH is full of them.
        if not found or len(head) < 3 or b" success=no " in text[: found.start()]:  # noqa: PLR2004
            return None
        try:
            name = self._call_of((int(head[0][5:], 16), int(head[1][8:])))
        except ValueError:
            return None
        if name is None:
            return None
        pid = int(found[2])
        if not self._wants(name, Caller(pid, int(found[1]), bool(_RUNTIME.search(text))), when):
            return None
        return Call(when, now, name, pid, pairs(text))
