"""The reader of the kernel's ring buffer, on a file in memory that stands in for the kernel's map.

The file has the map's layout: a page with the position up to which is read, one with that up to
which is written, and the data. The kernel maps the data twice in a row, so that a record is in one
piece also where the ring begins anew. Here both copies are there, and who writes, writes both.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.bpf.libbpf import Ring

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30
ALL = 1 << 30


@dataclass
class Record:
    at: int
    data: bytes
    state: int = BUSY


class Kernel:
    """Writes as the kernel does: a record is there, and busy, before what it says."""

    def __init__(self, start: int = 0) -> None:
        self.file = os.memfd_create("ring")
        os.ftruncate(self.file, 2 * PAGE + 2 * SIZE)
        self._memory = mmap.mmap(self.file, 2 * PAGE + 2 * SIZE)
        self._written_to = start
        self._memory[:8] = self._memory[PAGE : PAGE + 8] = struct.pack("@L", start)

    def close(self) -> None:
        self._memory.close()
        os.close(self.file)

    @property
    def read_to(self) -> int:
        return int(struct.unpack_from("@L", self._memory)[0])

    @property
    def written_to(self) -> int:
        return self._written_to

    def reserve(self, data: bytes) -> Record | None:
        """Make room for a record, if there is."""
        record = Record(self._written_to, data)
        end = record.at + (len(data) + 8 + 7) // 8 * 8
        if end - self.read_to > SIZE - 1:
            return None
        self._head(record)
        self._written_to = end
        self._memory[PAGE : PAGE + 8] = struct.pack("@L", end)
        return record

    def finish(self, record: Record, *, discard: bool = False) -> None:
        self._write(record.at + 8, record.data)
        record.state = DISCARDED if discard else 0
        self._head(record)

    def send(self, *texts: bytes) -> None:
        for text in texts:
            record = self.reserve(text)
            assert record
            self.finish(record)

    def discard(self, text: bytes) -> None:
        record = self.reserve(text)
        assert record
        self.finish(record, discard=True)

    def _head(self, record: Record) -> None:
        # The second number is the kernel's own.
        self._write(record.at, struct.pack("@II", len(record.data) | record.state, 0xFFFFFFFF))

    def _write(self, position: int, text: bytes) -> None:
        at = position % SIZE
        for part, begin in ((text[: SIZE - at], at), (text[SIZE - at :], 0)):
            for copy in (0, SIZE):
                place = 2 * PAGE + copy + begin
                self._memory[place : place + len(part)] = part


@contextmanager
def opened(start: int = 0) -> Iterator[tuple[Kernel, Ring]]:
    kernel = Kernel(start)
    try:
        ring = Ring(kernel.file, SIZE)
        try:
            yield kernel, ring
        finally:
            ring.close()
    finally:
        kernel.close()


@pytest.fixture
def both() -> Iterator[tuple[Kernel, Ring]]:
    with opened() as pair:
        yield pair


Both = tuple[Kernel, Ring]


def seen(ring: Ring, most: int = ALL) -> list[bytes]:
    return [ring.data[begin:end] for begin, end in ring.peek(most)]


def taken(ring: Ring, most: int = ALL) -> list[bytes]:
    found = seen(ring, most)
    ring.release()
    return found


def test_where_nothing_waits_nothing_is_read(both: Both) -> None:
    kernel, ring = both
    assert (taken(ring), ring.waiting, kernel.read_to) == ([], 0, 0)


def test_records_of_any_size_are_read_in_their_order(both: Both) -> None:
    kernel, ring = both
    sent = [bytes([65 + size]) * size for size in range(26)]
    kernel.send(*sent)
    assert taken(ring) == sent
    assert taken(ring) == []


def test_no_more_are_read_than_asked_for(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a", b"b", b"c")
    assert [taken(ring, most) for most in (0, 2, 2, 2)] == [[], [b"a", b"b"], [b"c"], []]


def test_what_was_not_released_is_read_again(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a", b"b")
    assert seen(ring, 1) == [b"a"]
    kernel.send(b"c")
    assert seen(ring) == seen(ring) == [b"a", b"b", b"c"]


def test_a_record_that_is_being_written_is_waited_for(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"before")
    busy = kernel.reserve(b"busy")
    assert busy
    kernel.send(b"after")
    assert taken(ring) == [b"before"]
    assert taken(ring) == []
    assert kernel.read_to == busy.at
    kernel.finish(busy)
    assert taken(ring) == [b"busy", b"after"]


def test_a_discarded_record_is_left_out_and_its_room_given_back(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a")
    kernel.discard(b"never said")
    kernel.send(b"b")
    assert taken(ring, 2) == [b"a", b"b"]
    assert kernel.read_to == kernel.written_to
    kernel.discard(b"nor this")
    assert taken(ring) == []
    assert kernel.read_to == kernel.written_to


def test_a_record_that_reaches_over_the_end_is_in_one_piece(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"x" * (SIZE - 48))
    taken(ring)
    text = bytes(range(200))
    kernel.send(text, b"next")
    assert kernel.written_to > SIZE
    assert taken(ring) == [text, b"next"]


def test_a_record_whose_head_alone_is_before_the_end(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"x" * (SIZE - 16))
    taken(ring)
    kernel.send(b"text")
    assert kernel.written_to == SIZE + 8
    assert taken(ring) == [b"text"]


def test_room_is_given_back_by_release_and_not_before(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a" * 1000, b"b" * 1000)
    found = ring.peek(ALL)
    assert kernel.read_to == 0
    assert kernel.reserve(b"c" * 2100) is None
    assert [ring.data[begin:end] for begin, end in found] == [b"a" * 1000, b"b" * 1000]
    ring.release()
    assert kernel.read_to == kernel.written_to == 2 * 1008
    assert kernel.reserve(b"c" * 2100)


def test_what_was_not_read_is_not_given_back(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a", b"b")
    ring.peek(1)
    kernel.send(b"c")
    ring.release()
    assert kernel.read_to == 16
    assert taken(ring) == [b"b", b"c"]


def test_no_more_bytes_are_looked_at_than_wanted(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a" * 100, b"b" * 100, b"c")
    begun = ring.position

    # The second begins at byte 112.
    assert len(ring.peek(ALL, 112)) == 1
    assert len(ring.peek(ALL, 113)) == 2
    assert ring.position - begun == 2 * 112
    assert ring.peek(ALL, 0) == []
    assert len(ring.peek(ALL)) == 3


def test_who_has_read_nothing_gives_nothing_back() -> None:
    with opened(start=64) as (kernel, ring):
        ring.release()
        assert kernel.read_to == 64


def test_what_waits_is_counted_in_bytes_of_the_ring(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"", b"x", b"y" * 8, b"z" * 9)
    assert ring.waiting == 8 + 16 + 16 + 24
    taken(ring, 2)
    assert ring.waiting == 16 + 24
    kernel.reserve(b"busy")
    assert ring.waiting == 16 + 24 + 16
    taken(ring)
    assert ring.waiting == 16


def test_a_later_reader_goes_on_where_the_earlier_one_released(both: Both) -> None:
    kernel, ring = both
    kernel.send(b"a", b"b", b"c")
    taken(ring, 1)
    ring.peek(1)
    later = Ring(kernel.file, SIZE)
    try:
        assert later.waiting == 32
        assert taken(later) == [b"b", b"c"]
    finally:
        later.close()


LENGTHS = st.one_of(st.integers(0, 40), st.integers(0, SIZE), st.sampled_from([SIZE - 16, 1000]))
STEPS = st.one_of(
    st.tuples(st.just("reserve"), LENGTHS),
    st.tuples(st.just("commit"), st.integers(0, 5)),
    st.tuples(st.just("discard"), st.integers(0, 5)),
    st.tuples(st.just("peek"), st.integers(0, 6)),
    st.tuples(st.just("release"), st.just(0)),
)


@given(
    st.lists(STEPS, max_size=60),
    st.one_of(st.just(0), st.integers(0, 2**40).map(lambda number: number * 8)),
)
@example([(step, 1000) for step in ("reserve", "commit", "peek", "release")] * 12, 0)
@example([(step, 1001) for step in ("reserve", "commit", "peek", "release")] * 12, 2**32 - 8)
@example([("reserve", 8), ("reserve", 9), ("discard", 0), ("peek", 1), ("commit", 0)], SIZE - 8)
def test_all_that_is_written_is_read_once_and_in_order(
    steps: list[tuple[str, int]], start: int
) -> None:
    with opened(start) as (kernel, ring):
        there: list[Record] = []
        held: list[tuple[tuple[int, int], Record]] = []
        peeked = released = start
        for count, (step, number) in enumerate(steps):
            busy = [record for record in there if record.state == BUSY]
            if step == "reserve":
                record = kernel.reserve((b"%d:" % count * number)[:number])
                there += [record] if record else []
            elif step == "peek":
                found, expected, peeked = ring.peek(number), [], released
                for record, end in zip(there, ends(there, kernel.written_to), strict=True):
                    if record.state == BUSY or len(expected) == number:
                        break
                    expected += [record] if not record.state else []
                    peeked = end
                held += zip(found, expected, strict=True)
            elif step == "release":
                ring.release()
                released = peeked
                there = [record for record in there if record.at >= released]
                held = [one for one in held if one[1].at >= released]
            elif busy:
                kernel.finish(busy[number % len(busy)], discard=step == "discard")
            assert all(ring.data[begin:end] == record.data for (begin, end), record in held)
            assert kernel.read_to == released
            assert ring.waiting == kernel.written_to - released


def ends(records: list[Record], last: int) -> list[int]:
    return [record.at for record in records[1:]] + [last] * bool(records)
