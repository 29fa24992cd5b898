"""Whatever part of the stream is lost: each exec is told or counted, or known to be unknown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.audit.connector import Exec, Fork
from exectrail_agent.audit.parse import CWD, END, EXECVE, PATH, SYSCALL, Assembler, Serials
from exectrail_agent.audit.rules import calls
from exectrail_agent.audit.trace import PATIENCE_SECONDS, Trace
from exectrail_agent.events import Event, ExecEvent, Task
from tests.unit.agent.test_audit_trace import INSIDE, Node

STEP = 10_000_000
_SYSCALL = (
    b"arch=c000003e syscall=59 success=yes exit=0 a0=1 a1=2 a2=3 a3=4 items=1 ppid=%d pid=%d "
    b"auid=0 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=1 "
    b'comm="x" exe="/x"'
)
KINDS = (SYSCALL, EXECVE, EXECVE, CWD, PATH, END)


def messages(serial: int, pid: int, parent: int) -> Iterator[tuple[int, bytes]]:
    texts = (
        _SYSCALL % (parent, pid),
        b'argc=2 a0="s%d"' % serial,
        b' a1="second"',
        b'cwd="/"',
        b'item=0 name="/x" inode=1 dev=00:2a mode=0100755',
        b"",
    )
    milliseconds = serial * STEP // 1_000_000
    stamp = b"audit(%d.%03d:%d): " % (*divmod(milliseconds, 1000), serial)
    for kind, text in zip(KINDS, texts, strict=True):
        yield kind, stamp + text


@dataclass
class Ran:
    """An exec: who, whether it then ends, and what is lost of it."""

    pid: int
    ends: bool
    connector: bool
    fork: bool
    lost: frozenset[int]


ran = st.builds(
    Ran,
    pid=st.integers(11, 14),
    ends=st.booleans(),
    connector=st.booleans(),
    fork=st.booleans(),
    lost=st.frozensets(st.integers(0, 5)) | st.just(frozenset(range(6))),
)


@dataclass
class Stream:
    """A session of pid 10, and what is heard of it."""

    node: Node = field(default_factory=Node)
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.trace = Trace(self.node, lambda: 7, lambda: "exec-gap")
        self.audit = Assembler(
            calls("x86_64").get,
            lambda name, caller, when: self.trace.wants(
                name, caller, when.serial, when.time, self.now
            ),
        )
        self.node.parents[10], self.node.places[10] = 1, INSIDE
        assert self.trace.adopt([[Task(10)]]) == [7]

    def happen(self, serial: int, one: Ran) -> None:
        time = serial * STEP
        if one.pid not in self.node.parents:
            self.node.parents[one.pid], self.node.places[one.pid] = 10, INSIDE
            if one.fork:
                self.trace.proc(Fork(time - 1, 10, one.pid), self.now)
        if one.connector:
            self.trace.proc(Exec(time + 1_000_000, one.pid), self.now)
        sent = enumerate(messages(serial, one.pid, 10))
        self.heard += [message for at, message in sent if at not in one.lost]
        if one.ends:
            del self.node.parents[one.pid], self.node.places[one.pid]

    def listen(self, *, late: bool = False) -> list[Event]:
        for kind, line in self.heard:
            for call in self.audit.add(kind, line, self.now):
                self.trace.call(call)
        self.heard.clear()
        if late:
            self.now += PATIENCE_SECONDS + 1
            for call in self.audit.expire(self.now):
                self.trace.call(call)
        return self.trace.take(self.now)


@given(st.lists(ran, max_size=12), st.data())
def test_what_is_lost_of_the_stream_is_told_or_counted(
    runs: list[Ran], data: st.DataObject
) -> None:
    stream, told = Stream(), list[Event]()
    for at, one in enumerate(runs):
        stream.happen(at + 1, one)
        if data.draw(st.booleans(), label="read"):
            told += stream.listen()
    told += stream.listen(late=True) + stream.listen(late=True)

    recorded = [one for one in told if isinstance(one, ExecEvent)]
    lost = sum(count for cause, count in stream.trace.lost.items() if cause != "exit-status")
    unknown = len(runs) - len(recorded) - lost
    # Only if both have gaps, each of which is counted, can an exec be missing.
    assert 0 <= unknown <= sum(not one.connector for one in runs)
    assert not unknown or any(0 in one.lost for one in runs)
    for one in recorded:
        whole = one.argv.count(b"\0") == 2 and one.argv.endswith(b"second\0")
        assert whole or "argv" in one.unknown
    heard = [at for at, one in enumerate(runs) if len(one.lost) < len(KINDS)]
    gaps = heard[-1] - heard[0] + 1 - len(heard) if heard else 0
    stream.audit.serials.expire(stream.now)
    assert stream.audit.serials.missing == gaps


@given(st.permutations(range(24)))
def test_records_of_several_execs_in_any_order_lose_no_exec(order: list[int]) -> None:
    stream = Stream()
    for serial in range(1, 5):
        lost = frozenset[int]()
        stream.happen(serial, Ran(10 + serial, ends=False, connector=True, fork=True, lost=lost))
    stream.heard = [stream.heard[at] for at in order]

    told = stream.listen() + stream.listen(late=True)

    assert sum(isinstance(one, ExecEvent) for one in told) == 4
    assert not stream.trace.lost
    assert not stream.audit.serials.missing


def test_attempts_along_a_path_are_no_execs() -> None:
    """Rules of others record them: each begins before the exec that at last succeeds."""
    stream = Stream()
    stream.happen(3, Ran(11, ends=True, connector=True, fork=True, lost=frozenset()))
    for serial in (2, 1):
        (_, text), *_, end = messages(serial, 11, 10)
        failed = text.replace(b"success=yes exit=0", b"success=no exit=-2")
        stream.heard[:0] = [(SYSCALL, failed), end]

    told = stream.listen() + stream.listen(late=True)

    (only,) = [one for one in told if isinstance(one, ExecEvent)]
    assert only.argv == b"s3\0second\0"
    assert not stream.trace.lost


def test_numbers_that_begin_anew_or_leap_are_followed() -> None:
    serials = Serials()
    for serial in (2**32 - 2, 2**32 - 1, 1, 0, 3):
        serials.add(serial)
    serials.expire(1.0)
    assert serials.missing == 1
    serials.add(4_000_004)
    serials.expire(1.0)
    assert serials.missing == 4_000_001


def test_nothing_is_given_up_while_audit_is_behind() -> None:
    stream = Stream()
    stream.happen(1, Ran(11, ends=True, connector=True, fork=True, lost=frozenset()))
    waiting, stream.heard = stream.heard, []
    stream.now += PATIENCE_SECONDS + 1

    assert stream.trace.take(stream.now, heard=0) == []
    stream.heard = waiting
    (only,) = stream.listen()
    assert isinstance(only, ExecEvent)
    assert only.argv == b"s1\0second\0"


def test_records_that_come_after_all_are_not_told_of_twice() -> None:
    stream = Stream()
    stream.happen(1, Ran(11, ends=True, connector=True, fork=True, lost=frozenset()))
    waiting, stream.heard = stream.heard, []
    assert stream.listen(late=True) == []
    stream.heard = waiting

    assert stream.listen(late=True) == []
    assert stream.trace.lost == {"exec-gap": 1}
