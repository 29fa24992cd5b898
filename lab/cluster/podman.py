"""Containers and networks of the lab's clusters, all found by a label."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from lab.cluster import host
from lab.cluster.processes import finish
from lab.errors import LabError
from lab.progress import say

_LABEL = "exectrail.lab.cluster"
_SETTLE_SECONDS = 60
# crun refuses hosts whose cgroup v2 holds a controller beside v1.
_PODMAN = ("podman", "--runtime=runc")
_RUN = ("run", "--cgroupns=private", "--pids-limit=-1", "--http-proxy=false")


@dataclass(frozen=True)
class Container:
    """A container of a cluster; `cluster` is the label's value."""

    id: str
    name: str
    cluster: str
    running: bool


def podman(*arguments: str, stdin: bytes = b"") -> str:
    """Run a podman command and give its output.

    Not tied to this process: podman killed half-way forgets containers that it has started.
    """
    return finish([*_PODMAN, *arguments], f"podman {arguments[0]}", stdin=stdin)


def label(cluster: str) -> str:
    """Build the option value that marks what belongs to CLUSTER."""
    return f"{_LABEL}={cluster}"


def containers() -> list[Container]:
    """List containers of all clusters of all checkouts, in whatever state."""
    if not shutil.which("podman"):
        return []
    rows: list[dict[str, Any]] = json.loads(
        podman("ps", "--all", "--filter", f"label={_LABEL}", "--format", "json")
    )
    return [
        Container(row["Id"], row["Names"][0], row["Labels"][_LABEL], row["State"] == "running")
        for row in rows
    ]


def networks() -> dict[str, str]:
    """Map the networks of all clusters to their clusters."""
    if not shutil.which("podman"):
        return {}
    found: list[dict[str, Any]] = json.loads(
        podman("network", "ls", "--filter", f"label={_LABEL}", "--format", "json")
    )
    return {row.get("name") or row["Name"]: _labels(row)[_LABEL] for row in found}


def _labels(row: dict[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = row.get("labels") or row.get("Labels") or {}
    return labels


def create_network(name: str, cluster: str) -> IPv4Network:
    """Make a bridge network on a free subnet that podman chooses, and give the subnet."""
    podman("network", "create", "--disable-dns", "--label", label(cluster), name)
    described: list[dict[str, Any]] = json.loads(podman("network", "inspect", name))
    return IPv4Network(described[0]["subnets"][0]["subnet"])


def run(
    name: str, cluster: str, options: Sequence[str], root: Path, command: Sequence[str]
) -> None:
    """Start COMMAND on the root file system ROOT in a container in the background."""
    own = ("--detach", "--name", name, "--label", label(cluster))
    podman(*_RUN, *host.limits(), *own, *options, "--rootfs", str(root), *command)


def run_once(cluster: str, options: Sequence[str], root: Path, command: Sequence[str]) -> None:
    """Run COMMAND in a container that goes with it."""
    own = ("--rm", "--label", label(cluster))
    podman(*_RUN, *host.limits(), *own, *options, "--rootfs", str(root), *command)


def execute(container: str, *command: str, stdin: bytes = b"") -> str:
    """Run COMMAND in a container and give its output."""
    interactive = ["--interactive"] if stdin else []
    name = f"`{' '.join(command)}` on {container}"
    return finish([*_PODMAN, "exec", *interactive, container, *command], name, stdin=stdin)


def remove(cluster: str) -> None:
    """Remove every container and network of CLUSTER, also those an interrupted run left."""
    _settle(cluster)
    if found := [one.id for one in containers() if one.cluster == cluster]:
        podman("rm", "--force", "--ignore", "--time", "0", "--volumes", *found)
    for name, owner in networks().items():
        if owner == cluster:
            podman("network", "rm", "--force", name)


def _settle(cluster: str) -> None:
    """Wait until no podman that an interrupted run has left is making things for CLUSTER."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    told = False
    while pids := _at_work(cluster):
        if not told:
            told = True
            say(f"waiting for what an interrupted run began (pids {', '.join(pids)})")
        if time.monotonic() > deadline:
            raise LabError(f"podman is still making things for {cluster}: pids {', '.join(pids)}")
        time.sleep(0.2)


def _at_work(cluster: str) -> list[str]:
    # conmon carries no labels: only podman itself has the option among its arguments.
    wanted = os.fsencode(label(cluster))
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes().split(b"\0")
        except OSError:
            continue  # It has ended meanwhile.
        if wanted in arguments and arguments[0].endswith(b"podman"):
            found.append(file.parent.name)
    return found
