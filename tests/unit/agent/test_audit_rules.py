from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent import netlink
from exectrail_agent.audit import connector as proc_connector
from exectrail_agent.audit.connector import Exec, Exit, Fork, decode
from exectrail_agent.audit.control import FoundSettings, Status, settings, status_of
from exectrail_agent.audit.parse import Arguments, number_of, text_of
from exectrail_agent.audit.rules import (
    ALWAYS,
    EXIT_FILTER,
    NEVER,
    TASK_FILTER,
    Rule,
    may_hide,
    missing,
    pack,
    records_execs,
    switches_off,
    unpack,
    wanted,
)
from exectrail_agent.events import SensorError
from exectrail_agent.netlink import NetlinkSocket
from exectrail_agent.proc import ProcReader

NATIVE, OTHER = wanted("x86_64")
ARCHITECTURE, SUCCESS, KEY = NATIVE.fields
SOMEBODYS_KEY = (210, 0x40000000, b"their-key")


def somebodys(*fields: tuple[int, int, int | bytes], calls: frozenset[int] = NATIVE.mask) -> Rule:
    return Rule(EXIT_FILTER, ALWAYS, calls, fields)


rules = st.builds(
    Rule,
    st.integers(0, 7),
    st.sampled_from([NEVER, ALWAYS]),
    st.frozensets(st.integers(0, 2047)),
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([1, 11, 104]), st.just(1 << 30), st.integers(0, 2**32 - 1)),
            st.tuples(st.sampled_from([105, 112, 210]), st.just(1 << 30), st.binary(max_size=99)),
        ),
        max_size=64,
    ).map(tuple),
)


@given(rules)
def test_a_rule_survives_the_kernels_format(rule: Rule) -> None:
    assert unpack(pack(rule)) == rule


@given(st.binary(max_size=2000), st.integers(0, 100))
def test_whatever_is_listed_raises_nothing(noise: bytes, count: int) -> None:
    unpack(noise)
    unpack(struct.pack("=III", 4, 2, count) + noise.ljust(1040, b"\xff"))
    status_of(noise)
    netlink.frame(noise)
    netlink.error_of(noise)
    decode(noise)
    decode(bytes(36) + noise)


def test_what_somebody_elses_rules_record_is_not_asked_for_again() -> None:
    assert missing([NATIVE], []) == [NATIVE]
    assert missing([NATIVE], [somebodys(ARCHITECTURE, SOMEBODYS_KEY)]) == []
    assert missing([NATIVE], [somebodys(ARCHITECTURE, SUCCESS)]) == []
    (rest,) = missing([NATIVE], [somebodys(ARCHITECTURE, calls=frozenset({59, 322}))])
    assert rest.mask == {308, 272}
    assert not records_execs(rest)
    assert records_execs(NATIVE)


@pytest.mark.parametrize(
    "rule",
    [
        somebodys(ARCHITECTURE, (1, 1 << 30, 0)),
        somebodys(OTHER.fields[0]),
        Rule(EXIT_FILTER, NEVER, NATIVE.mask, (ARCHITECTURE,)),
        Rule(TASK_FILTER, ALWAYS, NATIVE.mask, (ARCHITECTURE,)),
    ],
)
def test_a_rule_with_a_condition_does_not_count(rule: Rule) -> None:
    assert missing([NATIVE], [rule]) == [NATIVE]


def test_only_rules_of_exactly_this_kind_are_ours() -> None:
    assert NATIVE.ours
    assert not somebodys(ARCHITECTURE, KEY).ours
    assert not somebodys(ARCHITECTURE, SUCCESS, SOMEBODYS_KEY).ours
    assert not Rule(EXIT_FILTER, NEVER, NATIVE.mask, NATIVE.fields).ours


def test_rules_that_hide_execs_are_seen() -> None:
    assert switches_off(Rule(TASK_FILTER, NEVER, frozenset(), ()))
    assert not switches_off(Rule(TASK_FILTER, NEVER, frozenset(), ((1, 1 << 30, 5),)))
    assert may_hide(Rule(EXIT_FILTER, NEVER, frozenset({59}), ()), [NATIVE])
    assert not may_hide(Rule(EXIT_FILTER, NEVER, frozenset({1}), ()), [NATIVE])


@pytest.mark.parametrize(
    ("fields", "hides"),
    [
        (((12, 0x40000000, 1309),), True),
        (((12, 0x40000000, 1300), (109, 0x40000000, 0)), True),
        (((12, 0x30000000, 1307),), True),
        (((9, 0x40000000, 5),), True),
        (((12, 0x40000000, 1307),), False),
    ],
)
def test_rules_that_leave_out_records_of_execs_are_seen(
    fields: tuple[tuple[int, int, int], ...],
    hides: bool,  # noqa: FBT001
) -> None:
    assert may_hide(Rule(5, ALWAYS, frozenset(), fields), wanted("x86_64")) is hides


def test_what_did_not_fit_into_a_socket_is_counted_to_the_last() -> None:
    users = 2  # NETLINK_USERSOCK
    listener = NetlinkSocket(users, group=1, receive_bytes=4096)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, users) as sender:
            for _ in range(100):
                # Refused is only the copy for the kernel itself.
                with contextlib.suppress(ConnectionRefusedError):
                    sender.sendto(b"x" * 1000, (0, 1))
        read = list(listener.datagrams(1000))
        assert 0 < len(read) < 100
        assert listener.dropped == 100 - len(read)
    finally:
        listener.close()


def test_what_a_process_runs_is_read_as_audit_would_tell_it() -> None:
    found = ProcReader().program(os.getpid())

    assert found
    told, argv = found
    assert text_of(told[b"exe"]) == os.fsencode(Path("/proc/self/exe").readlink())
    assert number_of(told[b"uid"], -1) == os.getuid()
    assert {b"comm", b"gid", b"auid", b"ses"} < {*told}
    assert argv == Path("/proc/self/cmdline").read_bytes()
    assert Arguments.of(argv, "why").finish() == (argv, 0)
    assert ProcReader().program(2**30) is None


def test_rules_are_told_as_auditctl_takes_them() -> None:
    assert NATIVE.text == (
        "-a always,exit -F arch=b64 -S execve,execveat,setns,unshare -F success=1 -k exectrail"
    )
    assert wanted("s390x") == []


@given(st.lists(st.integers(0, 2**32 - 1), min_size=9, max_size=9))
def test_settings_are_what_status_tells(numbers: list[int]) -> None:
    status = Status(0, *numbers)

    assert status_of(settings(0, status)) == status
    assert status_of(settings(0, status) + b"more of a newer kernel") == status


def test_settings_are_kept_over_a_crash(tmp_path: Path) -> None:
    kept = FoundSettings(str(tmp_path / "run" / "found.json"))
    assert kept.load() is None
    kept.save(Status(backlog_limit=64))
    assert kept.load() == Status(backlog_limit=64)
    kept.forget()
    kept.forget()
    assert kept.load() is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"mask": -1}', "null", "\ud800"])
def test_a_broken_file_of_settings_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "found.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))

    assert FoundSettings(str(path)).load() is None


def test_settings_that_cannot_be_kept_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SensorError, match="can't write"):
        FoundSettings(str(tmp_path / "file" / "found.json")).save(Status())


def connector(what: int, *words: int) -> bytes:
    return bytes(36) + struct.pack("=IIQ4I", what, 0, 1000, *words)


def test_events_of_processes_are_read_and_those_of_threads_are_not() -> None:
    assert decode(connector(1, 7, 6, 9, 9), 5) == Fork(1005, 6, 9)
    assert decode(connector(1, 7, 6, 10, 9)) is None
    assert decode(connector(2, 9, 9, 0, 0)) == Exec(1000, 9)
    assert decode(connector(1 << 31, 9, 9, 256, 17)) == Exit(1000, 9, 256)
    assert decode(connector(1 << 31, 10, 9, 0, 17)) is None
    assert decode(connector(4, 9, 9, 0, 0)) is None


def test_the_kernels_filter_passes_what_is_read() -> None:
    """The filter runs in this machine's kernel, on a pair of sockets that anybody may make."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with here, there:
        netlink.attach_filter(here, proc_connector.program())
        kept = [
            connector(1, 7, 6, 9, 9),
            connector(2, 9, 9, 0, 0),
            connector(1 << 31, 9, 9, 256, 17),
        ]
        others = [
            connector(1, 7, 6, 10, 9),
            connector(1 << 31, 10, 9, 0, 17),
            connector(4, 9, 9, 0, 0),
            connector(0, 0, 0, 0, 0),
        ]
        for datagram in [*others, *kept, *others]:
            there.send(datagram)

        assert [here.recv(999) for _ in kept] == kept
        with pytest.raises(BlockingIOError):
            here.recv(999)


def test_one_process_at_a_time_may_use_kernel_audit(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "found.json")
    first, second = FoundSettings(path), FoundSettings(path)
    first.take()
    with pytest.raises(SensorError, match="another agent uses kernel audit"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SensorError, match="can't lock"):
        FoundSettings(str(tmp_path / "file" / "found.json")).take()
