from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.audit.execve import Sighting, complete, terminal
from exectrail_agent.audit.lineage import Process
from exectrail_agent.audit.parse import (
    CWD,
    END,
    EXECVE,
    PATH,
    SYSCALL,
    WHOLE_ARGV,
    Arguments,
    Assembler,
    Call,
    Serials,
    Stamp,
    number_of,
    pairs,
    stamp,
    text_of,
)
from exectrail_agent.audit.rules import calls
from exectrail_agent.events import ExecEvent, Task

CORPUS = Path(__file__).parents[2] / "fixtures" / "agent" / "audit" / "debian11-5.10.txt"
WORKING_FOLDER = "/tmp/wörk dir".encode()  # noqa: S108  as it was when the lines were recorded
Record = tuple[int, bytes]


def corpus() -> list[Record]:
    lines = CORPUS.read_bytes().split(b"\n")
    return [(int(kind), text) for kind, _, text in (line.partition(b" ") for line in lines) if kind]


def assembled(records: Iterable[Record]) -> list[Call]:
    every = Assembler(calls("x86_64").get, lambda *_: True)
    return [call for kind, line in records for call in every.add(kind, line, 0.0)]


def event(call: Call) -> ExecEvent:
    sighting = Sighting(
        time=1,
        process=Process(call.pid, 1, 2),
        session=3,
        entry=False,
        deadline=0.0,
        parent=Task(1, executable=b"/x"),
    )
    return complete(sighting, call)


def execs(records: Iterable[Record]) -> list[ExecEvent]:
    return [event(call) for call in assembled(records) if call.name.startswith("exec")]


def kernel_pieces(argv: list[bytes], room: int) -> list[bytes]:
    """Write EXECVE records as the kernel does: in hexadecimal or quoted, over several records."""
    records, line = [], b"argc=%d" % len(argv)
    for number, argument in enumerate(argv):
        plain = re.fullmatch(rb"[!#-~]*", argument) is not None
        text = b'"%s"' % argument if plain else argument.hex().upper().encode()
        if len(text) <= room:
            line += b" a%d=%s" % (number, text)
        else:
            line += b" a%d_len=%d" % (number, 2 * len(argument))
            for part, at in enumerate(range(0, len(argument), room // 2)):
                piece = argument[at : at + room // 2].hex().upper().encode()
                line += b" a%d[%d]=%s" % (number, part, piece)
                records.append(line)
                line = b""
        if len(line) > room:
            records.append(line)
            line = b""
    return [*records, line] if line else records


def test_real_lines_give_the_commands_that_were_run() -> None:
    found = execs(corpus())

    echo, long, script, unshare, true, memory, typescript, shell, last = found
    assert (
        echo.argv == b'/bin/echo\0plain\0two words\0\0new\nline\0\xff\xfe\\\0quo"te\0\x1dauid=x\0'
    )
    assert (echo.cwd, echo.filename) == (WORKING_FOLDER, b"/bin/echo")
    assert (echo.task.executable, echo.task.comm, echo.tty) == (b"/bin/echo", b"echo", None)
    assert (echo.uid, echo.login_uid, echo.audit_session) == (0, 0xFFFFFFFF, 0xFFFFFFFF)
    assert long.argv == b"/bin/true\0" + b"A" * 20000 + b"\0b\0"
    assert (script.filename, script.task.executable) == (b"./script", b"/bin/dash")
    assert script.argv == b"/bin/sh\0./script\0x\0"
    assert (unshare.argv, true.argv) == (b"/usr/bin/unshare\0-m\0/bin/true\0", b"/bin/true\0")
    assert (memory.memfd, memory.filename, memory.argv) == (True, b"/dev/fd/5", b"in-memory\0")
    assert typescript.argv == b"script\0-qc\0/bin/true a\0/dev/null\0"
    assert shell.tty is not None
    assert shell.tty[0] == 136
    assert last.argv == b"/bin/true\0a\0"
    assert all(not one.unknown for one in found)


@given(st.randoms(use_true_random=False))
def test_events_of_several_processors_may_be_mixed(shuffle: random.Random) -> None:
    by_event: dict[bytes, list[Record]] = {}
    for record in corpus():
        found = re.match(rb"audit\([^)]*\)", record[1])
        assert found
        by_event.setdefault(found[0], []).append(record)
    queues = list(by_event.values())
    order = [index for index, queue in enumerate(queues) for _ in queue]
    shuffle.shuffle(order)
    iterators = [iter(queue) for queue in queues]

    mixed = execs(next(iterators[index]) for index in order)

    assert sorted(one.argv for one in mixed) == sorted(one.argv for one in execs(corpus()))


@given(
    st.lists(st.binary(max_size=200).map(lambda text: text.replace(b"\0", b"x")), min_size=1),
    st.integers(min_value=8, max_value=300),
)
def test_arguments_come_back_byte_for_byte(argv: list[bytes], room: int) -> None:
    arguments = Arguments()
    for record in kernel_pieces(argv, room):
        arguments.add(record)

    kept, cut = arguments.finish()

    meant = b"".join(argument + b"\0" for argument in argv)
    assert (kept, cut, arguments.size, arguments.problem) == (meant, 0, len(meant), "")


@pytest.mark.parametrize("size", [WHOLE_ARGV - 1, WHOLE_ARGV, 2 << 20])
def test_of_long_arguments_head_and_tail_are_kept(size: int) -> None:
    argument = bytes(1 + index * 7919 % 255 for index in range(size))
    arguments = Arguments()
    records = kernel_pieces([argument], 7500)
    tracemalloc.start()
    for record in records:
        arguments.add(record)
    kept, cut = arguments.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 10 * WHOLE_ARGV
    whole = argument + b"\0"
    assert arguments.size == size + 1
    if size < WHOLE_ARGV:
        assert (kept, cut) == (whole, 0)
    else:
        assert kept == whole[: WHOLE_ARGV // 2] + whole[-WHOLE_ARGV // 2 :]
        assert len(kept) + cut == size + 1


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        ([b'argc=3 a0="a" a1="b"'], "2 of 3"),
        ([b'argc=3 a0="a" a2="c"'], "missing"),
        ([b'argc=2 a0="a" a1_len=8 a1[1]=41'], "missing"),
        ([b" a1[1]=41"], "first record"),
        ([b"argc=1 a0=414"], "cut"),
        ([], "record is missing"),
    ],
)
def test_lost_pieces_are_named(records: list[bytes], problem: str) -> None:
    arguments = Arguments()
    for record in records:
        arguments.add(record)
    arguments.finish()

    assert problem in arguments.problem


def test_no_arguments_at_all_are_no_problem() -> None:
    arguments = Arguments()
    arguments.add(b"argc=0")

    assert arguments.finish() == (b"", 0)
    assert not arguments.problem


def test_what_the_daemon_adds_is_left_out() -> None:
    assert pairs(b'uid=0 comm="x"\x1dUID="root" uid=1') == {b"uid": b"0", b"comm": b'"x"'}


def test_an_event_that_never_ends_is_given_up_and_says_what_is_missing() -> None:
    records = [one for one in corpus() if one[0] not in {END, CWD, PATH}]
    every = Assembler(calls("x86_64").get, lambda *_: True)
    for kind, line in records:
        assert not list(every.add(kind, line, 10.0))

    assert not list(every.expire(10.0))
    late = list(every.expire(10.1))
    assert len(late) > 8
    assert not any(call.complete for call in late)
    assert {*event(late[0]).unknown} == {"cwd", "filename"}
    assert not list(every.expire(99.0))


def test_what_is_not_wanted_costs_nothing_more() -> None:
    none = Assembler(calls("x86_64").get, lambda *_: False)

    assert not [call for kind, line in corpus() for call in none.add(kind, line, 0.0)]
    assert not list(none.expire(1.0))


def test_open_events_are_bounded() -> None:
    every = Assembler(calls("x86_64").get, lambda *_: True)
    line = next(line for kind, line in corpus() if kind == SYSCALL)
    given_up = 0
    for serial in range(10_000):
        given_up += len(list(every.add(SYSCALL, re.sub(rb":\d+\)", b":%d)" % serial, line), 0.0)))

    assert given_up == 10_000 - 4096


@given(st.lists(st.tuples(st.sampled_from([SYSCALL, EXECVE, CWD, PATH, END, 0]), st.binary())))
@example([(EXECVE, b"argc=99999999999 a0=41")])
@example([(EXECVE, b"argc=" + b"9" * 5000 + b' a0="x"')])
@example([(EXECVE, b"argc=1 a0_len=18446744073709551616 a0[0]=41 a0[99999999]=42")])
@example([(EXECVE, b"argc=2 a0=4 a1=zz a" + b"9" * 5000 + b"=41")])
@example([(EXECVE, b"argc=1 a0_len=-1 a0[-1]=41"), (EXECVE, b"a0[1]=")])
@example([(PATH, b"item=-1 name=(null)"), (PATH, b'item=0 name="unended')])
@example([(CWD, b"cwd=2F00"), (CWD, b"cwd="), (SYSCALL, b"arch=zz syscall=-1 success=yes")])
def test_bytes_of_any_kind_raise_nothing(records: list[Record]) -> None:
    prefix = b"audit(1795240121.614:8): "
    begin = next(line for kind, line in corpus() if kind == SYSCALL and b":8)" in line)
    mixed = [(SYSCALL, begin), *((kind, prefix + line) for kind, line in records), (END, prefix)]

    execs(mixed)
    execs(records)


@given(st.data())
def test_damaged_real_lines_raise_nothing(data: st.DataObject) -> None:
    damaged = []
    for kind, line in data.draw(st.lists(st.sampled_from(corpus()), max_size=30)):
        at = data.draw(st.integers(0, min(len(line), 300)))
        damaged.append((kind, line[:at] + data.draw(st.binary(max_size=4)) + line[at + 2 :]))

    execs(damaged)


@given(st.binary())
@example(b"audit(")
@example(b"audit(1364481363:24287): ")
@example(b"audit(1364481363.243:): ")
@example(b"audit(-1.5:1): ")
@example(b"9" * 5000)
@example(b"0x")
@example("\N{ARABIC-INDIC DIGIT ONE}".encode())
def test_a_stamp_or_none(line: bytes) -> None:
    assert stamp(line) is None
    text_of(line)
    number_of(line, 0)


def test_a_stamp_is_in_nanoseconds() -> None:
    assert stamp(b"audit(1364481363.243:24287): x\0") == (
        Stamp(1364481363_243_000_000, 24287),
        b"x",
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"pts0", (136, 0)),
        (b"pts300", (137, 44)),
        (b"ttyS0", (4, 64)),
        (b"tty1", (4, 1)),
        (b"console", (5, 1)),
        (b"(none)", None),
        (b"odd7", None),
    ],
)
def test_terminals(name: bytes, number: tuple[int, int] | None) -> None:
    assert terminal(name) == number


@given(st.lists(st.integers(0, 400), max_size=300).map(lambda drops: {*drops}))
def test_every_missing_serial_number_is_counted_once(dropped: set[int]) -> None:
    serials = Serials(slack=16)
    for serial in range(1000, 1401):
        if serial - 1000 not in dropped:
            serials.add(serial)
            serials.add(serial)
    for serial in range(1401, 1440):
        serials.add(serial)

    first = next(n for n in range(500) if n not in dropped)
    assert serials.missing == len([n for n in dropped if n > first])


def test_serial_numbers_out_of_order_are_not_missing() -> None:
    serials = Serials(slack=16)
    for serial in (5, 7, 6, 9, 8, *range(10, 99)):
        serials.add(serial)

    assert serials.missing == 0
