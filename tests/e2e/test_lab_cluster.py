"""Clusters of the lab as their users see them: through ssh, kubectl and an inventory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cluster import layout, podman
from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node, identity
from lab.cluster.lifecycle import cluster, down
from lab.cluster.template import FILES
from lab.images import recipes

ROOT = Path(__file__).parents[2]
KERNEL_SETTINGS = [
    Path("/proc/sys") / line.split()[0]
    for line in (FILES / "lab-tunables").read_text().splitlines()
]
FOUND = [file.read_text() for file in KERNEL_SETTINGS]


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    with cluster("test-pair") as made:
        yield made


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", "cluster", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def on(made: Cluster, node: Node, *command: str) -> str:
    return subprocess.run(
        made.ssh_command(node, command), capture_output=True, text=True, check=True
    ).stdout


def ready_nodes(made: Cluster) -> set[str]:
    nodes = json.loads(kubectl(made, "get", "nodes", "--output=json"))["items"]
    return {
        node["metadata"]["name"]
        for node in nodes
        for condition in node["status"]["conditions"]
        if condition["type"] == "Ready" and condition["status"] == "True"
    }


def left_of(name: str) -> list[str]:
    """What a cluster has on the host: containers, networks, files, mounts, processes."""
    mark = identity(name)
    ids = [one.id for one in podman.containers() if one.cluster == mark]
    folder = str(layout.clusters_folder() / name)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [f"container {one}" for one in ids]
    found += [f"network {one}" for one, owner in podman.networks().items() if owner == mark]
    found += [f"mount {line}" for line in mounts if folder in line]
    found += [f"folder {folder}"] if Path(folder).exists() else []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes()
        except OSError:
            continue
        if mark.encode() in arguments or folder.encode() in arguments:
            found.append(f"process {arguments!r}")
    return found


def test_nodes_are_ready_and_told_apart(pair: Cluster) -> None:
    assert ready_nodes(pair) == {"test-pair-master-1", "test-pair-worker-1"}
    for node in pair.machines:
        assert on(pair, node, "hostname").strip() == node.name
        assert on(pair, node, "systemctl", "is-system-running").strip() == "running"
    ids = {on(pair, node, "cat", "/etc/machine-id") for node in pair.machines}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("image", "command", "says"),
    [
        (recipes.BUSYBOX, ["sh", "-c", "busybox | head -1"], "BusyBox"),
        (recipes.TOOLS, ["bash", "-c", "echo ${BASH_VERSION%%.*}; ps 1"], "5\n"),
        (recipes.STATIC, ["/static", "--version"], "tini"),
    ],
)
def test_workload_images_run_and_can_be_entered(
    pair: Cluster, image: str, command: list[str], says: str
) -> None:
    name = image.removeprefix(f"{recipes.REGISTRY}/").removesuffix(":lab")
    kubectl(pair, "run", name, f"--image={image}")
    kubectl(pair, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    assert says in kubectl(pair, "exec", name, "--", *command)
    kubectl(pair, "delete", "pod", name, "--timeout=20s")


def test_the_static_image_has_no_shell(pair: Cluster) -> None:
    kubectl(pair, "run", "bare", f"--image={recipes.STATIC}")
    kubectl(pair, "wait", "--for=condition=Ready", "pod/bare", "--timeout=60s")
    entered = lab("kubectl", "--name", pair.name, "exec", "bare", "--", "sh")
    assert entered.returncode != 0
    assert "executable file not found" in entered.stderr


def test_an_inventory_reaches_all_nodes(pair: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "hosts.yml"
    file.write_text(lab("inventory", "--name", pair.name).stdout)
    ansible = Path(sys.executable).with_name("ansible")
    for group, count in (("masters", 1), ("workers", 1), ("all", 2)):
        done = subprocess.run(
            [ansible, "-i", file, group, "-m", "ping", "-o"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.count("SUCCESS") == count


def test_the_kubelet_leaves_the_hosts_kernel_settings(pair: Cluster) -> None:
    assert on(pair, pair.workers[0], "systemctl", "is-active", "kubelet").strip() == "active"
    assert on(pair, pair.workers[0], "cat", "/proc/sys/kernel/panic").strip() == "10"
    assert [file.read_text() for file in KERNEL_SETTINGS] == FOUND


def test_secrets_are_the_owners_alone(pair: Cluster) -> None:
    for file in (pair.client_key, pair.kubeconfig):
        assert file.stat().st_mode & 0o077 == 0
    pinned = pair.known_hosts.read_text().split()
    assert len({*pinned[2::3]}) == len(pair.machines)


def test_a_name_is_taken_once(pair: Cluster) -> None:
    again = lab("up", "--name", pair.name)
    assert again.returncode == 1
    assert "is up already" in again.stderr


@pytest.mark.parametrize("stage", ["starting", "kubeadm init"])
def test_down_removes_what_a_killed_up_has_left(stage: str) -> None:
    name = "test-killed"
    making = subprocess.Popen(
        [sys.executable, "-m", "lab", "cluster", "up", "--name", name],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert making.stderr
        for line in making.stderr:
            if stage in line:
                time.sleep(0.7)
                break
    finally:
        os.kill(making.pid, signal.SIGKILL)
        making.wait()
    assert left_of(name)
    assert f"{name}: just being made, or left unfinished" in lab("list").stdout
    assert lab("down", name).returncode == 0
    assert left_of(name) == []


def test_down_leaves_nothing(pair: Cluster) -> None:
    """The last of this cluster."""
    assert left_of(pair.name)
    ids = [one.id for one in podman.containers() if one.cluster == identity(pair.name)]
    down(pair.name)
    assert left_of(pair.name) == []
    # Others' groups come and go meanwhile.
    groups = [name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    assert not [name for name in groups for one in ids if one in name]
    down(pair.name)
