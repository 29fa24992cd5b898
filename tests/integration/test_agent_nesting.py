"""Containers that have a service manager, or containers of their own, in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exectrail_agent.bpf.sensor import BpfSensor
from lab.cluster.debian import node_root
from lab.errors import LabError
from tests.integration.agent_cases import Follower, commands
from tests.integration.test_agent_bpf import calm, code
from tests.integration.test_agent_containers import LIMITS, Podman, needs_podman, podman

__all__ = ["calm", "code", "podman"]
pytestmark = [
    needs_podman,
    pytest.mark.usefixtures("calm"),
    pytest.mark.skipif(
        not Path("/sys/kernel/btf/vmlinux").exists(), reason="needs a kernel with BTF"
    ),
]
NESTED = """
mkdir -p /var/in/usr /var/in/proc /var/in/sys /var/in/dev /var/in/etc /var/in/tmp /var/in/run
for each in bin lib lib64; do ln -s usr/$each /var/in/$each; done
exec podman --runtime runc --storage-driver vfs --cgroup-manager cgroupfs --events-backend file \
  run --rm --network none --cgroupns host -v /usr:/usr:ro -v /sys/fs/cgroup:/sys/fs/cgroup \
  --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --rootfs /var/in \
  /bin/sh -c '/bin/echo deep; :'
"""


@pytest.fixture
def sensor(code: bytes, tmp_path: Path) -> Iterator[BpfSensor]:
    made = BpfSensor(folder=str(tmp_path / "unpinned"), code=code)
    yield made
    made.close(keep=False)


@pytest.fixture
def machine(podman: Podman) -> Iterator[str]:
    """A name for a container that has systemd as its first process."""
    name = f"exectrail-test-{os.getpid()}-systemd"
    yield name
    podman("rm", "-f", "-i", "-t", "0", name)


def test_systemd_in_a_container(sensor: BpfSensor, podman: Podman, machine: str) -> None:
    try:
        root = node_root()
    except LabError as problem:
        pytest.skip(str(problem))
    watch = Follower(sensor, machine)
    options = ("--privileged", "--network", "none", "--cgroupns=private", "--pids-limit=-1")
    shape = ("--systemd=false", "--env", "container=podman", "--stop-signal=SIGRTMIN+3")
    podman(
        "run",
        "-d",
        "--name",
        machine,
        *options,
        *shape,
        *LIMITS,
        "--rootfs",
        f"{root}:O",
        "/sbin/init",
    )
    boots = ["podman", "exec", machine, "systemctl", "is-system-running", "--wait"]
    with subprocess.Popen(boots, stdout=subprocess.DEVNULL) as waiting:
        while waiting.poll() is None:
            watch.settle()
    watch.settle()
    # Nobody but us has entered, however many services were started in groups of their own.
    assert commands(watch.mine()) == ["systemctl is-system-running --wait"]

    script = "systemd-run --quiet --wait /bin/echo by-the-manager; /bin/echo by-hand; :"
    found = watch.session(["podman", "exec", machine, "/bin/sh", "-c", script])
    watch.settle()

    assert found[0]["entry.type"] == "runtime-exec"
    # What the manager starts is its own, also if somebody has asked it to.
    run = "systemd-run --quiet --wait /bin/echo by-the-manager"
    assert commands(found) == [f"/bin/sh -c {script}", run, "/bin/echo by-hand"]
    assert [each for each in watch.mine() if each["kind"] == "Kubernetes"][1:] == [found[0]]
    watch.index.close()


def test_a_container_in_a_container(sensor: BpfSensor, podman: Podman) -> None:
    name, _ = podman.create(
        "outer", "--privileged", "--cgroupns=private", "--tmpfs", "/var", "--tmpfs", "/run"
    )
    watch = Follower(sensor, name)
    podman("start", name)
    watch.settle()
    assert watch.mine() == []

    enter = ["podman", "--runtime", "runc", "exec", "--privileged", name]
    found = watch.session([*enter, "/bin/sh", "-c", NESTED])
    watch.settle()

    assert [each["kind"] for each in watch.mine()].count("Kubernetes") == 1
    told = commands(found)
    assert told[0].startswith("/bin/sh -c")
    # The inner one's first process, and what it runs, came of this session.
    assert "/bin/sh -c /bin/echo deep; :" in told
    assert "/bin/echo deep" in told
    watch.index.close()
