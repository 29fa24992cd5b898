"""containerd's bundles, and so those of its clients: the kubelet, ctr, nerdctl and Docker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exectrail_agent.containers import cgroups, docker
from exectrail_agent.containers.bundle import Bundle
from exectrail_agent.containers.files import UnreadableError
from exectrail_agent.containers.model import Container, Pod
from exectrail_agent.containers.source import Description, read_bundle, read_pid

FOLDERS = (
    "run/containerd/io.containerd.runtime.v2.task",
    "run/k3s/containerd/io.containerd.runtime.v2.task",
    "run/docker/containerd/daemon/io.containerd.runtime.v2.task",
)
"""Where containerd keeps bundles: the distributions' own, that of k3s, the one Docker starts."""

_DOCKER = "moby"
_CRI = "io.kubernetes.cri."


class Containerd:
    """The bundles in one state folder, ``NAMESPACE/ID`` each."""

    runtime = "containerd"

    def __init__(self, root: Path, folder: str) -> None:
        self.patterns: Sequence[str] = (f"{folder}/*/*",)
        self._root = root
        self._folder = root / folder

    def key(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the bundle's place: ids are unique in a containerd namespace only."""
        return (str(self._folder), *parts)

    def read(self, parts: tuple[str, ...]) -> Description | None:
        """Return what the bundle says."""
        namespace, identity = parts
        runtime = docker.RUNTIME if namespace == _DOCKER else self.runtime
        unknown = Container(identity, runtime, identity, "", "")
        try:
            bundle = read_bundle(self._folder, *parts, "config.json")
            if bundle is None:
                return None
            container = describe(unknown, bundle)
            if namespace == _DOCKER:
                container = docker.complete(self._root, container)
        except UnreadableError as error:
            pid = read_pid(self._folder, *parts, "init.pid")
            return Description(unknown, pid, problem=str(error), unsettled=error.unsettled)
        return Description(container, read_pid(self._folder, *parts, "init.pid"))


def describe(unknown: Container, bundle: Bundle) -> Container:
    """Complete a container with what its bundle says. Pure."""
    pod = Pod(
        bundle.annotation(_CRI + "sandbox-namespace"),
        bundle.annotation(_CRI + "sandbox-name"),
        bundle.annotation(_CRI + "sandbox-uid"),
    )
    sandbox = bundle.annotation(_CRI + "container-type") == "sandbox"
    name = bundle.annotation(_CRI + "container-name", "nerdctl/name")
    return replace(
        unknown,
        name="POD" if sandbox else name or unknown.name,
        image=bundle.annotation(_CRI + "image-name", _CRI + "podsandbox.image-name"),
        cgroup=cgroups.configured(bundle.cgroups_path).decode("utf-8", "replace"),
        shares_pids=bundle.shares_pids,
        interactive=bundle.terminal,
        kind="sandbox" if sandbox else "container",
        pod=pod if pod.name and pod.namespace else None,
    )
