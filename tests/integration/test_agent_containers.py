"""The container index beside real runtimes: Podman on this machine, containerd in a cluster's node.

What CRI-O writes is a fixture of the unit tests.
"""

from __future__ import annotations

import io
import json
import os
import queue
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.containers.model import Container
from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node
from lab.cluster.lifecycle import cluster
from lab.errors import LabError
from tests.unit.agent.containers import tree

SOURCE = Path(__file__).parents[2] / "src/exectrail_agent"
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
needs_podman = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("podman") or not shutil.which("runc"),
    reason="needs root, podman and runc",
)


class Podman:
    """Containers without an image, which go with the test."""

    def __init__(self, root: Path) -> None:
        for folder in ("usr", "proc", "sys", "dev", "etc", "tmp", "run"):
            (root / folder).mkdir(parents=True)
        for folder in ("bin", "lib", "lib64"):
            (root / folder).symlink_to(f"usr/{folder}")
        self._root = root
        self._names: list[str] = []

    def __call__(self, *arguments: str) -> str:
        command = ["podman", "--runtime", "runc", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def create(self, name: str, *options: str, runs: str = "sleep 600") -> tuple[str, str]:
        """Return name and id."""
        full = f"exectrail-test-{os.getpid()}-{name}"
        self._names.append(full)
        places = ["-v", "/usr:/usr:ro", "--rootfs", str(self._root)]
        made = ["create", "--name", full, "--network", "none", *LIMITS, *options, *places]
        return full, self(*made, "/bin/sh", "-c", f"exec {runs}")

    def close(self) -> None:
        for name in reversed(self._names):
            subprocess.run(
                ["podman", "rm", "-f", "-i", "-t", "0", name], capture_output=True, check=False
            )


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    made = Podman(tmp_path / "root")
    yield made
    made.close()


@pytest.fixture
def index() -> Iterator[ContainerIndex]:
    made = ContainerIndex()
    yield made
    made.close()


def find(index: ContainerIndex, identity: str) -> Container | None:
    index.refresh()
    return next((one for one in index.all() if one.id == identity), None)


def groups(pid: int) -> set[bytes]:
    lines = Path(f"/proc/{pid}/cgroup").read_bytes().splitlines()
    return {line.split(b":", 2)[2] for line in lines} - {b"/"}


def namespaces(pid: int) -> tuple[int, int]:
    mount, own = (Path(f"/proc/{pid}/ns/{kind}").stat().st_ino for kind in ("mnt", "pid"))
    return mount, own


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_is_mounted_over_a_folder_that_is_watched_is_found_by_who_asks(
    tmp_path: Path,
) -> None:
    """As a user's folder in /run may be, at the moment at which it is seen. Its files are made."""
    node = tree.Node(tmp_path)
    run = tmp_path / "run"
    index = ContainerIndex(str(tmp_path))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", run], check=True)
    try:
        node.process(50, 1050, 2050, tree.group(tree.A))
        node.containerd(tree.A, tree.config(tree.group(tree.A), tree.cri("main")), 50)
        index.refresh()
        assert index.all() == []
        wait(lambda: index.by_cgroup(tree.group(tree.A).encode()) is not None)
        assert [one.id for one in index.all()] == [tree.A]
    finally:
        index.close()
        subprocess.run(["umount", run], check=True)


@needs_podman
class TestPodman:
    def test_a_container_is_complete_before_its_first_exec(
        self, podman: Podman, index: ContainerIndex
    ) -> None:
        name, identity = podman.create("early", "-t")
        podman("init", name)
        found = find(index, identity)
        assert found
        # The runtime's own stage still waits in the container: nothing has been executed there.
        assert b"init" in Path(f"/proc/{found.init_pid}/cmdline").read_bytes()
        assert (found.runtime, found.name, found.interactive) == ("podman", name, True)
        assert (found.mount_namespace, found.pid_namespace) == namespaces(found.init_pid)
        assert found.shares_pids is False
        podman("start", name)
        assert find(index, identity) == found
        wait(lambda: b"sleep" in Path(f"/proc/{found.init_pid}/cmdline").read_bytes())

    def test_who_comes_in_is_found_in_every_hierarchy(
        self, podman: Podman, index: ContainerIndex
    ) -> None:
        name, identity = podman.create("entered")
        podman("start", name)
        podman("exec", "-d", name, "/usr/bin/sleep", "601")
        wait(lambda: len(podman("top", name, "hpid").split()) == 3)
        processes = podman("top", name, "hpid").split()[1:]
        for pid in map(int, processes):
            for group in groups(pid):
                found = index.by_cgroup(group)
                assert found
                assert found.id == identity
        assert all(index.looks_contained(group) == identity for group in groups(int(processes[0])))

    def test_nsenter_is_found_by_its_namespaces(
        self, podman: Podman, index: ContainerIndex
    ) -> None:
        name, identity = podman.create("nsenter")
        podman("start", name)
        container = find(index, identity)
        assert container
        target = str(container.init_pid)
        command = ["nsenter", "-t", target, "-m", "-F", "/usr/bin/sleep", "602"]
        with subprocess.Popen(command) as entered:
            try:
                wait(lambda: namespaces(entered.pid)[0] == container.mount_namespace)
                assert not any(index.by_cgroup(group) for group in groups(entered.pid))
                assert index.by_namespaces(*namespaces(entered.pid)) == container
            finally:
                entered.kill()

    def test_a_stopped_container_has_no_namespaces_and_a_restarted_one_new_ones(
        self, podman: Podman, index: ContainerIndex
    ) -> None:
        name, identity = podman.create("again")
        podman("start", name)
        first = find(index, identity)
        assert first
        podman("stop", "-t", "0", name)
        assert index.by_namespaces(first.mount_namespace, first.pid_namespace) is None
        podman("start", name)
        second = find(index, identity)
        assert second
        assert second.init_pid != first.init_pid
        assert index.by_namespaces(*namespaces(second.init_pid)) == second

    def test_a_removed_container_is_kept_for_the_grace_time(
        self, podman: Podman, index: ContainerIndex
    ) -> None:
        name, identity = podman.create("gone")
        podman("start", name)
        found = find(index, identity)
        assert found
        podman("rm", "-f", "-t", "0", name)
        assert find(index, identity) is None
        path = found.cgroup.encode()
        index.expire(0)
        assert index.by_cgroup(path) == found
        index.expire(61)
        assert index.by_cgroup(path) is None

    def test_shared_pid_namespaces_are_nobodys(self, podman: Podman, index: ContainerIndex) -> None:
        owner, first = podman.create("owner")
        podman("start", owner)
        guest, second = podman.create("guest", "--pid", f"container:{owner}")
        podman("start", guest)
        hosted, third = podman.create("hosted", "--pid", "host")
        podman("start", hosted)
        found = [find(index, identity) for identity in (first, second, third)]
        assert [one and one.shares_pids for one in found] == [False, True, True]
        for one in found:
            assert one
            assert index.by_namespaces(0, one.pid_namespace) is None
            assert index.by_namespaces(one.mount_namespace, one.pid_namespace) == one


# Makes the runtime wait before it lets a container's first program go, so that the test shows an
# order and not who is faster.
RUNC = """#!/bin/sh
case " $* " in *" start "*) sleep 3;; esac
exec /usr/sbin/runc.real "$@"
"""
# Runs on a node: prints a line for each container whenever what is known of it changes, with
# whether its first process was still the runtime's own then.
RECORDER = """
import json, select, socket, sys, time
from dataclasses import asdict
from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.containers.kubelet import KubeletPods, api_server

pods = KubeletPods(api_server(socket.gethostname()))
index = ContainerIndex(pods=pods)
known = {}


def waiting(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(bytes(1))[1:2] == [b"init"]
    except OSError:
        return False


while True:
    now = time.monotonic()
    ready, _, _ = select.select([index, sys.stdin], [], [], min(pods.wait(now), 1))
    if sys.stdin in ready:
        break
    index.refresh()
    pods.poll(time.monotonic())
    for one in index.all():
        if known.get(one.id) != one:
            known[one.id] = one
            print(json.dumps([{**asdict(one), "waiting": waiting(one.init_pid)}, {}]), flush=True)
    if index.problems:
        print(json.dumps([{}, dict(index.problems)]), flush=True)
"""


class Recorder:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._seen: list[dict[str, Any]] = []
        assert process.stdout
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._lines.put(line)

    def first(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return what was known of a container when it first was as `wanted`."""
        end = time.monotonic() + 60
        place = 0
        while True:
            for one in self._seen[place:]:
                if wanted(one):
                    return one
            place = len(self._seen)
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                pytest.fail("the index never knew it")
            one, problems = json.loads(line)
            assert problems == {}
            self._seen.append(one)

    def complete(self, name: str, pod: str, **more: Any) -> dict[str, Any]:
        """Return a pod's container when it was first known with its process, and all of `more`."""
        return self.first(
            lambda one: (
                one["name"] == name
                and one["pod"]
                and one["pod"]["name"] == pod
                and one["init_pid"]
                and all(one[key] == value for key, value in more.items())
            )
        )


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with cluster("test-containers", masters=1, workers=0) as one:
        yield one


@pytest.fixture(scope="module")
def node(made: Cluster) -> Node:
    (node,) = made.masters
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(SOURCE, "exectrail_agent")
        script = RECORDER.encode()
        info = tarfile.TarInfo("recorder.py")
        info.size = len(script)
        archive.addfile(info, io.BytesIO(script))
    unpack = ["mkdir -p /opt/agent && tar -C /opt/agent -xf -"]
    subprocess.run(made.ssh_command(node, unpack), input=packed.getvalue(), check=True)
    return node


@pytest.fixture
def recorder(made: Cluster, node: Node) -> Iterator[Recorder]:
    command = made.ssh_command(node, ["python3 /opt/agent/recorder.py"])
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    ) as process:
        assert process.stdin
        yield Recorder(process)
        process.stdin.close()


SLEEP = ["/bin/sleep", "600"]


def pod(made: Cluster, name: str, **spec: Any) -> None:
    main = {"name": "main", "image": "exectrail.lab/busybox:lab", "imagePullPolicy": "Never"}
    default = {"containers": [{**main, "command": SLEEP}], "nodeName": made.masters[0].name}
    spec = {**default, "terminationGracePeriodSeconds": 0, **spec}
    document = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": spec,
    }
    kubectl(made, "apply", "-f", "-", stdin=json.dumps(document).encode())


def container(name: str, **more: Any) -> dict[str, Any]:
    image = {"image": "exectrail.lab/busybox:lab", "imagePullPolicy": "Never"}
    return {"name": name, "command": SLEEP, **image, **more}


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except (OSError, LabError):
            pass
        time.sleep(0.1)
    pytest.fail("waited in vain")


@pytest.fixture
def patient(made: Cluster, node: Node) -> Iterator[None]:
    """A runtime that waits before a container's first program."""

    def run(command: str) -> None:
        subprocess.run(made.ssh_command(node, [command]), input=RUNC.encode(), check=True)

    runc = "/usr/sbin/runc"
    run(f"mv {runc} {runc}.real && cat > {runc} && chmod 755 {runc}")
    yield
    run(f"mv {runc}.real {runc}")


class TestContainerd:
    def test_every_container_is_complete_before_its_first_exec(
        self, made: Cluster, recorder: Recorder, patient: None
    ) -> None:
        assert patient is None
        pod(
            made,
            "early",
            initContainers=[container("prepare", command=["/bin/true"])],
            containers=[container("main"), container("side", stdin=True, tty=True)],
        )
        kinds = {"POD": "sandbox", "prepare": "init", "main": "container", "side": "container"}
        for name, kind in kinds.items():
            one = recorder.complete(name, "early", kind=kind)
            assert one["waiting"]
            assert one["interactive"] is (name == "side")
            assert one["runtime"] == "containerd"
            assert one["image"] == ("" if name == "POD" else "exectrail.lab/busybox:lab")
            assert one["pod"]["namespace"] == "default"

    def test_labels_and_probes_come_with_the_nodes_own_credentials(
        self, made: Cluster, recorder: Recorder
    ) -> None:
        probe = {"exec": {"command": ["/bin/true", "a b"]}}
        hooks = {"postStart": {"exec": {"command": ["/bin/true"]}}}
        pod(made, "probed", containers=[container("main", livenessProbe=probe, lifecycle=hooks)])
        one = recorder.first(
            lambda one: one["name"] == "main" and one["pod"]["labels"] == {"app": "probed"}
        )
        assert one["probes"] == [
            {"kind": "liveness", "command": ["/bin/true", "a b"]},
            {"kind": "postStart", "command": ["/bin/true"]},
        ]

    def test_an_ephemeral_container_is_told_from_the_pods_specification(
        self, made: Cluster, recorder: Recorder, patient: None
    ) -> None:
        assert patient is None
        pod(made, "debugged")
        recorder.complete("main", "debugged")
        image = ["--image=exectrail.lab/busybox:lab", "--image-pull-policy=Never"]
        kubectl(made, "debug", "debugged", *image, "-c", "look", "--", *SLEEP)
        one = recorder.complete("look", "debugged", kind="ephemeral")
        assert one["waiting"]
        assert one["shares_pids"] is False

    @pytest.mark.parametrize("option", ["shareProcessNamespace", "hostPID"])
    def test_shared_pids(self, made: Cluster, recorder: Recorder, option: str) -> None:
        name = option.lower()
        pod(made, name, **{option: True})
        one = recorder.complete("main", name)
        assert one["shares_pids"] is True

    def test_a_container_without_a_pod(self, made: Cluster, node: Node, recorder: Recorder) -> None:
        start = (
            "ctr -n k8s.io image export /tmp/image.tar exectrail.lab/busybox:lab &&"
            " ctr image import --no-unpack /tmp/image.tar &&"
            " ctr run -d exectrail.lab/busybox:lab my-own sleep 600"
        )
        subprocess.run(made.ssh_command(node, [start]), check=True, capture_output=True)
        try:
            one = recorder.first(lambda one: one["id"] == "my-own" and one["init_pid"])
            assert (one["pod"], one["cgroup"]) == (None, "/default/my-own")
        finally:
            end = "ctr task kill -s KILL my-own; sleep 1; ctr container rm my-own"
            subprocess.run(made.ssh_command(node, [end]), check=False, capture_output=True)
