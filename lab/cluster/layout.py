"""A cluster's nodes, their addresses and where its files are."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from lab.errors import LabError
from lab.vm.folders import cache_folder, machines_folder

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")
RECORD = "cluster.json"
MASTERS = (1, 3)
MOST_WORKERS = 20
API_PORT = 6443


@dataclass(frozen=True)
class Node:
    """A machine of the cluster: its name is the host name and the Kubernetes node's name."""

    name: str
    role: str
    """master, worker or balancer"""
    address: str
    number: int
    """Different for each node of the cluster, below 256."""


@dataclass(frozen=True)
class Cluster:
    """A cluster that is up, or being made."""

    name: str
    version: str
    nodes: tuple[Node, ...]

    @property
    def folder(self) -> Path:
        """Where the cluster's files are."""
        return clusters_folder() / self.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's way in."""
        return self.folder / "kubeconfig"

    @property
    def client_key(self) -> Path:
        """The private key that root of the nodes accepts."""
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> Path:
        """The nodes' pinned host keys, for OpenSSH."""
        return self.folder / "known_hosts"

    @property
    def masters(self) -> list[Node]:
        """Nodes with a control plane."""
        return [node for node in self.nodes if node.role == "master"]

    @property
    def workers(self) -> list[Node]:
        """Nodes without one."""
        return [node for node in self.nodes if node.role == "worker"]

    @property
    def machines(self) -> list[Node]:
        """Masters and workers: what an inventory has."""
        return [*self.masters, *self.workers]

    @property
    def endpoint(self) -> str:
        """Where clients reach the API: the load balancer where there is one."""
        balancers = [node for node in self.nodes if node.role == "balancer"]
        return f"{(balancers or self.masters)[0].address}:{API_PORT}"

    def container(self, node: Node) -> str:
        """Name NODE's container."""
        return f"{identity(self.name)}-{node.name.removeprefix(f'{self.name}-')}"

    def root(self, node: Node) -> Path:
        """NODE's root file system, as the host sees it."""
        return self.folder / "roots" / node.name

    def ssh_options(self) -> list[str]:
        """OpenSSH options that reach exactly these nodes and trust no other key."""
        return [
            *("-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes"),
        ]

    def ssh_command(self, node: Node, command: Sequence[str] = ()) -> list[str]:
        """Build the OpenSSH command that enters NODE or runs COMMAND there."""
        options = ["-F", "/dev/null", *self.ssh_options(), "-i", str(self.client_key)]
        return ["ssh", *options, f"root@{node.address}", *command]

    def inventory(self) -> dict[str, object]:
        """Build an Ansible inventory with the groups masters and workers."""
        groups = {"masters": self.masters, "workers": self.workers}
        return {
            "all": {
                "vars": {
                    "ansible_user": "root",
                    "ansible_ssh_private_key_file": str(self.client_key),
                    "ansible_ssh_common_args": " ".join(self.ssh_options()),
                },
                "children": {
                    group: {"hosts": {node.name: {"ansible_host": node.address} for node in nodes}}
                    for group, nodes in groups.items()
                },
            }
        }

    def save(self) -> None:
        """Write the record by which later commands find the cluster."""
        draft = self.folder / f".{RECORD}"
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(self.folder / RECORD)


def load(name: str) -> Cluster | None:
    """Read the record of a cluster of this checkout; None when it was never ready."""
    record = clusters_folder() / name / RECORD
    if not record.exists():
        return None
    values = json.loads(record.read_text(encoding="utf-8"))
    nodes = tuple(Node(**node) for node in values.pop("nodes"))
    return Cluster(**values, nodes=nodes)


def loaded() -> list[Cluster]:
    """List this checkout's clusters that are up."""
    known = (load(folder.name) for folder in sorted(clusters_folder().glob("*")))
    return [cluster for cluster in known if cluster]


def clusters_folder() -> Path:
    """Name the folder with this checkout's clusters, one folder each."""
    return cache_folder() / "clusters" / machines_folder().name


def identity(name: str) -> str:
    """Give what sets a cluster apart on the host: the prefix of its containers' names."""
    return f"exectrail-{machines_folder().name}-{name}"


def names(labels: Iterable[str]) -> list[str]:
    """Names of this checkout's clusters: those with a folder and those LABELS tell of."""
    prefix = identity("")
    found = {one.removeprefix(prefix) for one in labels if one.startswith(prefix)}
    return sorted(found | {folder.name for folder in clusters_folder().glob("*")})


def check(name: str, masters: int, workers: int) -> None:
    """Raise LabError when there can be no such cluster."""
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} can't begin host names: use a-z, 0-9 and - (at most 30)")
    if masters not in MASTERS:
        raise LabError(f"{masters} masters: choose 1 or 3, for etcd wants an odd number")
    if not 0 <= workers <= MOST_WORKERS:
        raise LabError(f"{workers} workers: choose 0 to {MOST_WORKERS}")


def plan(name: str, masters: int, workers: int, subnet: IPv4Network) -> tuple[Node, ...]:
    """Give every node its address on SUBNET; three masters get a load balancer."""
    roles = [
        *(("balancer", number, 10) for number in range(1, 2 if masters > 1 else 1)),
        *(("master", number, 10 + number) for number in range(1, masters + 1)),
        *(("worker", number, 20 + number) for number in range(1, workers + 1)),
    ]
    first = int(subnet.network_address)
    return tuple(
        Node(f"{name}-{role}-{number}", role, str(IPv4Address(first + place)), place)
        for role, number, place in roles
    )
