"""An installation on a real cluster whose nodes are broken in one place each: it is named, no more.

A node is judged by what is read of it alone, so that faults of several nodes share a verification.
Every test leaves the cluster as it has found it, also when it fails, so that each finding that a
verification has beside those that are looked for is an error. Whether a fault that has been taken
back is gone is seen by the next verification. The clock of a node container is the host's: a wrong
one is tried in test_lifecycle_vm.py.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node
from lab.cluster.lifecycle import cluster
from lab.images import recipes
from tests.e2e.fleet import Fleet, Judged, Ran, build_agent
from tests.e2e.rollout import (
    MANIFEST,
    MANIFESTS,
    POLICY,
    await_ready,
    on,
    replace,
    restart,
    server,
    wait,
)

AGENT = "exectrail-agent"
PROGRAM = "usr/lib/exectrail-agent"
LOGS = "var/log/exectrail"
ALONE = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none -o ConnectTimeout=5"}
"""Connections that were opened before sshd was stopped would go on."""
DETACH = """
import struct, sys
sys.path.insert(0, "/usr/lib/exectrail-agent/current/exectrail-agent.pyz")
from exectrail_agent.bpf.libbpf import Libbpf
libbpf = Libbpf()
jump = libbpf.pinned("/sys/fs/bpf/exectrail/jump")
for index in range(3):
    libbpf.delete(jump, struct.pack("=I", index))
"""
STRAY = """\
apiVersion: v1
kind: Pod
metadata: {{name: stray, namespace: default}}
spec:
  containers:
    - name: stray
      image: {image}
"""


Processes = dict[str, tuple[int, int]]
Named = tuple[Node, str, str]
"""A node, the check that fails there, and words of what is said of it."""


@dataclass(frozen=True)
class Site:
    """The cluster and the inventory of those of its nodes that are installed."""

    made: Cluster
    fleet: Fleet

    @property
    def late(self) -> Node:
        """The worker that joins after the installation."""
        return self.made.workers[1]

    def node(self, name: str) -> Node:
        """Give a node by the end of its name."""
        return next(each for each in self.made.machines if each.name.endswith(name))

    def root(self, node: Node) -> Path:
        return self.made.root(node)

    def on(self, node: Node, *command: str) -> str:
        return on(self.made, node, *command).strip()

    def agent(self, node: Node) -> int:
        """The agent's pid on its node; 0 without one."""
        return int(self.on(node, "systemctl", "show", "-P", "MainPID", AGENT) or 0)

    def running(self) -> Processes:
        """The agent's pid and the API server's of each node that is installed."""
        return {
            node.name: (self.agent(node), (server(node) or (0,))[0])
            for node in self.made.machines
            if node != self.late
        }

    def verify(self, *options: str, **environment: str) -> Judged:
        return self.fleet.judge("verify", *options, **environment)

    def names(self, *faults: Named, options: tuple[str, ...] = ()) -> None:
        """Verification says that these checks fail on these nodes, and no other anywhere."""
        judged = self.verify(*options)
        found = {host: list(rows) for host, rows in judged.findings.items()}
        assert found == {node.name: [check] for node, check, _ in faults}, judged.findings
        for node, check, words in faults:
            said = judged.findings[node.name][check]
            assert said.startswith("fail: ")
            assert words in said
        assert (judged.code, judged.unreachable) == (2, [])

    def repair(self) -> Ran:
        """Run site.yml once more, whose own verification then finds nothing."""
        ran = self.fleet.play("site").good()
        assert self.fleet.report("verify").findings == {}, ran.said
        return ran


def without(inventory: dict[str, Any], node: Node) -> dict[str, Any]:
    groups = inventory["all"]["children"]
    workers = {name: each for name, each in groups["workers"]["hosts"].items() if name != node.name}
    return {"all": inventory["all"] | {"children": groups | {"workers": {"hosts": workers}}}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("faults")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with cluster("test-broken", masters=3, workers=2) as made:
        fleet = Fleet(
            folder,
            without(made.inventory(), made.workers[1]),
            exec_agent_file=str(archive),
            audit_policy_stable_seconds=1,
        )
        found = Site(made, fleet)
        # Out of the cluster until its test: its kubelet puts it in again.
        found.on(found.late, "systemctl", "stop", "kubelet")
        kubectl(made, "delete", "node", found.late.name, "--ignore-not-found")
        found.repair()
        yield found


# --- faults: each is there while the block runs, and gone afterwards, whoever repaired it --------


@contextmanager
def agent_stopped(site: Site, node: Node) -> Iterator[None]:
    site.on(node, "systemctl", "stop", AGENT)
    try:
        yield
    finally:
        site.on(node, "systemctl", "start", AGENT)


@contextmanager
def agent_frozen(site: Site, node: Node) -> Iterator[None]:
    pid = str(site.agent(node))
    # Else its watchdog may be first.
    site.on(node, "systemctl", "service-watchdogs", "no")
    site.on(node, "kill", "-STOP", pid)
    try:
        yield
    finally:
        site.on(node, "systemctl", "service-watchdogs", "yes")
        site.on(node, "sh", "-c", f"kill -CONT {pid} 2> /dev/null || true")


@contextmanager
def agent_blind(site: Site, node: Node) -> Iterator[None]:
    """Its programs in the kernel, which it holds itself, lead nowhere any more."""
    site.on(node, "python3", "-I", "-c", DETACH)
    try:
        yield
    finally:
        site.on(node, "systemctl", "stop", AGENT)
        site.on(node, "exectrail-agent", "unpin")
        site.on(node, "systemctl", "start", AGENT)


@contextmanager
def log_unwritable(site: Site, node: Node) -> Iterator[None]:
    path = f"/{LOGS}/advaudit.log"
    site.on(node, "chattr", "+i", path, f"/{LOGS}")
    try:
        yield
    finally:
        site.on(node, "chattr", "-i", path, f"/{LOGS}")
        site.on(node, "systemctl", "restart", AGENT)


@contextmanager
def log_full(site: Site, node: Node) -> Iterator[None]:
    site.on(node, "systemctl", "stop", AGENT)
    site.on(node, "mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", f"/{LOGS}")
    try:
        # First, for there is always room in a page that the log has begun.
        site.on(node, "sh", "-c", f"cat /dev/zero > /{LOGS}/filler || true")
        site.on(node, "systemctl", "start", AGENT)
        yield
    finally:
        site.on(node, "systemctl", "stop", AGENT)
        site.on(node, "umount", f"/{LOGS}")
        site.on(node, "systemctl", "start", AGENT)


@contextmanager
def agent_replaced(site: Site, node: Node) -> Iterator[None]:
    folder = site.root(node) / PROGRAM
    program = folder / (folder / "current").readlink() / "exectrail-agent.pyz"
    kept = program.with_name("kept")
    shutil.copy2(program, kept)
    other = program.with_name("other")
    shutil.copy2(program, other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("other", "other")
    other.replace(program)
    try:
        yield
    finally:
        kept.replace(program)


@contextmanager
def policy_edited(site: Site, node: Node) -> Iterator[None]:
    """In place, which the server's mount of the file follows."""
    path = site.root(node) / POLICY
    text, times = path.read_text(), path.stat()
    path.write_text(text + "# edited\n")
    try:
        yield
    finally:
        if path.read_text() != text:
            path.write_text(text)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@contextmanager
def policy_swapped(site: Site, node: Node) -> Iterator[None]:
    """By a file of its own, which the server does not get to see."""
    path = site.root(node) / POLICY
    kept = path.with_name("kept.yaml")
    path.rename(kept)
    path.write_text(kept.read_text().replace("level: Metadata", "level: None"))
    path.chmod(0o600)
    try:
        yield
    finally:
        kept.replace(path)


@contextmanager
def manifest_edited(
    site: Site, node: Node, edit: Callable[[str], str], gone: Callable[[str], bool]
) -> Iterator[None]:
    path = site.root(node) / MANIFEST
    text = path.read_text()
    restart(site.made, node, edit(text))
    wait_for_server(site, node, gone=gone)
    try:
        yield
    finally:
        if path.read_text() == edit(text):
            restart(site.made, node, text)
            wait_for_server(site, node, gone=lambda words: not gone(words))


def wait_for_server(site: Site, node: Node, *, gone: Callable[[str], bool]) -> None:
    """Not to be taken for ready before the old server has ended."""
    wait(lambda: (found := server(node)) and gone(" ".join(found[1])), 60, "another server")
    await_ready(site.made, node)


def flag_removed(site: Site, node: Node) -> AbstractContextManager[None]:
    flag = "--audit-log-maxbackup"
    return manifest_edited(
        site,
        node,
        lambda text: re.sub(rf"\n *- {flag}=\d+", "", text),
        lambda words: flag not in words,
    )


def log_elsewhere(site: Site, node: Node) -> AbstractContextManager[None]:
    return manifest_edited(
        site,
        node,
        lambda text: re.sub("(--audit-log-path=.*/).*", r"\1other.audit", text),
        lambda words: "/other.audit" in words,
    )


@contextmanager
def stray_manifest(site: Site, node: Node) -> Iterator[None]:
    path = site.root(node) / MANIFESTS / "stray.yaml"
    replace(path, STRAY.format(image=recipes.PAUSE))
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def kubelet_stopped(site: Site, node: Node) -> Iterator[None]:
    site.on(node, "systemctl", "stop", "kubelet")
    try:
        yield
    finally:
        site.on(node, "systemctl", "start", "kubelet")


Fault = Callable[[Site, Node], AbstractContextManager[None]]
Place = tuple[str, Fault, str, str]
"""The node that is broken, how, the check that fails there, and words of what is said of it."""
AGENTS: list[Place] = [
    ("worker-1", agent_stopped, "agent.active", "inactive (dead)"),
    ("master-1", agent_frozen, "agent.active", "stopped by a signal"),
    ("master-2", agent_replaced, "agent.program", "not the program that was installed"),
]
SERVERS: list[Place] = [
    ("master-1", log_elsewhere, "audit.server", "other.audit"),
    ("master-2", policy_edited, "audit.policy", "not the policy that was rolled out"),
    ("master-3", flag_removed, "audit.server", "--audit-log-maxbackup is missing"),
]
UNREPAIRED: list[list[Place]] = [
    [
        ("worker-1", log_full, "agent.log", "not in /var/log/exectrail/advaudit.log"),
        ("master-1", stray_manifest, "node.static-pods", "stray"),
        ("master-2", agent_blind, "agent.sees", "it is blind"),
        ("master-3", policy_swapped, "audit.policy", "not the policy that was rolled out"),
    ],
    [
        ("worker-1", kubelet_stopped, "node.kubelet", "inactive (dead)"),
        ("master-1", log_unwritable, "agent.log", "not in /var/log/exectrail/advaudit.log"),
        ("master-2", kubelet_stopped, "node.kubelet", "inactive (dead)"),
    ],
]


@contextmanager
def broken(site: Site, places: list[Place]) -> Iterator[list[Named]]:
    """Break each node at the same time, for some of it takes an API server's restart."""
    with ExitStack() as faults:
        with ThreadPoolExecutor() as pool:
            made = [
                pool.submit(faults.enter_context, fault(site, site.node(name)))
                for name, fault, _, _ in places
            ]
        for each in made:
            each.result()
        yield [(site.node(name), check, words) for name, _, check, words in places]


@pytest.mark.parametrize("places", UNREPAIRED)
def test_it_is_named_and_nothing_else(site: Site, places: list[Place]) -> None:
    with broken(site, places) as faults:
        site.names(*faults)


def test_a_canary_pod_is_recorded_on_every_node(site: Site) -> None:
    judged = site.verify("--canary-image", recipes.TOOLS)

    assert (judged.code, judged.findings) == (0, {}), judged.said
    assert set(judged.statuses("cluster.canary").values()) == {"pass"}


def test_a_canary_pod_whose_image_is_missing(site: Site) -> None:
    nodes = [node for node in site.made.machines if node != site.late]
    missing = ("--canary-image", "registry.invalid/missing:1")

    site.names(*((node, "cluster.canary", "can't be pulled") for node in nodes), options=missing)


def test_a_node_that_does_not_answer(site: Site) -> None:
    node = site.node("worker-1")
    site.on(node, "systemctl", "stop", "ssh")
    try:
        judged = site.verify(**ALONE)
    finally:
        site.on(node, "systemctl", "start", "ssh")

    assert (judged.code, judged.unreachable, judged.findings) == (3, [node.name], {})


def test_broken_agents_and_a_worker_that_joins_are_repaired(site: Site) -> None:
    """A worker without an agent is named whether or not it is in the inventory."""
    site.on(site.late, "systemctl", "start", "kubelet")
    wait(lambda: site.late.name in kubectl(site.made, "get", "nodes"), 30, "the worker joins")
    site.names(*((node, "cluster.nodes", site.late.name) for node in site.made.masters))
    site.fleet.inventory = site.made.inventory()
    before = site.running()
    with broken(site, AGENTS) as faults:
        site.names(*faults, (site.late, "agent.installed", ""))
        ran = site.repair()
        after = site.running()

    touched = {node.name for node, _, _ in faults}
    assert {name for name, count in ran.changed.items() if count} == {*touched, site.late.name}
    assert changed(before, after, 0) == touched
    assert changed(before, after, 1) == set()


def test_broken_policies_are_repaired(site: Site) -> None:
    with broken(site, SERVERS) as faults:
        site.names(*faults)
        before = site.running()
        ran = site.repair()
        after = site.running()

    touched = {node.name for node, _, _ in faults}
    assert {name for name, count in ran.changed.items() if count} == touched, ran.said
    assert changed(before, after, 0) == set()
    assert changed(before, after, 1) == touched


def changed(before: Processes, after: Processes, which: int) -> set[str]:
    """Nodes on which there is another agent (0) or API server (1)."""
    return {name for name in after if after[name][which] != before[name][which]}
