"""What /proc says of a container's first process, and of who is at work in it from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exectrail_agent.containers import cgroups
from exectrail_agent.containers.model import Container

_CLIENTS = {b"crictl", b"ctr", b"docker", b"nerdctl", b"podman"}
_SHORTEST = 3


@dataclass(frozen=True)
class Process:
    """A living process: its namespaces' inode numbers and its control groups' paths."""

    pid: int
    mount_namespace: int
    pid_namespace: int
    cgroups: tuple[bytes, ...] = ()


class Processes:
    """Reads /proc below `root`."""

    def __init__(self, root: Path) -> None:
        self._proc = root / "proc"

    def read(self, pid: str) -> Process | None:
        """Return the process, or the reader for ``self``; None if gone. Raises PermissionError."""
        folder = self._proc / pid
        try:
            paths = tuple(cgroups.of_process((folder / "cgroup").read_bytes()))
            return Process(
                int(folder.resolve().name),
                _namespace(folder, "mnt"),
                _namespace(folder, "pid"),
                paths,
            )
        except PermissionError:
            raise
        except (OSError, ValueError):
            return None

    def mount_namespace(self, pid: int) -> int:
        """Return the inode number of its mount namespace, 0 if it is gone or not to be seen."""
        try:
            return _namespace(self._proc / str(pid), "mnt")
        except (OSError, ValueError):
            return 0

    def clients(self, container: Container) -> Iterator[tuple[str, list[bytes]]]:
        """Yield the runtimes' clients that run something in a container now.

        By name, each with the control groups that it is in itself.
        """
        with os.scandir(self._proc) as entries:
            for entry in entries:
                try:
                    # There are many: a Path of each takes as long as to read it.
                    with open(f"{entry.path}/cmdline", "rb") as file:  # noqa: PTH123
                        words = file.read().split(b"\0")
                    name = words[0].rpartition(b"/")[2]
                    if name in _CLIENTS and b"exec" in words and _named(container, words):
                        groups = Path(entry.path, "cgroup").read_bytes()
                        yield name.decode(), cgroups.of_process(groups)
                except OSError:
                    continue


def _named(container: Container, words: list[bytes]) -> bool:
    identity = container.id.encode()
    # The name of a pod's container is not what its runtime calls it.
    name = b"" if container.pod else container.name.encode()
    return any(
        word == name or (len(word) >= _SHORTEST and identity.startswith(word))
        for word in words
        if word
    )


def _namespace(folder: Path, kind: str) -> int:
    target = os.readlink(folder / "ns" / kind)
    return int(target[len(kind) + 2 : -1])
