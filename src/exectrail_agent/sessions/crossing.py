"""Whether an exec comes into a container from outside, and into which."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from exectrail_agent.containers.model import Container
from exectrail_agent.events import ExecEvent, Task
from exectrail_agent.proc import root_device
from exectrail_agent.sessions.program import runtime_name

_RUNTIMES = {b"runc", b"crun", b"youki", b"runsc", b"docker-runc", b"exe"}
_MONITORS = {b"conmon", b"conmonrs", b"containerd-shim"}


class ContainerLookup(Protocol):
    """What is known of the containers; no call blocks."""

    def by_cgroup(self, path: bytes) -> Container | None:
        """Return the container that a cgroup belongs to."""

    def by_namespaces(self, mount: int, pid: int) -> Container | None:
        """Return the running container that has these namespaces."""

    def looks_contained(self, path: bytes) -> str | None:
        """Return the container id that a cgroup path names, be it known or not."""

    def is_kind_certain(self, container: Container) -> bool:
        """Say whether a container's kind is known, and not yet to be asked for."""

    def client(self, container: Container) -> str:
        """Return the name of the runtime's client that is at work in a container, "" if none is."""

    def all(self) -> Sequence[Container]:
        """Return the containers that there are."""


class Way(enum.Enum):
    """What an exec is to the container that it is in."""

    ACCESS = "access"
    INSIDE = "inside"
    STAGE = "stage"
    WAIT = "wait"


@dataclass(frozen=True)
class Crossing:
    """An exec's way into a container.

    - `way`: it came from outside (``ACCESS``), it is a matter of the container's own or of none
      (``INSIDE``), it is the runtime on its way in (``STAGE``), or the container or its pod is not
      known well enough yet (``WAIT``; if that lasts, `is_own` says whether it is an access).
    - `container`: None if nobody has described it; `container_id` is then what its cgroup is
      called, "" without one.
    - `by_namespaces`: it is in the container by its namespaces, not by its cgroup.
    - `own_start`: it is the container's first process. If that has to ``WAIT``, it is for what kind
      of container it is.
    - `certainty`, 0 to 1, is how sure the container is, and `doubt` why not 1.
    """

    way: Way
    container: Container | None = None
    container_id: str = ""
    by_namespaces: bool = False
    own_start: bool = False
    certainty: float = 1.0
    doubt: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is a matter of the container's own, if there is nothing more to wait for."""
        if self.way is Way.WAIT and self.own_start and self.container:
            return not _is_access_by_starting(self.container)
        return self.way is Way.INSIDE


_INSIDE = Crossing(Way.INSIDE)


def is_runtime(task: Task) -> bool:
    """Whether a process is a low-level runtime, by the file that it runs."""
    return runtime_name(task) in _RUNTIMES


def is_monitor(task: Task) -> bool:
    """Whether a process is what a runtime leaves behind to look after a container."""
    name = runtime_name(task)
    return name in _MONITORS or name.startswith(b"containerd-shim-")


def cross(event: ExecEvent, index: ContainerLookup) -> Crossing:
    """Judge an exec that the kernel saw leave its parent's cgroups or namespaces."""
    task, parent = event.task, event.parent
    inside = _by_cgroup(task, index)
    entered = _by_namespaces(task, index)
    if entered and (inside is None or entered.id != inside.container_id):
        owner = _by_cgroup(parent, index)
        if owner and owner.container_id == entered.id:
            return _INSIDE
        return _to(event, index, Crossing(Way.ACCESS, entered, entered.id, by_namespaces=True))
    if inside is None:
        return _INSIDE if task.cgroup or task.mount_namespace else _by_traces(event, index)
    if entered is None and _is_stage(event, index):
        return Crossing(Way.STAGE, inside.container, inside.container_id)
    if _is_of(parent, inside, index, entered):
        return _INSIDE
    return _to(event, index, inside)


def join(event: ExecEvent, index: ContainerLookup) -> Crossing:
    """Judge an exec of a session whose beginning nobody saw: it may have been anything."""
    inside = _by_cgroup(event.task, index)
    if inside is None:
        entered = _by_namespaces(event.task, index)
        if entered is None:
            return _INSIDE if event.task.cgroup else Crossing(Way.WAIT)
        inside = Crossing(Way.ACCESS, entered, entered.id, by_namespaces=True)
    return _to(event, index, inside)


def _by_traces(event: ExecEvent, index: ContainerLookup) -> Crossing:
    found = _left_behind(event, index.all())
    if found is None:
        return Crossing(Way.WAIT)
    container, certainty, doubt = found
    target = Crossing(Way.ACCESS, container, container.id, certainty=certainty, doubt=doubt)
    return _INSIDE if _is_of(event.parent, target, index, None) else _to(event, index, target)


def _left_behind(
    event: ExecEvent, containers: Sequence[Container]
) -> tuple[Container, float, str] | None:
    """Return the container of a program that is gone, how sure that is, and why not 1."""
    words = {word: at for at, word in reversed([*enumerate(event.through.split(b"\0"))])}
    named = [one for one in containers if one.id.encode(errors="surrogatepass") in words]
    if named:
        first = min(named, key=lambda one: words[one.id.encode(errors="surrogatepass")])
        return first, 0.8, "the container is told by the arguments of its runtime alone"
    device = event.device
    if not device or device == root_device(1):
        return None
    there = [one for one in containers if one.init_pid and root_device(one.init_pid) == device]
    if len(there) != 1:
        return None
    return there[0], 0.9, "the container is told by the file system of the program alone"


def _by_cgroup(task: Task, index: ContainerLookup) -> Crossing | None:
    if not task.cgroup:
        return None
    container = index.by_cgroup(task.cgroup)
    if container:
        return Crossing(Way.ACCESS, container, container.id)
    named = index.looks_contained(task.cgroup)
    return Crossing(Way.ACCESS, None, named) if named else None


def _by_namespaces(task: Task, index: ContainerLookup) -> Container | None:
    if not task.mount_namespace:
        return None
    return index.by_namespaces(task.mount_namespace, task.pid_namespace)


def _is_stage(event: ExecEvent, index: ContainerLookup) -> bool:
    """Whether the runtime runs itself in the container's cgroup before it goes in.

    It is still where its parent is, outside: what runs in a container has left that place. Of a
    copy that it made of itself the file may have no name at all, so its parent decides too.
    """
    task, parent = event.task, event.parent
    return (
        task.mount_namespace == parent.mount_namespace != 0
        and _by_cgroup(parent, index) is None
        and (is_runtime(task) or is_monitor(task) or is_runtime(parent))
    )


def _is_of(
    parent: Task, inside: Crossing, index: ContainerLookup, entered: Container | None
) -> bool:
    """Whether a parent belongs to the container that its child runs a program in."""
    if not parent.cgroup:
        known = _by_namespaces(parent, index)
        return known is not None and known.id == inside.container_id
    owner = _by_cgroup(parent, index)
    if owner is None:
        return False
    if owner.container_id == inside.container_id:
        return True
    # The pod's pause process adopts orphans where the pod's containers share its pid namespace.
    return (
        owner.container is not None
        and owner.container.kind == "sandbox"
        and owner.container.pod is not None
        and inside.container is not None
        and inside.container.pod is not None
        and inside.container.pod.uid == owner.container.pod.uid
        and entered is not None
        and entered.id == inside.container_id
    )


def _to(event: ExecEvent, index: ContainerLookup, target: Crossing) -> Crossing:
    container = target.container
    if container is None or (container.init_pid == 0 and not target.by_namespaces):
        return replace(target, way=Way.WAIT)
    if container.init_pid == event.task.pid:
        way = Way.ACCESS if _is_access_by_starting(container) else Way.INSIDE
        target = replace(target, way=way, by_namespaces=False, own_start=True)
    # Labels, and what is a probe, come with the kind.
    return target if index.is_kind_certain(container) else replace(target, way=Way.WAIT)


def _is_access_by_starting(container: Container) -> bool:
    """Whether somebody begins to work in a container by starting it."""
    return container.kind != "sandbox" and (
        container.kind == "ephemeral"
        or container.interactive
        or looks_ephemeral(container)
        or debugs_node(container)
    )


def debugs_node(container: Container) -> bool:
    """Whether a container is what kubectl debug makes to look at a node, by its pod's name."""
    pod = container.pod
    return pod is not None and container.shares_pids and pod.name.startswith("node-debugger-")


def looks_ephemeral(container: Container) -> bool:
    """Whether a container is called as kubectl debug calls its own, and nobody knows better."""
    pod = container.pod
    return (
        pod is not None
        and pod.labels is None
        and container.kind == "container"
        and container.name.startswith("debugger-")
    )
