"""Sessions that began while nobody looked, as /proc still shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exectrail_agent.containers.model import Container
from exectrail_agent.events import LiveSession, Task
from exectrail_agent.proc import Place, ProcReader, Standing, task_at
from exectrail_agent.sessions.crossing import ContainerLookup, is_monitor, is_runtime
from exectrail_agent.sessions.returning import going_on

_HOPS = 128


@dataclass(frozen=True)
class _Process:
    standing: Standing
    place: Place
    owner: Container


def find(index: ContainerLookup, reader: ProcReader) -> list[Sequence[Task]]:
    """Return the sessions that go on in containers, each by its processes, the first one first.

    A process belongs to the one that came in: the farthest of its ancestors, of those that are in
    its container without a break. Where that is the container's own first process, it is a session
    if somebody works in the container by having started it. Containers that nobody has described
    are passed over, for their first process is not known.
    """
    processes = dict(_contained(index, reader))
    members: dict[int, list[Task]] = {}
    for pid, process in processes.items():
        task = task_at(pid, process.standing.start, process.place, *reader.name(pid))
        members.setdefault(_first(pid, processes), []).append(task)
    found: list[Sequence[Task]] = []
    for first, tasks in sorted(members.items()):
        tasks.sort(key=lambda task: (task.pid != first, task.start))
        on_its_way = is_runtime(tasks[0]) or is_monitor(tasks[0])
        if not on_its_way and going_on(LiveSession(0, tasks), index):
            found.append(tasks)
    return found


def _contained(index: ContainerLookup, reader: ProcReader) -> Iterator[tuple[int, _Process]]:
    for pid in reader.pids():
        standing, place = reader.standing(pid), reader.place(pid)
        if standing is None or standing.dead or place is None:
            continue
        owner = index.by_namespaces(place.mount_namespace, place.pid_namespace)
        owner = owner or index.by_cgroup(place.cgroup)
        if owner and owner.init_pid:
            yield pid, _Process(standing, place, owner)


def _first(pid: int, processes: dict[int, _Process]) -> int:
    owner = processes[pid].owner
    for _ in range(_HOPS):
        above = processes.get(processes[pid].standing.parent)
        if pid == owner.init_pid or above is None:
            break
        if above.owner.id != owner.id:
            return owner.init_pid if _adopts(above.owner, owner) else pid
        pid = processes[pid].standing.parent
    return pid


def _adopts(sandbox: Container, other: Container) -> bool:
    """Whether orphans of a container become children of its pod's pause process."""
    pod, its = sandbox.pod, other.pod
    return sandbox.kind == "sandbox" and bool(pod and its and pod.uid == its.uid)
