"""Clusters of this checkout: made, found again by later commands, removed."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.cluster import balancer, host, kubeadm, layout, podman
from lab.cluster.layout import Cluster, Node, identity
from lab.cluster.processes import copy_tree, run
from lab.cluster.template import FILES, Template
from lab.cluster.template import get as get_template
from lab.errors import LabError
from lab.images.recipes import PAUSE
from lab.kubernetes.binaries import Binaries
from lab.progress import say
from lab.vm.folders import lock

_BOOT_SECONDS = 60
_NODE_PROGRAMS = ("kubeadm", "kubectl", "kubelet")
_CNI = """\
{{
  "cniVersion": "0.4.0",
  "name": "lab",
  "plugins": [
    {{
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "ipam": {{
        "type": "host-local",
        "ranges": [[{{"subnet": "10.244.{number}.0/24"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}]
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"""


def up(name: str = "lab", masters: int = 1, workers: int = 1) -> Cluster:
    """Make a cluster and wait until all its nodes are ready; LabError when it is up already."""
    layout.check(name, masters, workers)
    host.ensure()
    with lock("cache", shared=True), lock(identity(name), wait=False) as free:
        if not free:
            raise LabError(f"cluster {name!r} is just being made or removed by another command")
        if layout.load(name):
            raise LabError(f"cluster {name!r} is up already: python -m lab cluster down {name}")
        _clear(name)
        try:
            return _make(name, masters, workers)
        except BaseException:
            say(f"taking back what there is of cluster {name}")
            _clear(name)
            raise


def _make(name: str, masters: int, workers: int) -> Cluster:
    # The folder marks the cluster as begun: from here on `down` knows of it.
    (layout.clusters_folder() / name / "roots").mkdir(parents=True)
    template = get_template(identity(name))
    network = identity(name)
    subnet = podman.create_network(network, identity(name))
    nodes = layout.plan(name, masters, workers, subnet)
    cluster = Cluster(name, template.binaries.kubernetes, nodes)
    shutil.copy2(template.binaries.path("kubectl"), cluster.folder / "kubectl")
    _make_key(cluster.client_key)
    systemd_cgroups = host.systemd_cgroups()
    say(f"starting {len(nodes)} containers on {subnet}")
    balancer.start(cluster, template, network)
    for node in cluster.machines:
        _prepare(cluster, node, template, systemd_cgroups=systemd_cgroups)
        _start(cluster, node, template.binaries, network, systemd_cgroups=systemd_cgroups)
    for node in cluster.machines:
        _await_boot(cluster, node)
    kubeadm.make_cluster(cluster, template.binaries, systemd_cgroups=systemd_cgroups)
    cluster.save()
    say(f"cluster {name} is up")
    return cluster


def _make_key(path: Path) -> str:
    """Make an ssh key pair and give the public half as `TYPE BASE64`."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", path])
    public = path.with_name(f"{path.name}.pub").read_text(encoding="ascii")
    return " ".join(public.split()[:2])


def _prepare(cluster: Cluster, node: Node, template: Template, *, systemd_cgroups: bool) -> None:
    """Lay out NODE's root file system: the template's, and what is this node's alone."""
    root = cluster.root(node)
    copy_tree(template.root, root)
    template.copy_images(root)
    shutil.copyfile(cluster.client_key.with_suffix(".pub"), root / "root/.ssh/authorized_keys")
    host_key = _make_key(root / "etc/ssh/ssh_host_ed25519_key")
    with cluster.known_hosts.open("a", encoding="ascii") as known:
        known.write(f"{node.address} {host_key}\n")
    containerd = (FILES / "containerd.toml").read_text(encoding="utf-8")
    for word, value in {"pause": PAUSE, "systemd_cgroup": str(systemd_cgroups).lower()}.items():
        containerd = containerd.replace(f"@{word}@", value)
    (root / "etc/containerd/config.toml").write_text(containerd, encoding="utf-8")
    plugins = root / "etc/cni/net.d/10-lab.conflist"
    plugins.write_text(_CNI.format(number=node.number), encoding="utf-8")


def _start(
    cluster: Cluster, node: Node, binaries: Binaries, network: str, *, systemd_cgroups: bool
) -> None:
    # On v1 podman's systemd mode would lay the host's control groups over the node's own, and all
    # nodes would share them.
    systemd = "always" if systemd_cgroups else "false"
    podman.run(
        cluster.container(node),
        identity(cluster.name),
        [f"--network={network}", f"--ip={node.address}", f"--hostname={node.name}"]
        + [f"--add-host={other.name}:{other.address}" for other in cluster.nodes if other != node]
        + ["--privileged", "--sysctl=net.ipv4.ip_forward=1", "--env=container=podman"]
        + [f"--systemd={systemd}"]
        # Large, and the same on every node.
        + [f"--volume={binaries.path(one)}:/usr/bin/{one}:ro" for one in _NODE_PROGRAMS]
        # systemd's own signal for an orderly end.
        + ["--stop-signal=SIGRTMIN+3"],
        cluster.root(node),
        ["/sbin/init"],
    )


def _await_boot(cluster: Cluster, node: Node) -> None:
    deadline = time.monotonic() + _BOOT_SECONDS
    while True:
        try:
            with socket.create_connection((node.address, 22), timeout=1) as connection:
                if connection.recv(4) == b"SSH-":
                    break
        except OSError as problem:
            if time.monotonic() > deadline:
                raise LabError(f"{node.name} does not answer ssh: {problem}") from problem
        time.sleep(0.1)
    podman.execute(cluster.container(node), "systemctl", "is-active", "--wait", "containerd")
    # systemd does so on machines that are no containers.
    for kind, place in (("bpf", "/sys/fs/bpf"), ("securityfs", "/sys/kernel/security")):
        podman.execute(cluster.container(node), "mount", "-t", kind, kind, place)


def clusters() -> list[tuple[Cluster, dict[str, bool]]]:
    """List this checkout's clusters, each with its containers' names and whether they run.

    What is left of an interrupted run is listed without a version and nodes.
    """
    host.check()
    found = podman.containers()
    labels = {*(one.cluster for one in found), *podman.networks().values()}
    return [
        (
            layout.load(name) or Cluster(name, "", ()),
            {one.name: one.running for one in found if one.cluster == identity(name)},
        )
        for name in layout.names(labels)
    ]


def get(name: str) -> Cluster:
    """Find a cluster that is up; raises LabError when there is none of that name."""
    if cluster := layout.load(name):
        return cluster
    known = ", ".join(one.name for one in layout.loaded()) or "none"
    raise LabError(
        f"no cluster {name!r} is up (up: {known}): python -m lab cluster up --name {name}"
    )


def node(name: str) -> tuple[Cluster, Node]:
    """Find a master or worker of this checkout's clusters by its name."""
    found = {one.name: (cluster, one) for cluster in layout.loaded() for one in cluster.machines}
    if name not in found:
        raise LabError(f"no node {name!r} is up (up: {', '.join(found) or 'none'})")
    return found[name]


def down(name: str) -> None:
    """Remove everything of a cluster, also of one whose making was interrupted."""
    host.check()
    with lock(identity(name), wait=False) as free:
        if not free:
            raise LabError(f"cluster {name!r} is just being made or removed by another command")
        _clear(name)


def _clear(name: str) -> None:
    folder = layout.clusters_folder() / name
    podman.remove(identity(name))
    # Without its record an interrupted removal is found as something left, not as a cluster.
    (folder / layout.RECORD).unlink(missing_ok=True)
    if folder.exists():
        say(f"removing the files of cluster {name}")
        shutil.rmtree(folder)


@contextmanager
def cluster(name: str, masters: int = 1, workers: int = 1) -> Iterator[Cluster]:
    """Give a fresh cluster for the block, and remove it then."""
    made = up(name, masters, workers)
    try:
        yield made
    finally:
        down(name)
