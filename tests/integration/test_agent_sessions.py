"""Accesses to a real container, by the bpf sensor, the container index and the tracker together."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exectrail_agent.bpf.sensor import BpfSensor
from exectrail_agent.clock import Clock
from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.records import Record
from exectrail_agent.sessions.narrator import Outcome
from exectrail_agent.sessions.tracker import SessionTracker
from tests.integration.test_agent_bpf import bpffs, code
from tests.integration.test_agent_containers import Podman, needs_podman, podman
from tests.unit.agent.world import NODE, check

__all__ = ["bpffs", "code", "podman"]
pytestmark = [
    needs_podman,
    pytest.mark.skipif(
        not Path("/sys/kernel/btf/vmlinux").exists(), reason="needs a kernel with BTF"
    ),
]
SECONDS = 30


@dataclass
class Watch:
    """Follows one container's sessions; others on this machine are passed over."""

    sensor: BpfSensor
    tracker: SessionTracker
    index: ContainerIndex
    name: str
    records: list[Record] = field(default_factory=list)

    def _follow(self, outcome: Outcome) -> None:
        self.records += outcome.records
        for number in outcome.drops:
            self.sensor.drop(number)

    def take(self) -> None:
        events = self.sensor.read()
        self.index.refresh()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        for event in events:
            self._follow(self.tracker.handle(event, now))
        self._follow(self.tracker.tick(now))

    def mine(self) -> list[dict[str, Any]]:
        found = check(self.records)
        traces = {
            record["traceId"]
            for record in found
            if record["kind"] == "Kubernetes" and record.get("container.name") == self.name
        }
        return [record for record in found if record.get("traceId") in traces]

    def session(self, *command: str) -> list[dict[str, Any]]:
        """Run a command, and return the records of the one session that it made."""
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as running:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                self.take()
                found = self.mine()
                if running.poll() is not None and "SessionEnd" in [one["kind"] for one in found]:
                    return found
                time.sleep(0.02)
            running.kill()
        raise AssertionError(f"no session ended within {SECONDS} s: {self.mine()}")


@pytest.fixture
def watch(podman: Podman, code: bytes, bpffs: Path) -> Iterator[Watch]:
    index = ContainerIndex()
    sensor = BpfSensor(folder=f"{bpffs}/exectrail", code=code)
    tracker = SessionTracker(NODE, index, IdSource(), Clock())
    name, _ = podman.create("sessions")
    found = Watch(sensor, tracker, index, name)
    try:
        podman("start", name)
        for _ in range(20):
            found.take()
            time.sleep(0.02)
        yield found
    finally:
        sensor.close(keep=False)
        index.close()


def commands(records: list[dict[str, Any]]) -> list[str]:
    return [record["process.cmdline"] for record in records if record["kind"] == "Command"]


def test_starting_a_container_is_no_access(watch: Watch) -> None:
    assert watch.mine() == []


def test_an_exec_through_the_runtime(watch: Watch) -> None:
    script = "id; (true; /bin/false); unshare -m /bin/echo hi; setsid /bin/sleep 0.2 & exit 3"
    options = ("--runtime", "runc", "exec", "--privileged")

    found = watch.session("podman", *options, watch.name, "/bin/sh", "-c", script)

    assert found[0]["entry.type"] == "runtime-exec"
    assert sorted(commands(found)) == sorted(
        [
            f"/bin/sh -c {script}",
            "id",
            "/bin/false",
            "unshare -m /bin/echo hi",
            "/bin/echo hi",
            "setsid /bin/sleep 0.2",
            "/bin/sleep 0.2",
        ]
    )
    assert len({record["traceId"] for record in found}) == 1
    codes = {
        record["process.name"]: record["exit.code"]
        for record in found
        if record["kind"] == "CommandExit"
    }
    assert (codes["sh"], codes["false"]) == (3, 1)
    assert not any("process.unseen" in record for record in found)


def test_an_exec_with_a_terminal(watch: Watch) -> None:
    found = watch.session("podman", "--runtime", "runc", "exec", "-t", watch.name, "/bin/ls", "/")

    assert found[0]["entry.tty"] is True
    assert found[1]["process.tty"].startswith("pts/")


@pytest.mark.parametrize("options", [["-m"], ["-m", "-p"], ["-m", "-F"], ["-a"]], ids=" ".join)
def test_nsenter_from_the_host(watch: Watch, options: list[str]) -> None:
    (container,) = [one for one in watch.index.all() if one.name == watch.name]

    found = watch.session("nsenter", "-t", str(container.init_pid), *options, "/bin/ls", "/")

    assert found[0]["entry.type"] == "nsenter"
    assert commands(found) == ["/bin/ls /"]


def test_a_flood_is_counted_whole(watch: Watch) -> None:
    script = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done"

    found = watch.session(
        "podman", "--runtime", "runc", "exec", watch.name, "/bin/sh", "-c", script
    )

    counted = sum(record.get("throttle.count", 0) for record in found)
    assert counted > 0
    assert len(commands(found)) + counted == found[-1]["session.commands"] == 201
