"""The decoder of the ring's records: what is told, and that no bytes break it."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.bpf import layout
from exectrail_agent.bpf.surroundings import choose_hierarchy, is_bpffs, parse_mounts
from exectrail_agent.events import EndEvent, ExecEvent, ExitEvent

HEAD = struct.Struct("=IIQQQII")
ENTRY, TTY, UNLINKED, BARE = 1, 2, 4, 8
PARTS = (
    *("cgroup", "parent_cgroup", "executable", "cwd"),
    *("parent_executable", "filename", "environment", "argv"),
)


def record(
    *,
    flags: int = 0,
    session: int = 9,
    problems: int = 0,
    argv_size: int | None = None,
    tty: tuple[int, int] = (0, 0),
    **parts: bytes,
) -> bytes:
    data = [parts.get(name, b"") for name in PARTS]
    return b"".join(
        [
            HEAD.pack(1, flags, 77, session, 5, 10, 110),
            struct.pack("=QQ", 4, 4711),
            struct.pack("=QIIII16s", 5, 10, 110, 21, 22, b"sh\0junk"),
            struct.pack("=QIIII16s", 3, 8, 108, 31, 32, b"runc"),
            struct.pack("=8I", 1, 2, 3, 4, *tty, argv_size or len(data[-1]), problems),
            struct.pack("=8I", *map(len, data)),
            *data,
        ]
    )


def event(raw: bytes, **known: Any) -> ExecEvent:
    decoded = layout.decode(raw, known.get("cgroups", {}))
    assert isinstance(decoded, ExecEvent)
    return decoded


def test_an_entry() -> None:
    told = event(
        record(
            flags=ENTRY | TTY,
            tty=(136, 3),
            cgroup=b"abc.scope\0pod.slice\0",
            parent_cgroup=b"",
            executable=b"dash\0bin\0usr\0",
            cwd=b"",
            parent_executable=b"runc\0",
            filename=b"/bin/sh\0",
            environment=b"the-id\0\0",
            argv=b"sh\0-c\0\0",
        )
    )
    assert (told.time, told.session, told.entry, told.outer) == (77, 9, True, 4)
    assert told.task.cgroup == b"/pod.slice/abc.scope"
    assert (told.task.pid, told.task.start, told.task.host_pid) == (10, 5, 110)
    assert (told.task.mount_namespace, told.task.pid_namespace) == (21, 22)
    assert (told.task.comm, told.task.executable) == (b"sh", b"/usr/bin/dash")
    assert (told.parent.cgroup, told.parent.executable) == (b"/", b"/runc")
    assert (told.cwd, told.filename, told.argv) == (b"/", b"/bin/sh", b"sh\0-c\0\0")
    assert (told.uid, told.gid, told.login_uid, told.audit_session) == (1, 2, 3, 4)
    assert (told.tty, told.memfd, told.unknown) == ((136, 3), False, {})
    assert told.environment == {b"KUBERNETES_EXEC_AUDIT_ID": b"the-id"}


def test_a_later_program_has_the_cgroup_that_its_id_is_known_by() -> None:
    told = event(record(argv=b"ls\0"), cgroups={4711: b"/pod"})
    assert (told.task.cgroup, told.parent.cgroup, told.tty) == (b"/pod", b"", None)
    assert event(record()).task.cgroup == b""


def test_a_program_of_no_session_names_its_cgroup() -> None:
    assert event(record(session=0, cgroup=b"a\0")).task.cgroup == b"/a"


def test_a_program_in_memory() -> None:
    told = event(record(flags=UNLINKED | BARE, executable=b"memfd:a/b\0"))
    assert (told.memfd, told.task.executable) == (True, b"/memfd:a/b (deleted)")


def test_what_is_cut() -> None:
    told = event(record(argv=b"x" * 32768, argv_size=40000))
    assert (told.argv_cut, told.argv_cut_at, told.argv_size) == (7232, 16384, 40000)


def test_what_could_not_be_read_is_named_and_empty() -> None:
    told = event(record(flags=ENTRY, problems=255, argv_size=12, cwd=b"deep\0", executable=b"x\0"))
    assert set(told.unknown) == {
        *("argv", "cwd", "task.executable", "task.cgroup", "parent.cgroup"),
        *("parent.executable", "environment", "filename"),
    }
    assert (told.cwd, told.task.executable, told.task.cgroup, told.argv_cut) == (b"", b"", b"", 0)


def test_the_ends() -> None:
    assert layout.decode(HEAD.pack(2, 0x8B, 1, 2, 3, 4, 5), {}) == ExitEvent(1, 2, 4, 3, 0x8B)
    assert layout.decode(HEAD.pack(3, 0, 1, 2, 0, 0, 0), {}) == EndEvent(1, 2)


@given(st.binary(max_size=400))
@example(b"")
@example(bytes(400))
@example(b"\xff" * 400)
@example(b"\x01\0\0\0" + bytes(4))
@example(b"\x01\0\0\0" + b"\xff" * 396)
def test_any_bytes_are_a_record_or_refused(raw: bytes) -> None:
    with contextlib.suppress(layout.LayoutError):
        layout.decode(raw, {})


@given(
    head=st.integers(0, 255),
    problems=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8),
    data=st.binary(max_size=600),
)
# The sum of four bytes would wrap round.
@example(head=0, problems=0, lengths=[2**32 - 1, 1, 0, 0, 0, 0, 0, 0], data=b"")
@example(head=255, problems=2**32 - 1, lengths=[0] * 8, data=b"")
@example(head=15, problems=0, lengths=[0, 0, 0, 0, 0, 0, 0, 2**31], data=b"\0" * 600)
@example(head=4, problems=255, lengths=[1, 0, 0, 0, 0, 0, 0, 1], data=b"\0\0")
def test_hostile_lengths_are_refused(
    head: int, problems: int, lengths: list[int], data: bytes
) -> None:
    whole = record(flags=head, problems=problems)
    raw = whole[: len(whole) - 32] + struct.pack("=8I", *lengths) + data
    if sum(lengths) == len(data):
        layout.decode(raw, {})
    else:
        with pytest.raises(layout.LayoutError):
            layout.decode(raw, {})


@given(st.lists(st.binary(max_size=60), min_size=8, max_size=8), st.integers(0, 15))
@example([b""] * 8, 15)
@example([b"\n\x1b[2J", b"/" * 60, b" (deleted)", b"memfd:", b"\xff\xfe", b"\0\0", b"=", b"\0"], 8)
def test_any_text_is_kept(data: list[bytes], flags: int) -> None:
    told = event(record(flags=flags, **dict(zip(PARTS, data, strict=True))))
    assert told.argv == data[-1]
    assert all(b"\0" not in text for text in (told.cwd, told.filename, told.task.executable))


MOUNTS = """\
22 1 0:20 / / rw - ext4 /dev/vda rw
23 22 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw
24 23 0:22 / /sys/fs/cgroup/unified rw - cgroup2 cgroup rw
25 23 0:23 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu
26 22 0:24 / /sys/fs/bp\\040f rw shared:1 - bpf bpf rw
"""


def mounts(root: str = "/") -> list[Any]:
    return parse_mounts(MOUNTS.format(root=root).splitlines())


def test_containers_are_in_a_version_1_hierarchy_where_there_is_one() -> None:
    assert choose_hierarchy(mounts()) == (3, "/sys/fs/cgroup/cpu,cpuacct")
    assert choose_hierarchy(mounts("/../node")) == (3, "")
    only_new = [one for one in mounts() if one.kind != "cgroup"]
    assert choose_hierarchy(only_new) == (0, "/sys/fs/cgroup/unified")


def test_a_bpf_file_system_is_told_by_its_mount() -> None:
    assert is_bpffs("/sys/fs/bp f/x", mounts())
    assert not is_bpffs("/sys/fs/bp", mounts())
    hidden = parse_mounts(["9 26 0:9 / /sys/fs/bp\\040f rw - tmpfs t rw"])
    assert not is_bpffs("/sys/fs/bp f/x", [*mounts(), *hidden])


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_lines_are_mounts_or_left_out(lines: list[str]) -> None:
    choose_hierarchy(parse_mounts(lines))
