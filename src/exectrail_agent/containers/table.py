"""Finds containers by control group and by namespaces. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exectrail_agent.containers import cgroups
from exectrail_agent.containers.model import Container
from exectrail_agent.containers.pods import PodFacts
from exectrail_agent.containers.source import Description
from exectrail_agent.proc import Place


@dataclass
class Known:
    """A container that the index knows.

    - `place`: where its first process is, once that was seen and proved to be in the container.
    - `groups`: its control groups as that process has them; without one, as configured.
    - `complete`: it with what its process and its pod add, and the facts and labels used for that.
    - `gone`: its description is; `gone_since` is when that was noticed.
    """

    description: Description
    place: Place | None = None
    groups: tuple[bytes, ...] = ()
    complete: tuple[PodFacts | None, Mapping[str, str] | None, Container] | None = None
    gone: bool = False
    gone_since: float | None = None


class Table:
    """An immutable view of what is known; of several that claim the same, the best one counts.

    A user's claim never outdoes the system's, nor what is gone what is there. `outer` are ids that
    say nothing here, `hosts` places whose namespaces are no container's; `labels` are those of pods
    by uid, as far as their runtime has them.
    """

    def __init__(
        self, known: Iterable[Known], outer: frozenset[str], hosts: Iterable[Place]
    ) -> None:
        self._outer = outer
        self._groups: dict[bytes, Known] = {}
        self._ids: dict[str, Known] = {}
        self._mounts: dict[int, Known] = {}
        self._pids: dict[int, list[Known]] = {}
        self.labels: dict[str, Mapping[str, str]] = {}
        for one in sorted(known, key=lambda one: (not one.description.slice, not one.gone)):
            container = one.description.container
            self._ids[container.id] = one
            if container.pod and container.pod.labels is not None:
                self.labels[container.pod.uid] = container.pod.labels
            for group in one.groups:
                self._groups[group] = one
            if one.place and not one.gone:
                self._mounts[one.place.mount_namespace] = one
                self._pids.setdefault(one.place.pid_namespace, []).append(one)
        for host in hosts:
            self._mounts.pop(host.mount_namespace, None)
            self._pids.pop(host.pid_namespace, None)

    def group(self, path: bytes) -> Known | None:
        """Return the outermost container whose control group is `path` or around it."""
        for ancestor, named in cgroups.ancestors(path):
            found = self._groups.get(ancestor)
            if found:
                return found
            found = self._ids.get(named) if named and named not in self._outer else None
            # Once its real group is known, another one of that name is somebody else's.
            if found and not found.place and _may_be(found, ancestor):
                return found
        return None

    def names(self, path: bytes) -> str | None:
        """Return the outermost container id in the path, known or not."""
        for _, named in cgroups.ancestors(path):
            if named and named not in self._outer:
                return named
        return None

    def namespaces(self, mount: int, pid: int) -> Known | None:
        """Return the container that has this mount namespace, else this pid namespace alone."""
        found = self._mounts.get(mount)
        if found:
            return found
        owners = self._pids.get(pid, [])
        if len(owners) == 1 and not owners[0].description.container.shares_pids:
            return owners[0]
        return None


def _may_be(known: Known, group: bytes) -> bool:
    # Below their own slices users name groups as they like.
    users = known.description.slice
    return group.startswith(users) if users else not group.startswith(b"/user.slice/")
