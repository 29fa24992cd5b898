"""Where the agent stands: its pid namespace and the root of its cgroups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = ("", "pids", "memory", "cpu", "devices")
"""The hierarchies that the kernel half knows, by its number for them; the first is cgroup v2."""

_FIELDS = 6


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo; `options` are the file system's own."""

    root: str
    point: str
    kind: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Surroundings:
    """What the kernel half has to know of the agent.

    - `pid_namespace`: inode number.
    - `controller`: index in CONTROLLERS of the hierarchy that containers are told apart by.
    - `root_cgroup`: id of the agent's own root in it, 0 if that can't be found out: the whole node
      is its own then.
    """

    pid_namespace: int
    controller: int
    root_cgroup: int


def parse_mounts(lines: Iterable[str]) -> list[Mount]:
    """Read /proc/self/mountinfo; what is no such line is left out."""
    mounts = []
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, system = before.split(" "), after.rstrip("\n").split(" ")
        if len(fields) >= _FIELDS and len(system) > 2:  # noqa: PLR2004 - type, source, options
            options = tuple(system[2].split(","))
            mounts.append(Mount(_plain(fields[3]), _plain(fields[4]), system[0], options))
    return mounts


def read_mounts() -> list[Mount]:
    """Return this process's mounts, the newest last."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as lines:
        return parse_mounts(lines)


def choose_hierarchy(mounts: Sequence[Mount]) -> tuple[int, str]:
    """Return the controller's index, and where its hierarchy's own root is mounted ("": nowhere).

    On a node that mounts v1 controllers, containers are in those; cgroup v2 may be empty there.
    """
    for index, name in enumerate(CONTROLLERS[1:], start=1):
        points = [one for one in mounts if one.kind == "cgroup" and name in one.options]
        if points:
            return index, _root_of(points)
    return 0, _root_of([one for one in mounts if one.kind == "cgroup2"])


def find_surroundings() -> Surroundings:
    """Look around. Raises OSError where /proc is not that of this process."""
    controller, point = choose_hierarchy(read_mounts())
    return Surroundings(
        pid_namespace=Path("/proc/self/ns/pid").stat().st_ino,
        controller=controller,
        root_cgroup=Path(point).stat().st_ino if point else 0,
    )


def cgroup_in(text: bytes, controller: int) -> bytes:
    """Return a process's path in a hierarchy, of what /proc has of its cgroups; b"" if none."""
    wanted = CONTROLLERS[controller].encode()
    for line in text.splitlines():
        _, _, rest = line.partition(b":")
        names, _, path = rest.partition(b":")
        if wanted in names.split(b","):
            return path
    return b""


def is_bpffs(path: str, mounts: Sequence[Mount]) -> bool:
    """Whether a path is, or would be, on a bpf file system."""
    under = [one for one in mounts if os.path.commonpath([one.point, path]) == one.point]
    # Of mounts at the same place the last one hides the others.
    return bool(under) and max(reversed(under), key=lambda one: len(one.point)).kind == "bpf"


def _root_of(mounts: Sequence[Mount]) -> str:
    return next((one.point for one in mounts if one.root == "/"), "")


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
