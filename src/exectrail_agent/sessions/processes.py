"""Where processes are and whose children they are, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from exectrail_agent.containers.model import Container
from exectrail_agent.events import LiveSession, Task
from exectrail_agent.sessions.crossing import ContainerLookup

_STAT_SIZE = 4096
_HOPS = 128


class Containers(ContainerLookup, Protocol):
    """Containers that can be listed too."""

    def all(self) -> Sequence[Container]:
        """Return the containers that run."""


def parent_of(pid: int, root: str = "/proc") -> int:
    """Return the pid of a process's parent, 0 if there is no such process."""
    return _parent_and_start(f"{root}/{pid}")[0]


def scan_proc(root: str, index: Containers) -> list[LiveSession]:
    """Return the sessions that go on in containers, one for each process that came from outside.

    `root` is where /proc is, as ``/proc``. The sessions have no number: no kernel half marks them.
    A process came from outside if its ancestors lead out of the container without meeting the
    container's first process.
    """
    first = {one.init_pid: one.id for one in index.all() if one.init_pid}
    tasks = {task.pid: (task, parent) for task, parent in _tasks(root)}
    sessions: dict[int, list[Task]] = {}
    for task, _ in tasks.values():
        owner = _owner(task, index)
        entry = _entry(task.pid, owner, tasks, first, index) if owner else 0
        if entry:
            sessions.setdefault(entry, []).append(task)
    return [
        LiveSession(0, tuple(sorted(members, key=lambda task: (task.pid != entry, task.start))))
        for entry, members in sorted(sessions.items())
    ]


def _entry(
    pid: int,
    owner: str,
    tasks: dict[int, tuple[Task, int]],
    first: dict[int, str],
    index: ContainerLookup,
) -> int:
    """Return the ancestor that came into the container; 0 if the container itself began it."""
    for _ in range(_HOPS):
        if pid in first:
            return 0
        above = tasks[pid][1]
        if above not in tasks or _owner(tasks[above][0], index) != owner:
            return pid
        pid = above
    return 0


def _owner(task: Task, index: ContainerLookup) -> str:
    entered = index.by_namespaces(task.mount_namespace, task.pid_namespace)
    if entered:
        return entered.id
    inside = index.by_cgroup(task.cgroup)
    return inside.id if inside else index.looks_contained(task.cgroup) or ""


def _tasks(root: str) -> Iterator[tuple[Task, int]]:
    for name in os.listdir(root):  # noqa: PTH208 - thousands of names, no objects
        if not name.isdigit():
            continue
        folder = f"{root}/{name}"
        parent, start = _parent_and_start(folder)
        if start:
            yield (
                Task(
                    pid=int(name),
                    start=start,
                    cgroup=_cgroup(folder),
                    mount_namespace=_namespace(f"{folder}/ns/mnt"),
                    pid_namespace=_namespace(f"{folder}/ns/pid"),
                    executable=_link(f"{folder}/exe"),
                ),
                parent,
            )


def _parent_and_start(folder: str) -> tuple[int, int]:
    """Return a process's parent and its start in nanoseconds, to a clock tick; (0, 0) if gone."""
    try:
        # The name in parentheses may hold anything, even parentheses.
        rest = _read(f"{folder}/stat").rpartition(b")")[2].split()
        return int(rest[1]), int(rest[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0, 0


def _cgroup(folder: str) -> bytes:
    """Return the deepest of a process's cgroups: of several hierarchies not all are used."""
    try:
        lines = _read(f"{folder}/cgroup").splitlines()
    except OSError:
        return b""
    paths = [line.split(b":", 2)[2] for line in lines if line.count(b":") > 1]
    return max(paths, key=len, default=b"")


def _namespace(path: str) -> int:
    text = _link(path).rpartition(b"[")[2].rstrip(b"]")
    return int(text) if text.isdigit() else 0


def _link(path: str) -> bytes:
    try:
        return os.readlink(os.fsencode(path))
    except OSError:
        return b""


def _read(path: str) -> bytes:
    with Path(path).open("rb", buffering=0) as file:
        return file.read(_STAT_SIZE) or b""
