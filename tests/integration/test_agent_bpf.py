"""The bpf sensor on this machine's kernel: what it tells, misses, counts and leaves behind.

Other sessions may go on here meanwhile, so each test looks at its own alone. A session begins with
``unshare -m``: a program whose mount namespace is not its parent's.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from exectrail_agent.bpf import layout, pins
from exectrail_agent.bpf import sensor as sensor_module
from exectrail_agent.bpf.libbpf import BpfError, Libbpf
from exectrail_agent.bpf.sensor import BpfSensor
from exectrail_agent.bpf.surroundings import choose_hierarchy, read_mounts
from exectrail_agent.events import (
    AlikeEvent,
    EndEvent,
    Event,
    ExecEvent,
    ExitEvent,
    SensorError,
)

ROOT = Path(__file__).parents[2]
STORM = Path(__file__).with_name("exec_storm.c")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/sys/kernel/btf/vmlinux").exists(),
    reason="loads programs into the kernel: needs root and a kernel with BTF",
)


PREBUILT = os.environ.get("EXECTRAIL_PREBUILT")
"""A folder with exec.bpf.o and exec_storm, for a machine that has no compiler."""


@pytest.fixture(scope="session")
def code() -> bytes:
    if PREBUILT:
        return Path(PREBUILT, "exec.bpf.o").read_bytes()
    spec = importlib.util.spec_from_file_location("agent_build", ROOT / "packaging" / "agent.py")
    assert spec
    assert spec.loader
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    try:
        return bytes(build.compile_object(build.PACKAGE / "bpf"))
    except build.BuildError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def sharing(kind: int) -> Iterator[None]:
    """Keep storms (LOCK_EX) away from each other, and from who would lose his own (LOCK_SH).

    A sensor sees the sessions of the whole machine, those of tests in other processes too.
    """
    with Path(tempfile.gettempdir(), "exectrail-test-storms").open("w") as lock:
        fcntl.flock(lock, kind)
        yield


@pytest.fixture
def calm() -> Iterator[None]:
    with sharing(fcntl.LOCK_SH):
        yield


@pytest.fixture
def storm(storm_program: str) -> Iterator[str]:
    with sharing(fcntl.LOCK_EX):
        yield storm_program


@pytest.fixture(scope="session")
def storm_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    if PREBUILT:
        return f"{PREBUILT}/exec_storm"
    program = tmp_path_factory.mktemp("storm") / "exec_storm"
    subprocess.run(["clang", "-O2", "-o", program, STORM], check=True)
    return str(program)


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "bpf"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


Open = Callable[..., BpfSensor]


@pytest.fixture
def opened(bpffs: Path, code: bytes) -> Iterator[Open]:
    sensors: list[BpfSensor] = []

    def start(**options: Any) -> BpfSensor:
        sensor = BpfSensor(**{"folder": str(bpffs / "exectrail"), "code": code, **options})
        sensors.append(sensor)
        return sensor

    yield start
    for sensor in sensors:
        if sensor._files:
            sensor.close(keep=False)


@pytest.fixture
def sensor(opened: Open) -> BpfSensor:
    return opened()


def whole(events: Sequence[Event]) -> list[Event]:
    return [event.whole() if isinstance(event, AlikeEvent) else event for event in events]


class Seen:
    """Events of this test's sessions, which are told by a word in an argument of their entry."""

    def __init__(self, sensor: BpfSensor, word: str) -> None:
        self.sensor = sensor
        self.word = word.encode()
        self.events: list[Event] = []
        self.numbers: set[int] = set()

    def read(self) -> None:
        for event in whole(self.sensor.read()):
            if isinstance(event, ExecEvent) and event.entry and self.word in event.argv:
                self.numbers.add(event.session)
            if event.session in self.numbers:
                self.events.append(event)

    def until(self, done: Callable[[], bool], seconds: float = 60) -> None:
        limit = time.monotonic() + seconds
        self.read()
        while not done():
            assert time.monotonic() < limit, self.events
            select.select([self.sensor], [], [], 0.1)
            self.read()

    def to_the_end(self, sessions: int = 1) -> Seen:
        self.until(lambda: len(self.ends) >= sessions)
        return self

    @property
    def execs(self) -> list[ExecEvent]:
        return [event for event in self.events if isinstance(event, ExecEvent)]

    @property
    def exits(self) -> list[ExitEvent]:
        return [event for event in self.events if isinstance(event, ExitEvent)]

    @property
    def ends(self) -> list[EndEvent]:
        return [event for event in self.events if isinstance(event, EndEvent)]

    @property
    def commands(self) -> list[list[str]]:
        return [words(event) for event in self.execs]


def words(event: ExecEvent) -> list[str]:
    return event.argv.decode().split("\0")[:-1]


def enter(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["unshare", "-m", "--", *map(str, command)], check=False, **options)


def enter_python(script: str, *arguments: str, **options: Any) -> Any:
    return enter(sys.executable, "-c", textwrap.dedent(script), *arguments, **options)


# ---- sessions ----


def test_a_session_has_all_that_descends_from_its_entry(sensor: BpfSensor) -> None:
    enter(
        "sh",
        "-c",
        "true one; /bin/true two; (/bin/true three);"
        " setsid sh -c '/bin/true four & exit 3'; exit 5",
    )
    seen = Seen(sensor, "true one").to_the_end()
    assert [one for one in seen.commands if one[0] == "/bin/true"] == [
        ["/bin/true", "two"],
        ["/bin/true", "three"],
        ["/bin/true", "four"],
    ]
    assert [event.entry for event in seen.execs] == [True, *([False] * (len(seen.execs) - 1))]
    assert isinstance(seen.events[-1], EndEvent)
    assert len(seen.ends) == 1
    by_pid = {event.pid: event.status for event in seen.exits}
    assert by_pid[seen.execs[0].task.pid] == 5 << 8
    assert set(by_pid) == {event.task.pid for event in seen.execs}
    assert {(one.pid, one.start) for one in seen.exits} == {
        (one.task.pid, one.task.start) for one in seen.execs
    }
    # The kernel's own account of when the process began, to a clock tick.
    first = seen.execs[0]
    assert first.task.start <= first.time <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert first.parent.pid == os.getpid() or first.parent.comm == b"unshare"


def test_a_daemon_lives_on_after_the_entry(sensor: BpfSensor) -> None:
    enter("sh", "-c", "setsid sh -c 'sleep 0.4; /bin/true late' & true daemon")
    seen = Seen(sensor, "true daemon").to_the_end()
    assert seen.commands[-1] == ["/bin/true", "late"]
    assert seen.exits[0].pid == seen.execs[0].task.pid


def test_who_has_started_a_program_is_told_though_others_forked_in_between(
    sensor: BpfSensor,
) -> None:
    enter("sh", "-c", "(/bin/true lineage; (/bin/true deep; :); :); (sh -c '/bin/true last; :'); :")
    seen = Seen(sensor, "lineage").to_the_end()
    entry, *others = seen.execs
    above = {words(one)[-1]: (one.above_pid, one.above_start) for one in others}
    inner = next(one.task for one in others if words(one)[0] == "sh")
    mine = (entry.task.pid, entry.task.start)
    assert (entry.above_pid, entry.above_start) == (0, 0)
    assert above == {
        "lineage": mine,
        "deep": mine,
        "/bin/true last; :": mine,
        "last": (inner.pid, inner.start),
    }
    deep = next(one for one in others if words(one)[-1] == "deep")
    assert deep.parent.pid != entry.task.pid


def test_a_thread_that_runs_a_program_stays_the_same_process(sensor: BpfSensor) -> None:
    enter_python(
        """
        import os, threading, time
        threads = [threading.Thread(target=time.sleep, args=(0.3,), daemon=True) for _ in range(20)]
        [one.start() for one in threads]
        threading.Thread(target=os.execv, args=("/bin/true", ["true", "thread"])).start()
        time.sleep(5)
        """
    )
    seen = Seen(sensor, "import os, threading").to_the_end()
    assert [one.task.pid for one in seen.execs] == [seen.execs[0].task.pid] * 2
    assert [one.pid for one in seen.exits] == [seen.execs[0].task.pid]
    assert words(seen.execs[1]) == ["true", "thread"]


def test_a_session_ends_once_however_many_end_it(sensor: BpfSensor) -> None:
    for _ in range(5):
        enter_python(
            """
            import os, signal, threading, time
            end = time.monotonic() + 0.25
            for _ in range(40):
                if not os.fork():
                    threads = [threading.Thread(target=time.sleep, args=(9,)) for _ in range(3)]
                    [one.start() for one in threads]
                    time.sleep(max(0, end - time.monotonic()))
                    os._exit(0)
            """
        )
    seen = Seen(sensor, "import os, signal").to_the_end(5)
    time.sleep(0.2)
    seen.read()
    assert len(seen.ends) == 5
    assert len({end.session for end in seen.ends}) == 5
    # Processes that have run no program of their own are no programs' ends.
    assert len(seen.exits) == 5


def test_how_a_process_ended(sensor: BpfSensor) -> None:
    enter("sh", "-c", "sh -c 'kill -9 $$'; sh -c 'exit 7'; true statuses")
    seen = Seen(sensor, "true statuses").to_the_end()
    assert [one.status for one in seen.exits][:2] == [9, 7 << 8]


def test_a_dropped_session_is_told_no_more(sensor: BpfSensor, tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"read go < {fifo}; sh -c '/bin/true; /bin/true dropped'; :"]
    )
    seen = Seen(sensor, "true dropped")
    seen.until(lambda: bool(seen.execs))
    sensor.drop(seen.execs[0].session)
    assert seen.execs[0].session not in {one.session for one in sensor.live()}
    fifo.write_text("go\n")
    process.wait()
    time.sleep(0.1)
    seen.read()
    assert len(seen.events) == 1
    # Nothing of it is left in the kernel.
    number = seen.execs[0].session.to_bytes(8, sys.byteorder)
    for name, size in (("sessions", 16), ("dropped", 4)):
        assert sensor._libbpf.look_up(sensor._files[name], number, size) is None


def test_sleepers_of_dropped_sessions_take_no_room(
    sensor: BpfSensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor_module, "_DROPS_MAX", 3)
    sleep = ["unshare", "-m", "sh", "-c", "sleep 60 & exec sleep 60.5"]
    sleepers = [subprocess.Popen(sleep, start_new_session=True) for _ in range(4)]
    try:
        seen = Seen(sensor, "60.5")
        seen.until(lambda: len(seen.numbers) == len(sleepers) and len(seen.execs) >= 12)
        *dropped, kept = seen.numbers
        for number in dropped:
            sensor.drop(number)

        def held(name: str, size: int) -> set[int]:
            keys = sensor._libbpf.keys(sensor._files[name], size, 1 << 15)
            return {int.from_bytes(key, sys.byteorder) for key in keys}

        pids = {one.task.pid: one.session for one in seen.execs}
        assert held("sessions", 8) & seen.numbers == {kept}
        assert held("dropped", 8) & seen.numbers == set()
        assert {pids[pid] for pid in held("tasks", 4) & pids.keys()} == {kept}
        (live,) = [one for one in sensor.live() if one.session in seen.numbers]
        assert (live.session, len(live.tasks)) == (kept, 2)
    finally:
        for process in sleepers:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_one_that_leaves_a_dropped_session_for_another_place_is_an_entry(
    sensor: BpfSensor, tmp_path: Path
) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"read go < {fifo}; unshare -m /bin/true again; : moved"]
    )
    seen = Seen(sensor, "again")
    seen.until(lambda: bool(seen.execs))
    sensor.drop(seen.execs[0].session)
    fifo.write_text("go\n")
    process.wait()
    seen.until(lambda: len(seen.numbers) == 2)
    assert words(seen.execs[1]) == ["/bin/true", "again"]
    assert (seen.execs[1].entry, seen.execs[1].outer) == (True, 0)


def test_a_session_in_a_session_names_it_and_ends_first(sensor: BpfSensor) -> None:
    enter("sh", "-c", "unshare -m sh -c '/bin/true inner; :'; /bin/true outer")
    seen = Seen(sensor, "/bin/true inner").to_the_end(2)
    outer, inner = seen.execs[0], next(one for one in seen.execs if one.outer)
    assert (outer.outer, inner.outer, inner.entry) == (0, outer.session, True)
    assert [end.session for end in seen.ends] == [inner.session, outer.session]
    told = {words(one)[1]: one.session for one in seen.execs if words(one)[0] == "/bin/true"}
    assert told == {"inner": inner.session, "outer": outer.session}


def test_what_runs_outside_sessions_wakes_nobody(sensor: BpfSensor, storm: str) -> None:
    Seen(sensor, "").read()
    told: list[Event] = []
    woken = 0
    process = subprocess.Popen([storm, "2000", "2000", "/bin/true"], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        woken += bool(select.select([sensor], [], [], 0.05)[0])
        told += sensor.read()
    execs = [one for one in whole(told) if isinstance(one, ExecEvent)]
    ours = [one for one in execs if one.parent.pid == process.pid]
    assert ours == []
    assert woken <= len(told)


def test_everything_tells_programs_of_no_session_too(opened: Open) -> None:
    sensor = opened(everything=True)
    subprocess.run(["/bin/true", "of no session"], check=True)
    told = [one for one in sensor.read() if isinstance(one, ExecEvent) and b"of no" in one.argv]
    assert [(one.session, one.entry) for one in told] == [(0, False)]
    assert told[0].parent.pid == os.getpid()
    assert told[0].task.cgroup.startswith(b"/")
    assert told[0].parent.executable == os.fsencode(Path("/proc/self/exe").readlink())


# ---- what is told of a program ----


def last(sensor: BpfSensor, word: str) -> ExecEvent:
    return Seen(sensor, word).to_the_end().execs[-1]


def test_arguments_are_kept_as_bytes(sensor: BpfSensor) -> None:
    arguments = [b"exact", b"", b"a\nb", b"\xff\xfe", "ü".encode(), b"", b""]
    subprocess.run([b"unshare", b"-m", b"/bin/true", *arguments], check=True)
    told = last(sensor, "exact")
    assert told.argv == b"/bin/true\0" + b"\0".join(arguments) + b"\0"
    assert (told.argv_size, told.argv_cut, told.unknown) == (len(told.argv), 0, {})


def test_no_arguments_at_all(sensor: BpfSensor) -> None:
    enter_python(
        """
        import ctypes
        nothing = (ctypes.c_char_p * 1)(None)
        ctypes.CDLL(None).execve(b"/bin/true", nothing, nothing)  # none at all
        """
    )
    # Since 5.18 the kernel itself puts in one that is empty.
    assert last(sensor, "none at all").argv in {b"", b"\0"}


@pytest.mark.parametrize("size", [32768, 32769, 2 << 20])
def test_long_arguments(sensor: BpfSensor, size: int) -> None:
    name = b"/bin/true\0long\0"
    piece = 100_000
    rest = size - len(name)
    arguments = []
    while rest:
        length = min(rest, piece)
        arguments.append(bytes([97 + len(arguments) % 26]) * (length - 1))
        rest -= length
    whole = name + b"\0".join(arguments) + b"\0"
    assert len(whole) == size

    def allow() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, resource.RLIM_INFINITY))

    subprocess.run(
        ["unshare", "-m", "/bin/true", "long", *arguments],
        check=True,
        preexec_fn=allow,
    )
    told = last(sensor, "long")
    assert told.argv_size == size
    if size <= 32768:
        assert told.argv == whole
    else:
        assert told.argv_cut == size - 32768
        assert told.argv[: told.argv_cut_at] == whole[:16384]
        assert told.argv[told.argv_cut_at :] == whole[-16384:]


def test_a_script_and_its_interpreter(sensor: BpfSensor, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n:\n")
    script.chmod(0o755)
    enter(script, "argument", cwd=tmp_path)
    told = last(sensor, "argument")
    assert told.filename == os.fsencode(script)
    assert told.task.executable == os.path.realpath(b"/bin/sh")
    assert words(told) == ["/bin/sh", str(script), "argument"]
    assert told.cwd == os.fsencode(tmp_path)


def test_another_name(sensor: BpfSensor) -> None:
    enter("bash", "-c", "exec -a renamed /bin/true bashed")
    told = last(sensor, "renamed")
    assert (words(told), told.filename) == (["renamed", "bashed"], b"/bin/true")
    assert told.task.executable == os.path.realpath(b"/bin/true")
    assert told.memfd is False


def test_a_program_in_memory(sensor: BpfSensor) -> None:
    enter_python(
        """
        import os
        file = os.memfd_create("in/memory")
        os.write(file, open(os.path.realpath("/bin/true"), "rb").read())
        os.execve(file, ["true", "fileless"], {})
        """
    )
    told = last(sensor, "fileless")
    assert (told.memfd, told.task.executable) == (True, b"/memfd:in/memory (deleted)")
    assert told.filename.startswith(b"/dev/fd/")


def test_a_program_that_is_mounted_nowhere(sensor: BpfSensor) -> None:
    """As crun runs itself: its file is the root of a mount of its own."""
    enter_python(
        """
        import ctypes, os
        OPEN_TREE, HERE, CLONE = 428, -100, 1
        libc = ctypes.CDLL(None, use_errno=True)
        path = os.path.realpath("/bin/true").encode()
        file = libc.syscall(OPEN_TREE, HERE, path, CLONE)
        assert file >= 0, os.strerror(ctypes.get_errno())
        os.set_inheritable(file, True)
        os.execve(f"/proc/self/fd/{file}", ["called", "nowhere"], {})
        """
    )
    assert last(sensor, "nowhere").task.executable == b"/true"


def test_a_terminal(sensor: BpfSensor) -> None:
    ours, theirs = os.openpty()
    number = os.fstat(theirs).st_rdev
    enter("setsid", "--ctty", "--wait", "/bin/true", "typed", stdin=theirs)
    os.close(ours)
    os.close(theirs)
    seen = Seen(sensor, "typed").to_the_end()
    assert seen.execs[-1].tty == (os.major(number), os.minor(number))
    enter("setsid", "/bin/true", "unattended", stdin=subprocess.DEVNULL)
    assert last(sensor, "unattended").tty is None


def test_whose_program_it_is(sensor: BpfSensor) -> None:
    """Who has logged in is said once, by a process of its own; the kernel numbers the login."""
    script = "echo 1234 > /proc/self/loginuid && cat /proc/self/sessionid && exec setpriv"
    owner = "--reuid 1001 --regid 1002 --clear-groups"
    login = enter("sh", "-c", f"{script} {owner} /bin/true owned", stdout=subprocess.PIPE)
    seen = Seen(sensor, "owned").to_the_end()
    entry, told = seen.execs[0], seen.execs[-1]
    assert (told.uid, told.gid, told.login_uid) == (1001, 1002, 1234)
    assert told.audit_session == int(login.stdout)
    ours = [int(Path("/proc/self", name).read_text()) for name in ("loginuid", "sessionid")]
    assert [entry.uid, entry.gid, entry.login_uid, entry.audit_session] == [0, 0, *ours]


def test_only_audit_ids_of_an_entry_are_told(sensor: BpfSensor) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "KUBERNETES_EXEC_AUDIT_ID": "0b9f-77",
        "SPO_EXEC_REQUEST_UID": "11-22",
        "KUBERNETES_EXEC_AUDIT_IDS": "no",
        "XSPO_EXEC_REQUEST_UID": "no",
        "KUBERNETES_SERVICE_HOST": "no",
    }
    enter("sh", "-c", "/bin/true inside; true ids", env=environment)
    seen = Seen(sensor, "true ids").to_the_end()
    assert [one.environment for one in seen.execs] == [
        {b"KUBERNETES_EXEC_AUDIT_ID": b"0b9f-77", b"SPO_EXEC_REQUEST_UID": b"11-22"},
        {},
    ]


def test_an_audit_id_among_many_variables(sensor: BpfSensor) -> None:
    many = {f"VARIABLE_{number}": "x" * 20 for number in range(1500)}
    enter("/bin/true", "many", env={**os.environ, **many, "SPO_EXEC_REQUEST_UID": "found"})
    told = last(sensor, "many")
    assert (told.environment, told.unknown) == ({b"SPO_EXEC_REQUEST_UID": b"found"}, {})
    more = {f"VARIABLE_{number}": "x" for number in range(2100)}
    enter("/bin/true", "too many", env={**os.environ, **more})
    assert list(last(sensor, "too many").unknown) == ["environment"]


def test_paths_are_those_of_the_process_root(sensor: BpfSensor, tmp_path: Path) -> None:
    for folder in ("bin", "lib", "lib64", "usr", "deep/er"):
        (tmp_path / folder).mkdir(parents=True)
    script = "; ".join(
        f"mount --bind /{name} {tmp_path}/{name}" for name in ("bin", "lib", "lib64", "usr")
    )
    enter("sh", "-c", f"{script}; chroot {tmp_path} sh -c 'cd /deep/er; /bin/true rooted'")
    told = last(sensor, "rooted")
    assert told.cwd == b"/deep/er"
    assert told.task.executable in {b"/bin/true", b"/usr/bin/true"}


def test_a_folder_deeper_than_is_followed(sensor: BpfSensor, tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(140):
        folder /= "d"
    folder.mkdir(parents=True)
    enter("/bin/true", "deep", cwd=folder)
    told = last(sensor, "deep")
    assert (told.cwd, list(told.unknown)) == (b"", ["cwd"])


# ---- where it is ----


@pytest.fixture
def cgroup() -> Iterator[Path]:
    index, point = choose_hierarchy(read_mounts())
    assert index is not None
    folder = Path(point, f"exectrail-test-{os.getpid()}", "in ner")
    folder.mkdir(parents=True)
    yield folder
    for one in (folder, folder.parent):
        one.rmdir()


def test_a_cgroup_is_crossed_into(sensor: BpfSensor, cgroup: Path) -> None:
    joined = f"echo $$ > '{cgroup}/cgroup.procs'; exec /bin/sh -c '/bin/true child; : crossed'"
    subprocess.run(["sh", "-c", joined], check=True)
    seen = Seen(sensor, "crossed").to_the_end()
    entry, child = seen.execs
    path = os.fsencode(f"/{cgroup.parent.name}/{cgroup.name}")
    assert (entry.task.cgroup, child.task.cgroup) == (path, path)
    assert entry.parent.cgroup != path
    assert entry.parent.executable == os.fsencode(Path("/proc/self/exe").readlink())


class Node:
    """An agent in a pid namespace of its own, where nobody else runs anything."""

    def __init__(self, code: bytes, folder: Path, script: str, *arguments: str) -> None:
        kernel_half = folder / "exec.bpf.o"
        kernel_half.write_bytes(code)
        whole = NODE.format(source=str(ROOT / "src"), code=str(kernel_half)) + textwrap.dedent(
            script
        )
        self.process = subprocess.Popen(
            [
                *("unshare", "-p", "-f", "--mount-proc", "--kill-child"),
                *(sys.executable, "-c", whole, *arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> Any:
        try:
            out, _ = self.process.communicate("go\n", timeout=60)
        finally:
            self.process.kill()
        return json.loads(out)


NODE = """
import json, subprocess, sys, time
sys.path.insert(0, {source!r})
from exectrail_agent.events import AlikeEvent, ExecEvent
from exectrail_agent.bpf.libbpf import BpfObject
from exectrail_agent.bpf.sensor import BpfSensor
load = BpfObject.load
def load_small(kernel_half, sizes):
    for name, entries in sizes.items():
        kernel_half.resize(name, entries)
    load(kernel_half)
def begin(sizes={{}}, **options):
    BpfObject.load = lambda kernel_half: load_small(kernel_half, sizes)
    sensor = BpfSensor(folder="/nowhere", code=open({code!r}, "rb").read(), **options)
    print("ready", flush=True)
    sys.stdin.readline()
    return sensor
def execs(sensor):
    told = [one.whole() if isinstance(one, AlikeEvent) else one for one in sensor.read()]
    return [one for one in told if isinstance(one, ExecEvent)]
"""


def test_an_agent_in_a_node_of_its_own_sees_its_own(code: bytes, tmp_path: Path) -> None:
    node = Node(
        code,
        tmp_path,
        """
        sensor = begin()
        mine = subprocess.Popen(["unshare", "-m", "/bin/true", "nested"])
        mine.wait()
        told = [[one.task.pid, one.task.host_pid, one.argv.decode()] for one in execs(sensor)]
        print(json.dumps([mine.pid, told]))
        """,
    )
    enter("/bin/true", "outside")
    pid, told = node.go()
    assert [one[2] for one in told] == ["/bin/true\0nested\0"]
    assert told[0][0] == pid
    assert told[0][1] != pid


# ---- losses ----


@pytest.mark.parametrize("ring_size", [4096, 65536])
def test_produced_is_told_or_counted(
    code: bytes, tmp_path: Path, storm: str, ring_size: int
) -> None:
    node = Node(
        code,
        tmp_path,
        """
        sensor = begin(ring_size=int(sys.argv[2]))
        command = ["unshare", "-m", sys.argv[1], "3000", "0", "/bin/true"]
        storm = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        told = []
        while storm.poll() is None:
            time.sleep(0.05)
            told += execs(sensor)
        told += execs(sensor)
        print(json.dumps([len(told), sensor.losses()]))
        """,
        storm,
        str(ring_size),
    )
    told, lost = node.go()
    assert told + lost["ring-full"] == 3001
    if ring_size == 4096:
        assert lost["ring-full"] > 0


CROWD = """
import contextlib, os, signal
def asleep(groups):
    found = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            ours = os.getpgid(int(pid)) in groups
            found += ours and open(f"/proc/{pid}/comm").read() == "sleep\\n"
    return found
def until(done):
    limit = time.monotonic() + 20
    while not done() and time.monotonic() < limit:
        time.sleep(0.01)
def crowd(sensor, commands, produced):
    before, told = sum(sensor.losses().values()), []
    def all_are_there():
        told.extend(execs(sensor))
        return len(told) + sum(sensor.losses().values()) - before >= produced
    running = [subprocess.Popen(one, start_new_session=True) for one in commands]
    until(all_are_there)
    # One whose parent is gone before it runs its program would come in from outside.
    groups, sleepers = {one.pid for one in running}, str(commands).count("/bin/sleep")
    until(lambda: asleep(groups) == sleepers)
    for one in running:
        os.killpg(one.pid, signal.SIGKILL)
        one.wait()
    until(lambda: not sensor.live())
    return len(told), len(sensor.live())
"""
"""All are there at once; says how many are told, and how many sessions stay behind them."""


def counted(lost: dict[str, int]) -> dict[str, int]:
    return {cause: count for cause, count in lost.items() if count}


@pytest.mark.parametrize("name", ["sessions", "tasks"])
def test_sessions_that_have_no_room_are_counted(code: bytes, tmp_path: Path, name: str) -> None:
    node = Node(
        code,
        tmp_path,
        CROWD
        + """
sensor = begin({sys.argv[1]: 4})
one = ["unshare", "-m", "/bin/sleep", "60"]
print(json.dumps([crowd(sensor, [one] * 10, 10), crowd(sensor, [one] * 4, 4), sensor.losses()]))
""",
        name,
    )
    crowded, after, lost = node.go()
    assert (crowded, after, counted(lost)) == ([4, 0], [4, 0], {"sessions-full": 6})


def test_processes_that_have_no_room_are_counted(code: bytes, tmp_path: Path) -> None:
    """Each runs one program here; what it will run is not known when it is counted."""
    node = Node(
        code,
        tmp_path,
        CROWD
        + """
sensor = begin({"tasks": 8})
def enter(count):
    script = "/bin/sleep 60 & " * count + "wait"
    return crowd(sensor, [["unshare", "-m", "sh", "-c", script]], 1 + count)
print(json.dumps([enter(20), enter(7), sensor.losses()]))
""",
    )
    crowded, after, lost = node.go()
    assert (crowded, after, counted(lost)) == ([8, 0], [8, 0], {"processes-full": 13})


def test_who_is_followed_already_is_looked_for_again_without_a_loss(
    code: bytes, tmp_path: Path
) -> None:
    node = Node(
        code,
        tmp_path,
        CROWD
        + """
from exectrail_agent.events import Task
sensor, told = begin(), []
shell = subprocess.Popen(["unshare", "-m", "sh", "-c", "/bin/sleep 60 & wait"])
def both_are_there():
    told.extend(execs(sensor))
    return len(told) == 2
until(both_are_there)
numbers = sensor.adopt([[Task(pid=told[0].task.pid)]])
live = [[one.session == told[0].session, len(one.tasks)] for one in sensor.live()]
os.kill(told[1].task.pid, signal.SIGKILL)
shell.wait()
until(lambda: not sensor.live())
print(json.dumps([numbers, live, len(sensor.live()), sensor.losses()]))
""",
    )
    numbers, live, left, lost = node.go()
    assert (numbers, live, left, counted(lost)) == ([0], [[True, 2]], 0, {})


def test_a_session_in_a_session_that_has_no_room_is_counted_and_told_as_the_outer(
    code: bytes, tmp_path: Path
) -> None:
    node = Node(
        code,
        tmp_path,
        """
        sensor = begin({"sessions": 1})
        inner = "unshare -m sh -c '/bin/true; /bin/true; :'; /bin/true"
        subprocess.run(["unshare", "-m", "sh", "-c", inner + "; :"])
        told = [[one.entry, one.outer, one.filename.decode()] for one in execs(sensor)]
        print(json.dumps([told, sensor.losses(), len(sensor.live())]))
        """,
    )
    told, lost, left = node.go()
    names = ["sh", "unshare", "sh", "true", "true", "true"]
    assert [Path(one[2]).name for one in told] == names
    assert [one[:2] for one in told] == [[True, 0], *[[False, 0]] * 5]
    assert (counted(lost), left) == ({"sessions-full": 1}, 0)


def test_sessions_nested_deeper_than_is_followed_are_counted(code: bytes, tmp_path: Path) -> None:
    node = Node(
        code,
        tmp_path,
        """
        sensor = begin()
        subprocess.run(["unshare", "-m"] * 7 + ["/bin/true"])
        told = [[one.entry, one.session, one.outer] for one in execs(sensor)]
        print(json.dumps([told, sensor.losses(), len(sensor.live())]))
        """,
    )
    told, lost, left = node.go()
    sessions = [session for _, session, _ in told]
    assert [entry for entry, _, _ in told] == [True] * 5 + [False] * 2
    assert [outer for _, _, outer in told] == [0, *sessions[:4], 0, 0]
    assert sessions[4:] == [sessions[4]] * 3
    assert (counted(lost), left) == ({"sessions-full": 2}, 0)


def test_a_storm_is_told_whole_and_in_order(sensor: BpfSensor, storm: str) -> None:
    process = subprocess.Popen(
        ["unshare", "-m", storm, "2000", "0", "/bin/true"], stdout=subprocess.DEVNULL
    )
    seen = Seen(sensor, storm)
    seen.to_the_end()
    process.wait()
    assert [one[1] for one in seen.commands[1:]] == [f"run={number}" for number in range(2000)]
    assert len(seen.exits) == 2001
    assert sensor.losses()["ring-full"] == 0


def test_arguments_that_no_ring_holds_are_a_loss(opened: Open) -> None:
    sensor = opened(ring_size=4096)
    before = sensor.losses()["ring-full"]
    enter("/bin/true", "x" * 20000)
    assert sensor.losses()["ring-full"] > before


@pytest.mark.parametrize("dies", ["reading", "counting", "having read"])
def test_what_dies_with_its_reader_was_counted(code: bytes, tmp_path: Path, dies: str) -> None:
    """What it was about to take may be told once more."""
    node = Node(
        code,
        tmp_path,
        """
        import mmap, os, signal
        from exectrail_agent.bpf import layout
        sensor = begin()
        script = "for each in $(seq 50); do /bin/true; done; :"
        subprocess.run(["unshare", "-m", "sh", "-c", script])
        counted = mmap.mmap(-1, 1)
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        def count(execs):
            counted[0] += execs
            if sys.argv[1] == "counting":
                die()
        reader = os.fork()
        if not reader:
            sensor.taken = count
            if sys.argv[1] == "reading":
                layout.decode = die
            sensor.read()
            die()
        _, status = os.waitpid(reader, 0)
        print(json.dumps([status, counted[0], len(execs(sensor))]))
        """,
        dies,
    )
    produced = 52  # The entry, seq, and 50 times true.
    expected = {
        "reading": [0, produced],
        "counting": [produced, produced],
        "having read": [produced, 0],
    }
    assert node.go() == [signal.SIGKILL, *expected[dies]]


def test_what_cannot_be_decoded_is_counted_once(
    sensor: BpfSensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(sensor, "taken", taken.append)
    monkeypatch.setattr(layout, "decode", mock.Mock(side_effect=layout.LayoutError))
    enter("/bin/true")
    assert sensor.read() == []
    assert taken
    assert sum(taken) == 0
    assert sensor.losses()["undecodable"] > 0


# ---- restarts ----


def test_nothing_is_missed_while_no_agent_runs(opened: Open, tmp_path: Path) -> None:
    fifo, ran = tmp_path / "go", tmp_path / "ran"
    os.mkfifo(fifo)
    os.mkfifo(ran)
    first = opened()
    script = f"read go < {fifo}; /bin/true away; sleep 60 & echo > {ran}; wait; : kept"
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", script])
    seen = Seen(first, "kept")
    seen.until(lambda: bool(seen.execs))
    entry = seen.execs[0]
    first.close(keep=True)
    fifo.write_text("go\n")
    enter("/bin/true", "unattended kept")
    assert ran.read_text()

    second = opened()
    assert (second.pinned, second.resumed, second.notices) == (True, True, [])
    live = {one.session: one.tasks for one in second.live()}
    where = (entry.task.pid, entry.task.start, entry.task.cgroup, entry.task.mount_namespace)
    assert where in {
        (one.pid, one.start, one.cgroup, one.mount_namespace) for one in live[entry.session]
    }
    assert len(live[entry.session]) == 2
    seen.sensor = second
    for task in live[entry.session]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(task.pid, 9)
    process.wait()
    seen.to_the_end(2)
    assert ["/bin/true", "away"] in seen.commands
    assert ["/bin/true", "unattended kept"] in seen.commands
    assert second.losses()["ring-full"] == 0


@pytest.mark.parametrize("sizes", [(1 << 23,), (1 << 23, 1 << 22)], ids=["same", "other ring"])
def test_an_upgrade_in_a_storm_tells_each_program_once(
    opened: Open, storm: str, sizes: Sequence[int]
) -> None:
    sensor = opened()
    seen = Seen(sensor, storm)
    process = subprocess.Popen(
        ["unshare", "-m", storm, "4000", "2500", "/bin/true"], stdout=subprocess.DEVNULL
    )
    for turn in range(6):
        seen.read()
        seen.sensor.close(keep=True)
        seen.sensor = opened(ring_size=sizes[turn % len(sizes)])
        assert seen.sensor.resumed
        time.sleep(0.1)
    seen.to_the_end()
    process.wait()
    assert [one[1] for one in seen.commands[1:]] == [f"run={number}" for number in range(4000)]
    assert set(seen.sensor.losses().values()) == {0}


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def test_two_agents_do_not_share_a_folder(opened: Open, bpffs: Path) -> None:
    opened()
    with pytest.raises(SensorError, match=f"another agent uses {bpffs}/exectrail"):
        opened()


def test_nothing_stays_after_unloading(opened: Open, bpffs: Path) -> None:
    opened().close(keep=False)
    assert list(bpffs.glob("exectrail*")) == []


def test_pins_of_an_agent_that_is_gone_are_removed(opened: Open, bpffs: Path) -> None:
    sensor = opened()
    folder = str(bpffs / "exectrail")
    with pytest.raises(SensorError, match="another agent"):
        pins.remove_pins(folder)
    sensor.close(keep=True)
    assert names(Path(folder)) == {"meta", *pins.MAPS, *pins.LINKS}
    pins.remove_pins(folder)
    assert not Path(folder).exists()
    pins.remove_pins(folder)


def test_without_a_bpf_file_system_it_runs_unpinned(opened: Open, tmp_path: Path) -> None:
    sensor = opened(folder=str(tmp_path / "plain"))
    assert sensor.pinned is False
    assert "is on no bpf file system" in sensor.notices[0]
    enter("/bin/true", "unpinned")
    assert last(sensor, "unpinned").entry
    sensor.close(keep=True)
    assert not (tmp_path / "plain").exists()


def test_a_read_only_bpf_file_system(opened: Open, bpffs: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", bpffs], check=True)
    sensor = opened()
    assert sensor.pinned is False
    assert "Read-only" in sensor.notices[0]


# ---- pins that are not as they should be ----


@pytest.fixture
def libbpf() -> Libbpf:
    return Libbpf()


def put(libbpf: Libbpf, path: Path, *, kind: int = 2, key: int = 4, value: int = 4) -> None:
    path.parent.mkdir(exist_ok=True)
    file = libbpf.create_map(kind, "other", key, value, 1)
    libbpf.pin(file, str(path))
    os.close(file)


@pytest.mark.parametrize("name", ["theirs", "tasks", "meta"])
def test_foreign_pins_are_refused_and_left(
    opened: Open, bpffs: Path, libbpf: Libbpf, name: str
) -> None:
    put(libbpf, bpffs / "exectrail" / name)
    with pytest.raises(SensorError, match=f"{bpffs}/exectrail holds"):
        opened()
    with pytest.raises(SensorError, match=f"{bpffs}/exectrail holds"):
        pins.remove_pins(str(bpffs / "exectrail"))
    assert names(bpffs / "exectrail") == {name}


@pytest.mark.parametrize("name", [*pins.MAPS, *pins.LINKS])
@pytest.mark.parametrize("how", ["missing", "another", "swapped"])
def test_broken_pins_of_ours_are_replaced(
    opened: Open, bpffs: Path, libbpf: Libbpf, name: str, how: str
) -> None:
    opened().close(keep=True)
    pin = bpffs / "exectrail" / name
    pin.unlink()
    if how == "another":
        put(libbpf, pin, value=8)
    elif how == "swapped":
        other = "on_exec" if name in pins.MAPS else "tasks"
        file = libbpf.pinned(str(bpffs / "exectrail" / other))
        libbpf.pin(file, str(pin))
        os.close(file)
    sensor = opened()
    assert sensor.resumed is False
    assert "earlier pins were replaced" in sensor.notices[0]
    enter("/bin/true", "anew")
    assert last(sensor, "anew").entry
    sensor.close(keep=True)
    assert opened().resumed


def test_pins_of_another_layout_are_replaced_and_what_waited_is_counted(
    opened: Open, bpffs: Path, libbpf: Libbpf
) -> None:
    opened().close(keep=True)
    file = libbpf.pinned(str(bpffs / "exectrail" / "meta"))
    libbpf.update(file, bytes(4), pins._META_VALUE.pack(pins._MAGIC, 99, 0))
    os.close(file)
    enter("/bin/true", "waits")
    sensor = opened()
    assert "layout 99" in sensor.notices[0]
    assert sensor.losses()["replaced"] >= 3
    sensor.close(keep=True)
    assert opened().resumed


def test_the_kernel_half_may_be_damaged(opened: Open, code: bytes) -> None:
    with pytest.raises(SensorError, match="kernel half"):
        opened(code=code[:1000])


def test_without_the_rights_it_says_which_are_needed(code: bytes, tmp_path: Path) -> None:
    kernel_half = tmp_path / "exec.bpf.o"
    kernel_half.write_bytes(code)
    script = f"""
        import sys
        sys.path.insert(0, {str(ROOT / "src")!r})
        from exectrail_agent.bpf.sensor import BpfSensor, SensorError
        try:
            BpfSensor(folder="/nowhere", code=open({str(kernel_half)!r}, "rb").read())
        except SensorError as error:
            print(error)
        """
    done = subprocess.run(
        ["unshare", "-U", "-r", sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "needs CAP_BPF" in done.stdout


def test_libbpf_may_be_missing() -> None:
    with pytest.raises(BpfError, match=r"libbpf 1\.0 or newer"):
        Libbpf("libbpf.so.nowhere")
