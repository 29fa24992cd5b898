"""The decoder of the ring's records: what is told, and that no bytes break it."""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.bpf import layout
from exectrail_agent.bpf.layout import Known
from exectrail_agent.bpf.surroundings import choose_hierarchy, is_bpffs, parse_mounts
from exectrail_agent.events import AlikeEvent, EndEvent, Event, ExecEvent, ExitEvent
from tests.unit.agent.corpus import damaged, kept

REAL = {Path(name).stem: raw for name, raw in kept("ring/*.bin").items()}
"""What the kernel half has written on Linux 6.18, by what is special about it."""
HEAD = struct.Struct("=IIQQQII")
ENTRY, TTY, UNLINKED, BARE = 1, 2, 4, 8
PARTS = (
    *("cgroup", "parent_cgroup", "executable", "cwd"),
    *("parent_executable", "filename", "environment", "argv"),
)


PROCESS = (77, 5, 10, 110, 3, 2, 7, 8, 108)
"""In the order of AlikeEvent."""


def record(  # noqa: PLR0913 - a record tells that much
    *,
    flags: int = 0,
    session: int = 9,
    problems: int = 0,
    argv_size: int | None = None,
    tty: tuple[int, int] = (0, 0),
    process: Sequence[int] = PROCESS,
    cgroup_id: int = 4711,
    uid: int = 1,
    lengths: Sequence[int] | None = None,
    **parts: bytes,
) -> bytes:
    """Return what the kernel half would send; `lengths` are said instead of those of the parts."""
    data = [parts.get(name, b"") for name in PARTS]
    *others, argv = lengths or map(len, data)
    time, start, pid, host_pid, parent_start, above_start, above_pid, *parent_pids = process
    size = len(data[-1]) if argv_size is None else argv_size
    return b"".join(
        [
            HEAD.pack(1, 0, session, time, start, pid, host_pid),
            struct.pack("=QQ6I", parent_start, above_start, above_pid, *parent_pids, 0, size, argv),
            struct.pack("=QQ", 4, cgroup_id),
            struct.pack("=II16s", 21, 22, b"sh\0junk"),
            struct.pack("=II16s", 31, 32, b"runc"),
            struct.pack("=8I", uid, 2, 3, 4, *tty, flags, problems),
            struct.pack("=8I", *others, 0),
            *data,
        ]
    )


def knowing(cgroups: dict[int, bytes]) -> Known:
    return Known(OrderedDict(cgroups))


def told_of(raw: bytes, known: Known | None = None) -> Event:
    return layout.decode(raw, 0, len(raw), known or Known())


def event(raw: bytes, cgroups: dict[int, bytes] | None = None) -> ExecEvent:
    decoded = told_of(raw, knowing(cgroups or {}))
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
    assert (told.parent.pid, told.parent.start, told.parent.host_pid) == (8, 3, 108)
    assert (told.parent.mount_namespace, told.parent.pid_namespace) == (31, 32)
    assert (told.parent.comm, told.above_pid, told.above_start) == (b"runc", 7, 2)
    assert (told.cwd, told.filename, told.argv) == (b"/", b"/bin/sh", b"sh\0-c\0\0")
    assert told.argv_size == len(told.argv)
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


def test_a_program_in_memory_whose_name_is_unknown_has_none() -> None:
    told = event(record(flags=UNLINKED | BARE, problems=4, executable=b"memfd:a/b\0"))
    assert (told.memfd, told.task.executable) == (True, b"")


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
    assert told_of(HEAD.pack(2, 0x8B, 2, 1, 3, 4, 5)) == ExitEvent(1, 2, 4, 3, 0x8B)
    assert told_of(HEAD.pack(3, 0, 2, 1, 0, 0, 0)) == EndEvent(1, 2)


def test_an_end_says_no_more_than_its_head() -> None:
    for raw in (HEAD.pack(1, 0, 2, 1, 3, 4, 5), HEAD.pack(4, 0, 2, 1, 3, 4, 5)):
        with pytest.raises(layout.LayoutError):
            told_of(raw)
    for kind in (2, 3):
        with pytest.raises(layout.LayoutError):
            told_of(struct.pack("=I", kind) + record()[4:])


def test_real_records_tell_what_was_run() -> None:
    told = {name: told_of(raw) for name, raw in REAL.items()}
    ends = {name: told.pop(name) for name in ("exit", "end")}
    execs = {name: one for name, one in told.items() if isinstance(one, ExecEvent)}
    assert execs.keys() == told.keys()
    assert isinstance(ends["exit"], ExitEvent)
    assert ends["exit"].status == 3 << 8
    assert isinstance(ends["end"], EndEvent)

    entry = execs["entry"]
    name = b"libpod-9846d65cb624f9bb9afbe26ee0501b98c86e9372c0dbb4cc2ba9ed0ad39880ab"
    assert (entry.entry, entry.tty, entry.login_uid) == (True, (136, 0), 2**32 - 1)
    assert entry.task.cgroup == b"/libpod_parent/" + name
    assert (entry.parent.cgroup, entry.parent.comm) == (b"/libpod_parent/conmon", b"runc")
    assert (entry.cwd, entry.filename, entry.task.executable) == (
        b"/",
        b"/bin/sh",
        b"/usr/bin/dash",
    )
    assert list(entry.environment.values()) == [b"0b9f7c1e-5d2a-4f39-8c1b-7a6e5d4c3b2a"]
    assert execs["command"].argv == b"/usr/bin/ls\0-la\0/\0two words\0\0"
    assert execs["command"].session == entry.session == ends["exit"].session
    first = (entry.task.pid, entry.task.start)
    assert (execs["command"].above_pid, execs["command"].above_start) == first
    assert (execs["command"].parent.pid, execs["command"].parent.start) == first
    assert (ends["exit"].pid, ends["exit"].start) == first
    assert (entry.above_pid, entry.above_start) == (0, 0)
    assert execs["memfd"].task.executable == b"/memfd:in/memory (deleted)"
    assert (execs["script"].filename, execs["script"].cwd) == (b"/tmp/script", b"/var/app")
    assert execs["not-utf8"].argv == b"true\0\xff\xfe\0a\nb\0\x1b[2J\0\xc3\xbc\0"
    assert (execs["no-arguments"].argv, execs["no-arguments"].argv_size) == (b"\0", 1)
    assert execs["long"].argv_cut == execs["long"].argv_size - 32768 == 7252
    assert (execs["another-user"].uid, execs["another-user"].gid) == (1000, 1000)
    assert execs["session-in-session"].outer > 0
    assert (execs["of-no-session"].session, execs["of-no-session"].entry) == (0, False)
    assert execs["file-without-path"].task.executable == b"/"
    unknown = {name: list(one.unknown) for name, one in execs.items() if one.unknown}
    assert unknown == {"deep-cwd": ["cwd"], "many-variables": ["environment"]}


def test_the_real_commands_of_a_loop_differ_in_process_and_arguments_alone() -> None:
    known = Known()
    told_of(REAL["entry"], known)
    first = told_of(REAL["model"], known)
    later = told_of(REAL["alike"], known)
    assert isinstance(first, ExecEvent)
    assert isinstance(later, AlikeEvent)
    assert later.model.argv == b"", "of the first only what is alike is kept"
    assert (first.argv, later.argv) == (b"/usr/bin/true\0one\0", b"/usr/bin/true\0two\0more\0")
    assert first.task.pid != later.whole().task.pid
    assert first.time < later.time == later.whole().time
    assert later.whole() == told_of(REAL["alike"], Known(known.cgroups))
    assert isinstance(told_of(REAL["command"], known), ExecEvent), "another program"


@given(st.lists(damaged(list(REAL.values())), max_size=4))
def test_damaged_real_records_are_read_or_refused(raws: list[bytes]) -> None:
    known = Known()
    for raw in raws:
        try:
            told = told_of(raw, known)
        except layout.LayoutError:
            continue
        if isinstance(told, AlikeEvent):
            told = told.whole()
        # By its size alone a record that is refused is told to be of a program, or not.
        assert isinstance(told, ExecEvent) == (len(raw) > layout.END_SIZE)
        if not isinstance(told, ExecEvent):
            assert len(raw) == HEAD.size
        else:
            paths = (told.cwd, told.task.cgroup, told.task.executable, told.parent.executable)
            assert all(path == b"" or path.startswith(b"/") for path in paths)
            assert all(b"\0" not in path for path in paths)


@given(damaged([REAL[name] for name in ("alike", "command", "model", "alike")]))
@example(REAL["alike"])
@example(REAL["alike"][:-1])
@example(REAL["alike"] + b"\0")
def test_what_is_known_of_models_alters_nothing_that_is_told(raw: bytes) -> None:
    known = Known()
    told_of(REAL["entry"], known)
    told_of(REAL["model"], known)
    assert outcome(raw, known) == outcome(raw, Known(OrderedDict(known.cgroups)))


def outcome(raw: bytes, known: Known) -> Event | None:
    try:
        told = told_of(raw, known)
    except layout.LayoutError:
        return None
    return told.whole() if isinstance(told, AlikeEvent) else told


@given(st.binary(max_size=400))
@example(b"")
@example(bytes(400))
@example(b"\xff" * 400)
@example(b"\x01\0\0\0" + bytes(4))
@example(b"\x01\0\0\0" + b"\xff" * 396)
def test_any_bytes_are_a_record_or_refused(raw: bytes) -> None:
    with contextlib.suppress(layout.LayoutError):
        told_of(raw)


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
    raw = record(flags=head, problems=problems, lengths=lengths) + data
    if sum(lengths) == len(data):
        told_of(raw)
    else:
        with pytest.raises(layout.LayoutError):
            told_of(raw)


LS = record(executable=b"ls\0bin\0", argv=b"ls\0")


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=40))
@example(2**32 - 1, 2**32 - 1, b"")
@example(2**32 - 1, 0, b"ls\0")
@example(2**31, 2**31, b"ls\0")
@example(4, 4, b"ls\0")
@example(2, 2, b"ls\0")
@example(3 + len(b"ls\0bin\0"), 3, b"ls\0")
@example(3, 2**32 - 1, b"ls\0")
# Python counts a place before the first from the end, and that is where argv begins.
@example(len(LS) + 3, len(LS) + 3, b"ls\0")
def test_a_hostile_length_of_argv_is_refused_also_if_the_program_is_known(
    length: int, size: int, argv: bytes
) -> None:
    known = knowing({4711: b"/pod"})
    told_of(LS, known)
    lengths = [0, 0, len(b"ls\0bin\0"), 0, 0, 0, 0, length]
    raw = record(lengths=lengths, argv_size=size, executable=b"ls\0bin\0", argv=argv)
    if length == len(argv):
        assert isinstance(told_of(raw, known), AlikeEvent) == (length == size)
    else:
        with pytest.raises(layout.LayoutError):
            told_of(raw, known)


@given(st.lists(st.binary(max_size=60), min_size=8, max_size=8), st.integers(0, 15))
@example([b""] * 8, 15)
@example([b"\n\x1b[2J", b"/" * 60, b" (deleted)", b"memfd:", b"\xff\xfe", b"\0\0", b"=", b"\0"], 8)
def test_any_text_is_kept(data: list[bytes], flags: int) -> None:
    told = event(record(flags=flags, **dict(zip(PARTS, data, strict=True))))
    assert told.argv == data[-1]
    assert all(b"\0" not in text for text in (told.cwd, told.filename, told.task.executable))


# ---- programs like earlier ones ----

NUMBERS, PIDS = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
PROCESSES = st.tuples(NUMBERS, NUMBERS, PIDS, PIDS, NUMBERS, NUMBERS, PIDS, PIDS, PIDS)
WORDS = {"executable": b"ls\0bin\0", "cwd": b"srv\0", "filename": b"/bin/ls\0"}


@given(
    st.lists(
        st.tuples(PROCESSES, st.integers(1, 2**64 - 1), st.binary(max_size=80)),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from([0, TTY, UNLINKED, UNLINKED | BARE]),
)
@example([(PROCESS, 9, b"ls\0"), ((0,) * 9, 1, b"")], TTY)
@example([(PROCESS, 9, b"ls\0"), (PROCESS, 9, b"\xff" * 32768)], 0)
@example([(PROCESS, 9, b"x" * 32768), (PROCESS, 9, b"ls\0")], 0)
def test_a_program_like_an_earlier_one_is_told_as_if_it_were_the_first(
    runs: list[tuple[tuple[int, ...], int, bytes]], flags: int
) -> None:
    known = knowing({4711: b"/pod"})
    model: ExecEvent | None = None
    for number, (process, session, argv) in enumerate(runs):
        raw = record(flags=flags, process=process, session=session, argv=argv, **WORDS)
        told = told_of(raw, known)
        afresh = event(raw, cgroups={4711: b"/pod"})
        if number == 0:
            assert told == afresh
        else:
            assert isinstance(told, AlikeEvent)
            assert told.model is (model or told.model)
            model = told.model
            assert (told.process, told.session, told.argv) == (process, session, argv)
            assert (told.time, told.whole()) == (afresh.time, afresh)


@pytest.mark.parametrize(
    "other",
    [
        {"uid": 7},
        {"cgroup_id": 4712},
        {"flags": TTY},
        {"tty": (136, 3)},
        {"executable": b"ls\0sbin\0"},
        {"cwd": b"srw\0"},
        # The same bytes, but parted in another way.
        {"executable": b"ls\0bin\0srv\0", "cwd": b""},
        {"flags": ENTRY},
        {"problems": 2},
    ],
)
def test_a_program_that_differs_in_more_is_told_in_full(other: dict[str, Any]) -> None:
    known = knowing({4711: b"/pod", 4712: b"/pod"})
    told_of(record(argv=b"ls\0", **WORDS), known)
    raw = record(**{**WORDS, "argv": b"ls\0", **other})
    told = told_of(raw, known)
    assert told == told_of(raw, knowing({4711: b"/pod", 4712: b"/pod"}))
    assert isinstance(told, ExecEvent)


@pytest.mark.parametrize(
    "what",
    [
        {"flags": ENTRY, "cgroup": b"pod\0"},
        {"session": 0, "cgroup": b"pod\0"},
        {"cgroup_id": 1},
        *({"problems": 1 << bit} for bit in range(8)),
    ],
    ids=str,
)
def test_what_a_record_alone_can_tell_is_no_model(what: dict[str, Any]) -> None:
    """Its parts are not all in it, or say something of this one alone."""
    known = knowing({4711: b"/pod"})
    for _ in range(2):
        assert isinstance(told_of(record(**WORDS, **what), known), ExecEvent)
    assert not known.models


def test_long_paths_are_not_kept() -> None:
    known = knowing({4711: b"/pod"})
    told_of(record(cwd=b"x" * layout._KEY_MAX), known)
    assert not known.models


def test_a_cgroup_that_becomes_known_is_told_from_then_on() -> None:
    known = Known()
    assert event(record(**WORDS)).task.cgroup == b""
    told_of(record(flags=ENTRY, cgroup=b"pod\0"), known)
    first, later = (told_of(record(**WORDS), known) for _ in range(2))
    assert isinstance(first, ExecEvent)
    assert isinstance(later, AlikeEvent)
    assert first.task.cgroup == later.whole().task.cgroup == b"/pod"


def test_a_program_of_no_session_is_never_alike() -> None:
    """What is only in its record may be empty, as the path of the uppermost cgroup is."""
    known = knowing({4711: b"/"})
    told_of(record(argv=b"ls\0", **WORDS), known)
    raw = record(session=0, argv=b"ls\0", **WORDS)
    told = told_of(raw, known)
    assert isinstance(told, ExecEvent)
    assert told.parent.cgroup == told.parent.executable == b"/"


def test_arguments_that_are_cut_are_never_alike() -> None:
    known = knowing({4711: b"/pod"})
    told_of(record(argv=b"ls\0", **WORDS), known)
    raw = record(argv=b"x" * 32768, argv_size=40000, **WORDS)
    told = told_of(raw, known)
    assert told == event(raw, cgroups={4711: b"/pod"})
    assert isinstance(told, ExecEvent)
    assert told.argv_cut == 7232


@pytest.mark.parametrize("earlier", [[], [b"ls\0"]])
def test_after_arguments_that_were_cut_whole_ones_are_whole(earlier: list[bytes]) -> None:
    known = knowing({4711: b"/pod"})
    for argv in earlier:
        told_of(record(argv=argv, **WORDS), known)
    told_of(record(argv=b"x" * 32768, argv_size=40000, **WORDS), known)
    raw = record(argv=b"ls\0-l\0", **WORDS)
    assert outcome(raw, known) == event(raw, cgroups={4711: b"/pod"})


def test_so_many_models_are_kept_and_the_oldest_is_forgotten() -> None:
    known = knowing({4711: b"/pod"})
    most = layout._MODELS_MAX
    for uid in range(most + 1):
        told_of(record(uid=uid), known)
    assert len(known.models) == most
    assert isinstance(told_of(record(uid=most), known), AlikeEvent)
    assert isinstance(told_of(record(uid=1), known), AlikeEvent)
    assert isinstance(told_of(record(uid=0), known), ExecEvent)
    assert len(known.models) == most


def test_so_many_cgroups_are_kept_and_the_oldest_is_forgotten() -> None:
    known = Known()
    most = layout._CGROUPS_MAX
    for number in range(most + 1):
        told_of(record(flags=ENTRY, cgroup_id=number, cgroup=b"%d\0" % number), known)
    assert len(known.cgroups) == most
    paths = [outcome(record(cgroup_id=number), known) for number in (0, 1, most)]
    assert [one.task.cgroup for one in paths if isinstance(one, ExecEvent)] == [
        b"",
        b"/1",
        b"/%d" % most,
    ]


# ---- where a record is ----


@given(st.lists(damaged(list(REAL.values())), min_size=1, max_size=3), st.binary(max_size=9))
@example([REAL["entry"], REAL["model"], REAL["alike"]], b"1234567")
@example([REAL["entry"], REAL["model"], REAL["alike"][:-1]], b"x")
@example([REAL["end"], REAL["exit"]], b"\xff")
def test_a_record_amid_others_is_told_as_if_it_were_alone(
    raws: list[bytes], between: bytes
) -> None:
    text = between.join([b"", *raws, b""])
    in_text, in_ring, alone = Known(), Known(), Known()
    with mmap.mmap(-1, len(text) or 1) as ring:
        ring[: len(text)] = text
        end = 0
        for raw in raws:
            begin = end + len(between)
            end = begin + len(raw)
            try:
                told = told_of(raw, alone)
            except layout.LayoutError:
                for data in (text, ring):
                    with pytest.raises(layout.LayoutError):
                        layout.decode(data, begin, end, Known())
            else:
                assert layout.decode(text, begin, end, in_text) == told
                assert layout.decode(ring, begin, end, in_ring) == told
    assert in_text == in_ring == alone


# ---- where the sensor is ----

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
