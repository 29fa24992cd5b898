"""What is in a record, whatever a program calls itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exectrail_agent.clock import Clock
from exectrail_agent.containers.model import Container, Pod
from exectrail_agent.log.escape import clean, to_text
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.records import members
from exectrail_agent.sessions.program import fields, terminal
from tests.unit.agent.world import (
    SECOND,
    WEB,
    check,
    end,
    enter,
    inside,
    leave,
    maker,
    play,
    run,
    tracker,
)

SHELL = inside(WEB, 900)


def program(*args: str | bytes, **more: Any) -> dict[str, Any]:
    executable = more.pop("executable", b"/bin/ls")
    return fields(run(0, inside(WEB, 901, executable), SHELL, *args, **more))


@given(st.binary(max_size=200))
def test_escaped_text_gives_the_bytes_back(raw: bytes) -> None:
    text, escaped = to_text(raw)

    back = text.encode()
    if escaped:
        back = re.sub(rb"\\(?:\\|x(..))", lambda one: bytes([int(one[1] or b"5c", 16)]), back)
    assert back == raw


@given(st.text(st.characters(exclude_categories=()), max_size=50))
def test_text_from_others_can_be_written(text: str) -> None:
    clean(text).encode()


VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        VALUES | st.lists(st.text()) | st.dictionaries(st.text(), VALUES),
    )
)
def test_fields_of_any_kind_are_json(some: dict[str, object]) -> None:
    assert json.loads(f"{{{members(some)}}}") == some


def test_only_what_is_no_utf_8_is_escaped() -> None:
    found = program(b"ls", b"a\\b", b"\xff\\", "caf\u00e9")

    assert found["process.args"] == ["ls", "a\\b", "\\xff\\\\", "caf\u00e9"]
    assert found["escaped"] == ["process.args[2]", "process.cmdline"]


@pytest.mark.parametrize(
    ("args", "cmdline"),
    [((b"",), ""), ((b"ls", b"", b""), "ls  "), ((b"a\nb", b"c"), "a\nb c")],
)
def test_arguments_stay_apart(args: tuple[bytes, ...], cmdline: str) -> None:
    found = program(*args)

    assert found["process.args"] == [arg.decode() for arg in args]
    assert found["process.cmdline"] == cmdline
    assert found["process.argsBytes"] == sum(len(arg) + 1 for arg in args)


def test_a_program_without_arguments_is_recorded() -> None:
    event = replace(run(0, inside(WEB, 901, b"/bin/ls"), SHELL), argv=b"", argv_size=0)

    found = fields(event)

    assert found["process.args"] == []
    assert found["process.name"] == "ls"


def test_long_arguments_show_where_they_are_cut() -> None:
    event = replace(
        run(0, inside(WEB, 901), SHELL),
        argv=b"sh\0-c\0headtail\0x\0",
        argv_size=5000,
        argv_cut=4983,
        argv_cut_at=10,
    )

    found = fields(event)

    assert found["process.args"] == ["sh", "-c", "head", "tail", "x"]
    assert found["process.argsTruncated"] is True
    assert (found["process.argsMissing"], found["process.argsCutIndex"]) == (4983, 3)


@pytest.mark.parametrize(
    ("args", "more", "name", "executable", "interpreter"),
    [
        (("ls",), {}, "ls", "/bin/ls", None),
        (("-bash",), {"executable": b"/bin/bash"}, "bash", "/bin/bash", None),
        (
            ("/bin/sh", "./up.sh", "x"),
            {"executable": b"/usr/bin/dash", "filename": b"./up.sh", "cwd": b"/srv"},
            "up.sh",
            "/srv/up.sh",
            "/usr/bin/dash",
        ),
        (
            ("/usr/bin/env", "python3", "/a/b.py"),
            {"executable": b"/usr/bin/env", "filename": b"/a/b.py"},
            "b.py",
            "/a/b.py",
            "/usr/bin/env",
        ),
        (
            ("ls", "/"),
            {"executable": b"/bin/busybox", "filename": b"/bin/ls"},
            "ls",
            "/bin/busybox",
            None,
        ),
        (
            ("cat", "/bin/cat"),
            {"executable": b"/bin/busybox", "filename": b"/bin/cat"},
            "cat",
            "/bin/busybox",
            None,
        ),
        (
            ("wget",),
            {"executable": b"/bin/busybox", "filename": b"/proc/self/exe"},
            "wget",
            "/bin/busybox",
            None,
        ),
        (
            ("x",),
            {"executable": b"/memfd:evil (deleted)", "filename": b"/dev/fd/3", "memfd": True},
            "memfd:evil",
            "/memfd:evil (deleted)",
            None,
        ),
    ],
)
def test_names(
    args: tuple[str, ...], more: dict[str, Any], name: str, executable: str, interpreter: str | None
) -> None:
    found = program(*args, **more)

    assert found["process.name"] == name
    assert found["process.executable"] == executable
    assert found.get("process.interpreter") == interpreter


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ((136, 3), "pts/3"),
        ((137, 1), "pts/257"),
        ((4, 1), "tty1"),
        ((4, 64), "ttyS0"),
        ((5, 1), "console"),
        ((204, 64), "204:64"),
    ],
)
def test_terminals(device: tuple[int, int], name: str) -> None:
    assert terminal(device) == name


anything = st.binary(max_size=40)
text = st.text(st.characters(exclude_categories=()), max_size=20)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    argv=st.binary(max_size=200),
    cut=st.integers(0, 300),
    paths=st.tuples(anything, anything, anything, anything),
    names=st.tuples(text, text, text, text),
    labels=st.dictionaries(text, text, max_size=3),
    pod=st.booleans(),
    tty=st.none() | st.tuples(st.integers(0, 4095), st.integers(0, 1 << 20)),
    status=st.integers(0, 0xFFFF),
)
def test_every_line_is_valid_whatever_the_container_says(  # noqa: PLR0913, PLR0917 - each is one kind of text
    argv: bytes,
    cut: int,
    paths: tuple[bytes, ...],
    names: tuple[str, ...],
    labels: dict[str, str],
    pod: bool,  # noqa: FBT001
    tty: tuple[int, int] | None,
    status: int,
) -> None:
    box = replace(
        WEB,
        name=names[0],
        image=names[1],
        pod=Pod(names[2], names[3], names[0], labels) if pod else None,
    )
    more: dict[str, Any] = {
        "argv": argv,
        "argv_size": len(argv) + cut,
        "filename": paths[0],
        "cwd": paths[1],
    }
    more |= {"tty": tty, "argv_cut": cut, "argv_cut_at": min(cut, len(argv))}
    more["environment"] = {b"KUBERNETES_EXEC_AUDIT_ID": paths[3]}
    first = replace(enter(box, 900, "sh", executable=paths[2]), **more)
    second = replace(run(1, inside(box, 901, paths[3]), SHELL), **more)

    outcome = play(tracker(box, probes="full"), first, second, leave(1, SHELL, status), end(1))

    assert len(check(outcome.records)) == 5


def test_identifiers_grow_and_never_repeat() -> None:
    times = iter([5, 5, 5, 4, 4, 6] * 500)
    ids = IdSource(milliseconds=lambda: next(times))

    made = [ids.make() for _ in range(3000)]

    assert made == sorted(set(made))
    assert {len(each) for each in made} == {26}


def test_identifiers_of_one_agent_differ_in_little_and_of_two_in_much() -> None:
    one, other = IdSource(milliseconds=lambda: 5), IdSource(milliseconds=lambda: 5)

    made = [one.make() for _ in range(3)]

    assert {each[:22] for each in made} == {made[0][:22]}
    assert made[0][10:22] != other.make()[10:22]


def test_identifiers_grow_beyond_a_million_and_a_chance_of_ones() -> None:
    ids = IdSource(milliseconds=lambda: 5, random=lambda size: b"\xff" * size)
    first = ids.make()
    ids._count = (1 << 20) - 2

    made = [first, *(ids.make() for _ in range(4))]

    assert made == sorted(set(made))


class Clocks:
    boot = 100 * SECOND
    wall = 1_795_132_800 * SECOND + 5


def test_both_clocks_are_told_and_a_jump_is_noticed() -> None:
    times = Clocks()
    clock = Clock(lambda: times.boot, lambda: times.wall)
    assert clock.text(times.boot) == "2026-11-20T00:00:00.000000005Z"
    assert clock.text(times.boot + 3 * SECOND) == "2026-11-20T00:00:03.000000005Z"
    times.boot += SECOND
    times.wall += SECOND + 1000
    assert clock.sample() is None

    times.wall -= 3600 * SECOND
    jump = clock.sample()

    assert jump is not None
    assert jump.nanoseconds == -3600 * SECOND
    assert clock.text(times.boot).startswith("2026-11-19T23:00:01")


def test_a_clock_jump_is_recorded() -> None:
    times = Clocks()
    clock = Clock(lambda: times.boot, lambda: times.wall)
    times.wall += 60 * SECOND
    jump = clock.sample()
    assert jump

    (record,) = check([maker().clock_jump(jump)])

    assert record["health.cause"] == "clock-jump"
    assert "+60.000 s" in record["health.detail"]


def test_health_records_take_more_fields() -> None:
    record = maker().health("degraded", "canary", "late", lag=1.5, sensor="b\udc00pf")

    assert check([record])[0]["health.lag"] == 1.5


LOG_SESSIONS = 100


def typical() -> list[str]:
    """The lines of many sessions such as ``sh -c 'id; ls -la /'``, a command a while apart."""
    watched = tracker(WEB)
    lines: list[str] = []
    for number in range(1, LOG_SESSIONS + 1):
        pid = 2000 + number * 7
        at = (1000 + number * 37) * SECOND + number * 104_729
        shell = inside(WEB, pid, b"/bin/dash")
        events: list[Any] = [
            enter(
                WEB,
                pid,
                "sh",
                "-c",
                "id; ls -la /",
                session=number,
                time=at,
                executable=b"/bin/dash",
            )
        ]
        for step, command in enumerate((("id",), ("ls", "-la", "/")), 1):
            task = inside(WEB, pid + step, f"/usr/bin/{command[0]}".encode())
            began = at + step * 2_104_729
            events.append(run(number, task, shell, *command, time=began, tty=(136, 0)))
            events.append(leave(number, task, time=began + 1_299_709))
        events += [leave(number, shell, time=at + 9_999_991), end(number, at + 9_999_992)]
        records = play(watched, *events).records
        lines += [one.line(len(lines) + at_ + 1) for at_, one in enumerate(records)]
    return lines


def test_records_are_small() -> None:
    lines = typical()
    commands = [each for each in lines if json.loads(each)["kind"] == "Command"]

    assert len(lines) == 8 * LOG_SESSIONS
    assert sum(map(len, commands)) / len(commands) <= 700
    assert sum(map(len, lines)) / len(lines) <= 700


@pytest.mark.skipif(not shutil.which("zstd"), reason="needs zstd")
def test_records_compress_well() -> None:
    lines = typical()

    packed = subprocess.run(
        ["zstd", "-3", "-c"], input="".join(lines).encode(), stdout=subprocess.PIPE, check=True
    )

    assert len(packed.stdout) / len(lines) <= 100


def test_a_container_without_pod_has_its_own_names() -> None:
    box: Container = replace(WEB, pod=None, name="db", runtime="podman")

    access, command = check(play(tracker(box), enter(box, 900, "sh")).records)

    assert access["container.image"] == "shop/web:1.4"
    assert access["container.runtime"] == "podman"
    assert command["container.name"] == "db"
    assert "kubeObject.operation.kind" not in access
