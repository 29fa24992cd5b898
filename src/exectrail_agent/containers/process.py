"""What /proc says of a container's first process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from exectrail_agent.containers import cgroups


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


def _namespace(folder: Path, kind: str) -> int:
    target = os.readlink(folder / "ns" / kind)
    return int(target[len(kind) + 2 : -1])
