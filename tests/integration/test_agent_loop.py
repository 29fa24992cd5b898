"""The agent as a whole on this machine's kernel: the zipapp with a configuration of its own.

Other people's containers run here meanwhile, so the tests look at their own alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exectrail_agent.bpf.surroundings import CONTROLLERS, choose_hierarchy, read_mounts
from tests.integration.test_agent_bpf import bpffs, calm
from tests.integration.test_agent_containers import Podman, needs_podman, podman

ROOT = Path(__file__).parents[2]
__all__ = ["bpffs", "calm", "podman"]
pytestmark = [
    needs_podman,
    pytest.mark.usefixtures("calm"),
    pytest.mark.skipif(
        not Path("/sys/kernel/btf/vmlinux").exists(), reason="needs a kernel with BTF"
    ),
]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("build") / "exectrail-agent.pyz"
    build = [sys.executable, str(ROOT / "packaging/agent.py"), "-o", str(path)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr)
    return path


@dataclass
class Service:
    """An agent, started and restarted by hand."""

    archive: Path
    folder: Path
    pins: Path
    log: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        return self.folder / "agent.conf"

    def configure(self, **more: str) -> None:
        places = f"runtime = {self.folder}/run\nstate = {self.folder}/state\n"
        self.conf.write_text(
            f"[bpf]\npins = {self.pins}\nring_mb = 1\n[paths]\n{places}"
            f"[kubernetes]\npods = off\n[log]\nfolder = {self.log}\nmax_size_mb = 1\n"
            f"[health]\ncanary_seconds = {more.get('canary_seconds', '300')}\n"
        )

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-I", str(self.archive), *words, "--config", str(self.conf)]

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=120
        )

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(self.command("run", *options), stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        self.until(lambda: self.status().get("pid") == process.pid and self.status()["canary"])
        return process

    def end(self, number: int = signal.SIGTERM) -> int:
        self.processes[-1].send_signal(number)
        return self.processes[-1].wait(60)

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.folder / "run/status.json").read_text())
            return found
        return {}

    def is_well(self) -> bool:
        """Whether it has nothing to complain of but what root of this machine may not do either."""
        asked = self.ask("status")
        reasons = self.status()["reasons"]
        others = [reason for reason in reasons if not reason.startswith("processes: ")]
        return asked.returncode == bool(reasons) and not others

    def records(self) -> list[dict[str, Any]]:
        # What follows the last line is just being written, or about to be taken back.
        whole, _, _ = (self.log / "advaudit.log").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def of(self, container: str, kind: str) -> list[dict[str, Any]]:
        """The records of a kind that name a container."""
        named = [one for one in self.records() if one.get("container.name") == container]
        return [one for one in named if one["kind"] == kind]

    def commands(self, word: str) -> list[dict[str, Any]]:
        """What was run with a word among its arguments."""
        return [
            record
            for record in self.records()
            if record["kind"] == "Command" and word in record["process.args"]
        ]

    def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            died = [one for one in self.processes[-1:] if one.poll() is not None]
            assert not died, died[0].stderr and died[0].stderr.read()
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.05)


@pytest.fixture
def service(archive: Path, bpffs: Path, tmp_path: Path) -> Iterator[Service]:
    made = Service(archive, tmp_path, bpffs / "exectrail", tmp_path / "log")
    made.configure()
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
    made.ask("unpin")


@pytest.fixture
def container(podman: Podman) -> str:
    name, _ = podman.create("loop")
    podman("start", name)
    return name


def enter(podman: Podman, container: str, word: str) -> None:
    podman("exec", container, "/usr/bin/true", word)


def test_a_session_is_recorded_and_shown(service: Service, podman: Podman, container: str) -> None:
    service.start()
    enter(podman, container, "first")
    service.until(lambda: service.commands("first"))

    (access,) = service.of(container, "Kubernetes")
    assert access["traceId"] == service.commands("first")[0]["traceId"]
    assert "/usr/bin/true first" in service.ask("tail", "--tree").stdout
    assert service.is_well()
    assert service.end() == 0
    assert service.ask("status").returncode == 2


def test_a_session_from_before_the_agent_is_followed(service: Service, podman: Podman) -> None:
    """And a container that is busy by itself is not taken for one."""
    busy = "sh -c 'while :; do /usr/bin/true of-its-own; /usr/bin/sleep 0.1; done'"
    container, _ = podman.create("busy", runs=busy)
    podman("start", container)
    shell = ["podman", "--runtime", "runc", "exec", "-i", container, "sh"]
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as entered:
        assert entered.stdin
        assert entered.stdout
        print("/usr/bin/sleep 600 & echo begun", file=entered.stdin, flush=True)
        assert entered.stdout.readline() == "begun\n"
        service.start()
        print("/usr/bin/true remembered; kill $!", file=entered.stdin, flush=True)
        entered.stdin.close()
    service.until(lambda: service.of(container, "SessionEnd"))

    (access,), (end,) = (service.of(container, kind) for kind in ("Kubernetes", "SessionEnd"))
    (command,) = service.commands("remembered")
    assert (access["recovered"], end["recovered"]) == (True, True)
    assert access["traceId"] == command["traceId"] == end["traceId"]
    assert service.commands("of-its-own") == []
    assert service.is_well()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_happens_while_it_is_away_is_recorded(
    service: Service, podman: Podman, container: str, number: int
) -> None:
    service.start()
    enter(podman, container, "before")
    service.until(lambda: service.commands("before"))
    service.end(number)
    enter(podman, container, "meanwhile")
    service.start()
    enter(podman, container, "after")
    service.until(lambda: service.commands("after"))

    for word in ("before", "meanwhile", "after"):
        assert len(service.commands(word)) == 1, word
    numbers = [record["seq"] for record in service.records()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert service.status()["restarts"] == 1


def test_run_unpin_and_unpin_leave_nothing(service: Service) -> None:
    service.start("--unpin")
    assert service.pins.exists()
    service.end()
    assert not service.pins.exists()
    service.start()
    assert service.ask("unpin").returncode == 69
    service.end()
    (notice,) = [one for one in service.records() if one.get("health.cause") == "unwatched"]
    assert re.search(r"nobody watched for \d+\.\d s at most", notice["health.detail"])
    assert service.pins.exists()
    assert service.ask("unpin").returncode == 0
    assert not service.pins.exists()


def test_a_self_test_beside_it_disturbs_nothing(service: Service) -> None:
    service.start()
    beside = service.ask("self-test")

    assert beside.returncode == 0, beside.stderr
    assert beside.stdout.startswith("bpf: a program of our own was seen after")
    assert not list(service.pins.parent.glob("*self-test*"))
    assert service.is_well()


def test_a_second_agent_is_refused(service: Service) -> None:
    service.start()
    second = service.ask("run")

    assert second.returncode == 69
    assert "another agent" in second.stderr
    assert service.is_well()


@pytest.fixture
def groups() -> Iterator[tuple[Path, Path, Path]]:
    """A control group for an agent, and one named as a container's below and one beside it."""
    _, point = choose_hierarchy(read_mounts())
    own = Path(point, f"exectrail-loop-{os.getpid()}")
    beside = own.with_name(f"{own.name}-beside")
    made = own / f"{1:064x}", beside / f"{2:064x}"
    try:
        for group in made:
            group.mkdir(parents=True)
        yield own, *made
    finally:
        for group in (*made, own, beside):
            group.rmdir()


@dataclass
class Below(Service):
    """An agent that has its own control group as the root of all, and shares the pid namespace."""

    group: Path = Path()

    def command(self, *words: str) -> list[str]:
        index, point = choose_hierarchy(read_mounts())
        kind = f"cgroup -o {CONTROLLERS[index]}" if index else "cgroup2"
        join = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.group)]
        mount = f'umount -l {point} && mount -t {kind} none {point} && exec "$0" "$@"'
        return [*join, "unshare", "-C", "-m", "sh", "-c", mount, *super().command(*words)]


def test_what_is_not_below_its_own_root_is_not_told(
    groups: tuple[Path, Path, Path], service: Service
) -> None:
    own, below, beside = groups
    service.conf.write_text(f"{service.conf.read_text()}[agent]\nhold_seconds = 0\n")
    agent = Below(**vars(service), group=own)
    try:
        agent.start()
        for group in (beside, below):
            script = 'echo $$ > "$0/cgroup.procs"; exec /bin/true "$0"'
            subprocess.run(["sh", "-c", script, group], check=True)
        agent.until(lambda: agent.commands(str(below)))
        assert agent.status()["notes"] == []
    finally:
        agent.end()

    assert agent.commands(str(beside)) == []
    # Since it sees all processes, it finds who is in other tests' containers when it starts.
    mine = [record for record in agent.records() if not record.get("recovered")]
    entered = [record for record in mine if record["kind"] == "Kubernetes"]
    assert [record["container.id"] for record in entered] == [below.name]


def test_a_full_disk_degrades_it_until_there_is_room(
    service: Service, podman: Podman, container: str
) -> None:
    service.log.mkdir()
    size = ["-o", "size=8m,mode=0700"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "exectrail-test", service.log], check=True)
    try:
        service.start()
        filler = service.log / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for number in range(12):
            enter(podman, container, f"full-{number}")
        service.until(lambda: not service.is_well())
        degraded = service.ask("status")
        filler.unlink()
        service.until(lambda: service.commands("full-11"))
        service.end()
    finally:
        subprocess.run(["umount", "-l", service.log], check=True)

    assert degraded.returncode == 1
    assert "No space left on device" in degraded.stdout


def test_self_tests_are_repeated(service: Service) -> None:
    service.configure(canary_seconds="5")
    service.start()
    first = service.status()["canary"]
    service.until(lambda: service.status()["canary"] > first)

    found = [one for one in service.records() if one.get("health.cause") == "canary"]
    assert len(found) >= 2
