"""A node's files, as the runtimes and the kernel would have them, in a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exectrail_agent.containers.model import Probe
from exectrail_agent.containers.pods import PodFacts

A, B, C = "a" * 64, "b" * 64, "c" * 64
HOST = (1, 2)
TASKS = "run/containerd/io.containerd.runtime.v2.task"
STORAGE = "containers/storage/overlay-containers"


class Node:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.process(1, *HOST)
        self.process(77, *HOST, "/system.slice/agent.service")
        (root / "proc/self").symlink_to("77")
        for folder in ("run", "var/lib", "home"):
            (root / folder).mkdir(parents=True)

    def process(self, pid: int, mount: int, pid_namespace: int, *groups: str) -> None:
        ns = self.root / "proc" / str(pid) / "ns"
        ns.mkdir(parents=True, exist_ok=True)
        for kind, number in (("mnt", mount), ("pid", pid_namespace)):
            (ns / kind).unlink(missing_ok=True)
            (ns / kind).symlink_to(f"{kind}:[{number}]")
        lines = [f"{number}:x{number}:{group}" for number, group in enumerate(groups)]
        (ns.parent / "cgroup").write_text("\n".join([*lines, ""]))

    def end(self, pid: int) -> None:
        shutil.rmtree(self.root / "proc" / str(pid))

    def write(self, path: str, content: Any) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def containerd(
        self, identity: str, config: Any, pid: int = 0, *, namespace: str = "k8s.io"
    ) -> Path:
        """Write a bundle in the order in which containerd does."""
        folder = f"{TASKS}/{namespace}/{identity}"
        file = self.write(f"{folder}/config.json", config)
        if pid:
            self.write(f"{folder}/init.pid", str(pid))
        return file.parent

    def storage(self, identity: str, config: Any, pid: int = 0) -> Path:
        """Write a container as CRI-O and Podman do."""
        file = self.write(f"var/lib/{STORAGE}/{identity}/userdata/config.json", config)
        (self.root / f"run/{STORAGE}/{identity}/userdata").mkdir(parents=True, exist_ok=True)
        if pid:
            self.write(f"run/{STORAGE}/{identity}/userdata/pidfile", str(pid))
        return file.parent


def config(
    path: str = "",
    annotations: Mapping[str, str] | None = None,
    *,
    pid: str | None = "",
    terminal: bool = False,
) -> dict[str, Any]:
    """A config.json; `pid` is the path of the pid namespace, None if it gets none."""
    own = [] if pid is None else [{"type": "pid", **({"path": pid} if pid else {})}]
    return {
        "ociVersion": "1.0.2",
        "process": {"terminal": terminal, "args": ["/bin/sh"]},
        "annotations": annotations or {},
        "linux": {"cgroupsPath": path, "namespaces": [{"type": "mount"}, *own]},
    }


def cri(name: str = "", uid: str = "uid-1", pod: str = "web") -> dict[str, str]:
    """containerd's annotations of a pod's container; without a name, of its sandbox."""
    own = {
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-uid": uid,
        "io.kubernetes.cri.container-type": "container" if name else "sandbox",
    }
    if name:
        own["io.kubernetes.cri.container-name"] = name
        own["io.kubernetes.cri.image-name"] = "registry/image:1"
    return own


class Pods:
    """A PodSource that a test fills."""

    problem = ""

    def __init__(self, **facts: PodFacts) -> None:
        self.facts = facts
        self.wanted: list[tuple[str, str]] = []

    def pod(self, uid: str) -> PodFacts | None:
        return self.facts.get(uid)

    def want(self, uid: str, container: str) -> None:
        self.wanted.append((uid, container))


def probe(kind: str, *command: str) -> Probe:
    return Probe(kind, command)


def group(*ids: str, pod: str = "pod1") -> str:
    """The path of a pod's container, and of what is nested in it."""
    return "/".join([f"/kubepods/{pod}", *ids])
