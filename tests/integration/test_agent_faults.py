"""The agent under what goes wrong: stopped, killed, blinded, asked too often, on a bad disk.

It runs in a pid namespace of its own, where nothing happens but what a test does: what is produced
there is known to the last exec.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from exectrail_agent.bpf.libbpf import Libbpf
from exectrail_agent.bpf.pins import remove_pins
from exectrail_agent.bpf.surroundings import choose_hierarchy, read_mounts
from tests.integration.test_agent_bpf import bpffs, storm, storm_program
from tests.integration.test_agent_loop import Service, archive
from tests.unit.agent.world import validator

__all__ = ["archive", "bpffs", "storm", "storm_program"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/sys/kernel/btf/vmlinux").exists(),
    reason="loads programs into the kernel: needs root and a kernel with BTF",
)

LONG = "/bin" + "/../bin" * 150 + "/true"
"""A long name of a short program: a few of its events fill the ring."""
LONGEST = "/bin" + "/../bin" * 580 + "/true"
"""Some thousand of its records are more than the agent keeps for a disk that takes none."""
SLOW = 1_000_000
"""Bytes a second that a slow disk takes."""
WRITE = 128 * 1024 / SLOW
"""Seconds for which the agent waits for it each time."""


@dataclass
class Node(Service):
    """An agent in a pid namespace, and a control group there that is named as a container's."""

    init: int = 0
    group: Path = Path()
    storm: str = ""
    before: Sequence[str] = ()

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.init), "-p", "-m", "--", *command]

    def command(self, *words: str) -> list[str]:
        return [*self.before, *self.inside(*super().command(*words))]

    def start(self, *options: str) -> subprocess.Popen[str]:
        before = self.status().get("pid"), self.status().get("started")
        process = subprocess.Popen(self.command("run", *options), stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        self.until(
            lambda: (
                (self.status().get("pid"), self.status().get("started")) != before
                and self.status().get("canary")
            )
        )
        return process

    @property
    def agent(self) -> int:
        """The agent's own pid: nsenter has started it."""
        nsenter = self.processes[-1].pid
        return int(Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text())

    def send(self, number: int) -> None:
        """Send a signal to the agent itself, without a program that would be seen."""
        os.kill(self.agent, number)
        if number == signal.SIGCONT:
            # It stops too when what it has started is stopped.
            self.processes[-1].send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        return self.processes[-1].wait(60)

    def produce(
        self, count: int, rate: int = 0, program: str = "/bin/true"
    ) -> subprocess.Popen[bytes]:
        """Come into the control group and run `count` programs; with the first it is one more."""
        script = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
        words = [self.storm, str(count), str(rate), program]
        command = self.inside("sh", "-c", script, str(self.group), *words)
        with (self.folder / "took").open("wb") as took:
            return subprocess.Popen(command, stdout=took)

    def workload(self, count: int, program: str = "/bin/true") -> subprocess.Popen[bytes]:
        """Prepare the same by a process that is in the control group already; a line begins it."""
        script = 'echo $$ > "$0/cgroup.procs" && echo there && read go && "$@"; exit'
        command = self.inside("sh", "-c", script, str(self.group), self.storm, str(count), "0")
        process = subprocess.Popen(
            [*command, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == b"there\n"
        return process

    def took(self) -> tuple[float, float]:
        """What the last programs took in seconds: the median and the 99th percentile."""
        _, _, median, most = map(float, (self.folder / "took").read_text().split())
        return median / 1e6, most / 1e6

    def accounted(self) -> tuple[int, int]:
        """Give how many execs of accesses are recorded, and how many known to be lost."""
        text = (self.log / "advaudit.log").read_bytes()
        collapsed, lost = (
            sum(map(int, re.findall(rb'"%s":(\d+)' % name, text)))
            for name in (b"throttle.count", b"loss.execs")
        )
        return text.count(b'"kind":"Command"') + collapsed, lost

    def has_saved_an_access(self) -> bool:
        """Whether an agent that comes after a crash would go on with it."""
        path = self.folder / "state/state.json"
        text = path.read_text() if path.exists() else ""
        return any(each["traceId"] in text for each in self.records() if "traceId" in each)

    def holds(self, produced: int, seconds: float = 60) -> tuple[int, int]:
        """Wait until all that was produced is accounted for, and no more than that."""
        self.until(lambda: sum(self.accounted()) >= produced, seconds)
        time.sleep(0.3)
        records = self.records()
        for record in records[:: len(records) // 100 + 1]:
            validator(record["kind"]).validate(record)
        assert [each["seq"] for each in records] == list(range(1, len(records) + 1))
        recorded, lost = self.accounted()
        assert recorded + lost == produced
        return recorded, lost


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of the log's own, which can be made to stand still or fail."""
    image, log = tmp_path / "disk", tmp_path / "log"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    log.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, log], check=True)
    yield log
    subprocess.run(["umount", "-l", log], check=False)


@dataclass
class Slow:
    """Can make a disk slow for what begins in a control group."""

    group: Path
    limit: Path
    text: str

    @property
    def begin(self) -> list[str]:
        """What to put before a command. Whose file it is, and is slow, is seen when it is made."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group / "cgroup.procs")]

    def down(self) -> None:
        self.limit.write_text(self.text)


@pytest.fixture
def slow(disk: Path) -> Iterator[Slow]:
    """Whoever writes to the disk waits until it is written, as long as that may take."""
    device = subprocess.check_output(["findmnt", "-no", "MAJ:MIN", disk], text=True).strip()
    subprocess.run(["mount", "-o", "remount,sync", disk], check=True)
    name, old = f"exectrail-slow-{os.getpid()}", Path("/sys/fs/cgroup/blkio")
    if old.exists():
        group = old / name
        made = Slow(group, group / "blkio.throttle.write_bps_device", f"{device} {SLOW}")
    else:
        group = old.parent / name
        made = Slow(group, group / "io.max", f"{device} wbps={SLOW}")
        (old.parent / "cgroup.subtree_control").write_text("+io +memory")
    group.mkdir()
    yield made
    group.rmdir()


class Watchdog:
    """Who hears that the agent works, as systemd would."""

    def __init__(self, address: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(address))
        self._heard = time.monotonic()
        self.longest = 0.0
        """Seconds for which nothing was heard."""

    def listen(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if self._socket.recv(4096) == b"WATCHDOG=1":
                    self._heard = time.monotonic()
        self.longest = max(self.longest, time.monotonic() - self._heard)


@pytest.fixture
def watchdog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdog]:
    """For an agent that must be heard of every two seconds."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    made = Watchdog(tmp_path / "notify")
    yield made
    made._socket.close()


@pytest.fixture
def node(archive: Path, bpffs: Path, disk: Path, tmp_path: Path, storm: str) -> Iterator[Node]:
    _, point = choose_hierarchy(read_mounts())
    group = Path(point, f"exectrail-faults-{os.getpid()}", f"{os.getpid():064x}")
    group.mkdir(parents=True)
    holder = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sleep", "600"],
        stderr=subprocess.DEVNULL,
    )
    try:
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        while not children.read_text():
            time.sleep(0.01)
        init = int(children.read_text())
        while Path(f"/proc/{init}/comm").read_text() != "sleep\n":
            time.sleep(0.01)
        made = Node(archive, tmp_path, bpffs / "exectrail", disk, [], init, group, storm)
        made.configure()
        text = made.conf.read_text().replace("size_mb = 1\n", "size_mb = 40\n")
        # Nobody will describe that container.
        made.conf.write_text(f"{text}[agent]\nhold_seconds = 0\n")
        yield made
    finally:
        # Its parent waits for it: who is left without one may stay a while.
        os.kill(init, signal.SIGKILL)
        holder.wait()
        for process in made.processes:
            process.kill()
            process.wait()
            if process.stderr:
                process.stderr.close()
        remove_pins(str(made.pins))
        group.rmdir()
        group.parent.rmdir()


def reasons(node: Node) -> str:
    return "; ".join(node.status().get("reasons", []))


# ---- produced = recorded + lost ----


def test_a_storm_is_accounted_for(node: Node) -> None:
    node.start()
    assert node.produce(2000).wait(60) == 0

    assert node.holds(2001) == (2001, 0)


def test_what_a_stopped_agent_could_not_take_is_counted(node: Node) -> None:
    """Stopped for as long as the storm takes; one of the stories stops it for a minute."""
    node.start()
    node.send(signal.SIGSTOP)
    assert node.produce(2000, program=LONG).wait(60) == 0
    node.send(signal.SIGCONT)

    _, lost = node.holds(2001)
    assert lost > 0
    (loss, *_) = [each for each in node.records() if each["kind"] == "Loss"]
    assert loss["loss.cause"].startswith("ring-full")
    assert loss["loss.fromBoot"] < loss["loss.toBoot"]
    node.until(lambda: "events were lost" in reasons(node))
    # The end of the session was lost too, and is found missing.
    node.until(lambda: node.status()["sessions"] == 0)
    assert [each["kind"] for each in node.records()].count("SessionEnd") == 1


def test_what_was_counted_is_not_counted_again_after_a_crash(node: Node) -> None:
    node.start()
    running = node.produce(4000, 2000, LONG)
    node.until(node.has_saved_an_access)
    node.send(signal.SIGSTOP)
    assert running.wait(60) == 0
    node.send(signal.SIGCONT)
    _, lost = node.holds(4001)
    assert lost > 0
    node.end(signal.SIGKILL)
    node.start()

    assert node.holds(4001)[1] == lost


def test_what_containers_run_by_themselves_is_accounted_for_too(node: Node) -> None:
    node.conf.write_text(f"{node.conf.read_text()}record = all\n")
    with node.workload(2000) as usual, node.workload(2000, LONG) as crowd:
        node.start()
        usual.communicate(b"go\n", 60)
        assert node.holds(2001) == (2001, 0)
        node.send(signal.SIGSTOP)
        crowd.communicate(b"go\n", 60)
        node.send(signal.SIGCONT)

    _, lost = node.holds(4002)
    assert lost > 0
    found = [each for each in node.records() if each["kind"] in {"Command", "Kubernetes"}]
    assert {each["container.id"] for each in found} == {node.group.name}
    # Nobody has entered anything.
    assert [each for each in found if each["kind"] != "Command" or "traceId" in each] == []


def test_what_a_killed_agent_had_is_counted_and_the_rest_is_told_by_the_next(node: Node) -> None:
    node.start()
    running = node.produce(3000, 2000)
    node.until(lambda: node.commands("run=1000"))
    node.until(node.has_saved_an_access)
    node.end(signal.SIGKILL)
    node.start()
    assert running.wait(60) == 0

    recorded, _ = node.holds(3001)
    assert recorded > 2000
    assert len({each["traceId"] for each in node.records() if "traceId" in each}) == 1


@pytest.mark.parametrize("hold", [0, 2])
def test_a_full_ring_of_what_is_long_in_records_takes_little_memory(node: Node, hold: int) -> None:
    """A control character takes six bytes in each of a record's two places for arguments."""
    text = node.conf.read_text().replace("ring_mb = 1\n", "ring_mb = 8\n")
    node.conf.write_text(text.replace("hold_seconds = 0\n", f"hold_seconds = {hold}\n"))
    node.start()
    script = """if True:
        import os, pathlib, subprocess, sys
        pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
    """
    many = """if True:
        import subprocess
        for number in range(100):
            subprocess.run(["/bin/true", str(number) + "\\1" * 32000], check=True)
    """
    node.send(signal.SIGSTOP)
    command = node.inside(sys.executable, "-c", script, str(node.group), many)
    subprocess.run(command, check=True)
    node.send(signal.SIGCONT)

    node.holds(101)
    status = Path(f"/proc/{node.agent}/status").read_text()
    (most,) = re.findall(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    # Of the 96 MB that the service may have.
    assert int(most) < 70_000


# ---- disks ----


def test_a_log_at_its_cap_removes_what_nobody_has_shipped_and_says_so(node: Node) -> None:
    text = node.conf.read_text().replace("size_mb = 40\n", "size_mb = 1\nmax_files = 2\n")
    node.conf.write_text(text)
    node.start()
    assert reasons(node) == ""
    assert node.produce(4000, program=LONG).wait(60) == 0

    node.until(lambda: "the log was at its cap" in reasons(node))
    assert node.ask("status").returncode == 1
    assert sum(each.stat().st_size for each in node.log.glob("advaudit.log*")) <= 2_100_000


def filled(disk: Path) -> Path:
    """Leave no room on a disk; give what takes it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def test_what_the_kernel_lost_while_a_disk_was_full_is_told_by_the_next(
    node: Node, disk: Path
) -> None:
    node.start()
    ballast = filled(disk)
    node.send(signal.SIGSTOP)
    assert node.produce(2000, program=LONG).wait(60) == 0
    node.send(signal.SIGCONT)
    node.until(lambda: "No space left on device" in reasons(node))
    assert node.end() == 0
    ballast.unlink()
    node.start()

    node.holds(2001)
    losses = [each["loss.cause"] for each in node.records() if each["kind"] == "Loss"]
    assert "ring-full" in losses


def test_a_full_disk(node: Node, disk: Path) -> None:
    node.conf.write_text(node.conf.read_text().replace("ring_mb = 1\n", "ring_mb = 16\n"))
    node.start()
    ballast = filled(disk)
    assert node.produce(1500, program=LONGEST).wait(60) == 0
    node.send(signal.SIGUSR1)
    node.until(lambda: "No space left on device" in reasons(node))
    ballast.unlink()

    _, lost = node.holds(1501)
    (loss,) = [each for each in node.records() if each["kind"] == "Loss"]
    assert (loss["loss.cause"], loss["loss.execs"]) == ("disk-full", lost)
    assert loss["loss.count"] >= lost > 0
    first = next(each for each in node.records() if each["kind"] == "Command")
    assert first["time.boot"] < loss["loss.fromBoot"] < loss["loss.toBoot"]


def test_a_disk_that_stands_still(node: Node, disk: Path) -> None:
    node.start()
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        assert node.produce(2000, program=LONG).wait(60) == 0
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)

    _, lost = node.holds(2001)
    assert lost > 0


def test_a_disk_that_fails(node: Node, disk: Path) -> None:
    """Its file system becomes read-only although the log is open."""
    node.start()
    device = subprocess.check_output(["findmnt", "-no", "SOURCE", disk], text=True).strip()
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("a test")
    assert node.produce(50).wait(60) == 0
    node.until(lambda: "read-only" in reasons(node).lower())
    assert node.end() == 0

    # Such a file system can only be mounted anew.
    image = node.folder / "disk"
    subprocess.run(["umount", disk], check=True)
    subprocess.run(node.inside("umount", str(disk)), check=True)
    subprocess.run(node.inside("mount", "-o", "loop", str(image), str(disk)), check=True)
    node.log = Path(f"/proc/{node.init}/root{disk}")
    node.start()
    _, lost = node.holds(51)
    assert lost == 51
    losses = [each["loss.cause"] for each in node.records() if each["kind"] == "Loss"]
    assert losses == ["read-only"]


def test_a_disk_that_is_slow(slow: Slow, watchdog: Watchdog, node: Node) -> None:
    """Nobody waits for it but the agent, and that can still be heard."""
    node.before = slow.begin
    node.start()
    assert node.produce(500, program=LONG).wait(60) == 0
    usual, _ = node.took()
    node.holds(501)
    slow.down()
    watchdog.longest = 0.0
    running = node.produce(2500, program=LONG)
    node.until(lambda: watchdog.listen() or running.poll() is not None, 60)
    node.until(lambda: watchdog.listen() or sum(node.accounted()) >= 3002, 60)

    _, lost = node.holds(3002)
    assert lost > 0
    assert watchdog.longest < 3
    median, most = node.took()
    assert median < 3 * usual
    assert most < WRITE
    node.until(lambda: "events were lost" in reasons(node))


# ---- proofs ----


def test_a_self_test_can_be_asked_for(node: Node) -> None:
    node.start()
    first = node.status()["canary"]
    node.send(signal.SIGUSR1)
    node.until(lambda: node.status()["canary"] > first)

    found = [one for one in node.records() if one.get("health.cause") == "canary"]
    assert len(found) == 2
    assert reasons(node) == ""


def test_asking_many_times_does_no_harm(node: Node) -> None:
    node.start()
    pid = node.status()["pid"]
    running = node.produce(1000, 1000)
    ask = f"for i in $(seq 500); do kill -USR1 {pid}; done; sleep 0.2; kill -USR1 {pid}"
    subprocess.run(node.inside("bash", "-c", ask), check=True)
    last = time.time()
    assert running.wait(60) == 0

    assert node.holds(1001) == (1001, 0)
    node.until(lambda: node.status()["written"] > last)
    assert (node.status()["pid"], reasons(node)) == (pid, "")
    asked = time.time()
    node.send(signal.SIGUSR1)
    node.until(lambda: node.status()["canary"] > asked)

    def left() -> list[str]:
        states = subprocess.check_output(node.inside("ps", "-eo", "ppid=,stat="), text=True)
        return [row for row in states.splitlines() if "Z" in row and row.split()[0] == str(pid)]

    node.until(lambda: left() == [])


def test_a_sensor_that_was_blinded_shows_at_once_when_asked(node: Node) -> None:
    node.start()
    libbpf = Libbpf()
    jump = libbpf.pinned(str(node.pins / "jump"))
    for index in range(3):
        with contextlib.suppress(OSError):
            libbpf.delete(jump, index.to_bytes(4, "little"))
    os.close(jump)
    node.send(signal.SIGUSR1)
    node.until(lambda: "the sensor is blind" in reasons(node))
    assert node.ask("status").returncode == 1

    # The next agent's programs take the place of those.
    node.end()
    node.start()
    assert node.ask("status").returncode == 0


def test_with_a_proc_of_other_processes_it_says_why_it_sees_less(node: Node) -> None:
    """What is mounted below its own is that of whoever has started the node."""
    subprocess.run(node.inside("umount", "/proc"), check=True)
    node.start()
    why = "/proc is of another pid namespace: containers can't be told"
    node.until(lambda: why in reasons(node))

    asked = node.ask("status")
    assert asked.returncode == 1
    assert f"because {why}" in asked.stdout
    (found,) = [each for each in node.records() if each.get("health.cause") == "state"]
    assert found["health.state"] == "degraded"
    assert why in found["health.detail"]


# ---- processes ----


def test_a_pid_that_comes_again_is_another_process(node: Node) -> None:
    node.start()
    last = "/proc/sys/kernel/ns_last_pid"
    session = f"echo 6999 >{last}; /bin/true ended; sleep 0.1; exit 0"
    script = 'echo $$ > "$0/cgroup.procs"; exec sh -c "$1"'
    subprocess.run(node.inside("sh", "-c", script, str(node.group), session), check=True)
    outside = f"echo 6999 >{last}; /bin/true outside; exit 0"
    subprocess.run(node.inside("sh", "-c", outside), check=True)
    subprocess.run(node.inside("sh", "-c", script, str(node.group), session), check=True)
    node.until(lambda: len(node.commands("ended")) == 2)

    first, second = node.commands("ended")
    assert (first["process.pid"], second["process.pid"]) == (7000, 7000)
    assert first["traceId"] != second["traceId"]
    assert node.commands("outside") == []


def test_who_came_into_a_container_that_nobody_describes(node: Node) -> None:
    node.start()
    script = """if True:
        import os, pathlib, sys
        pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
        pathlib.Path("/proc/self/loginuid").write_text("1234")
        print(pathlib.Path("/proc/self/sessionid").read_text(), flush=True)
        os.setgid(1002)
        os.setuid(1001)
        os.execv("/bin/true", ["true"])
    """
    enter = node.inside(sys.executable, "-c", script, str(node.group))
    login = int(subprocess.check_output(enter))
    node.until(lambda: "SessionEnd" in {each["kind"] for each in node.records()})

    access, command, end = (
        next(each for each in node.records() if each["kind"] == kind)
        for kind in ("Kubernetes", "Command", "SessionEnd")
    )
    assert (access["loginuid"], access["auditSession"]) == (1234, login)
    for record in (access, command):
        assert (record["process.user.uid"], record["process.user.gid"]) == (1001, 1002)
    for record in (access, command, end):
        assert record["container.unresolved"] is True
        assert record["container.id"] == node.group.name
        assert [name for name in record if name.startswith("k8s")] == []
