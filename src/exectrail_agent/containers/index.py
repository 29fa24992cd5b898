"""Which container a process is in: answered from what the runtimes' own files say."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from exectrail_agent.containers import cgroups
from exectrail_agent.containers.clients import client_of
from exectrail_agent.containers.containerd import FOLDERS, Containerd
from exectrail_agent.containers.folders import FolderWatch, Match
from exectrail_agent.containers.model import Container
from exectrail_agent.containers.pods import PodFacts, PodSource
from exectrail_agent.containers.source import Source
from exectrail_agent.containers.storage import ContainersStorage, UsersStorage
from exectrail_agent.containers.table import Known, Table
from exectrail_agent.proc import Place, ProcReader

_FILES = ("config.json", "init.pid", "pidfile")
# What kubectl debug calls a container if nobody gives it a name.
_DEBUGGER = re.compile(r"debugger-[bcdfghjklmnpqrstvwxz2456789]{5}")
_BLIND_RESCAN = 1.0
_UNKNOWN_RESCAN = 5.0
_NO_ACCESS = (
    "some processes' namespaces can't be read: CAP_SYS_PTRACE or a capability they have is missing"
)


class ContainerIndex:
    """The containers of this node.

    - `root`: where /run, /var, /home and /proc are.
    - `grace`: seconds for which a container that is gone is still found by its control group.
    - `pods`: who knows labels, probes and kinds; without, kinds are guessed from names.
    - `folders`: containerd's state folders, below `root`.

    Nothing here raises because of what a runtime or a container does. Raises OSError at once if
    the kernel allows no inotify instance.
    """

    def __init__(
        self,
        root: str = "/",
        *,
        grace: float = 60.0,
        pods: PodSource | None = None,
        folders: Sequence[str] = FOLDERS,
    ) -> None:
        self._grace = grace
        self._pods = pods
        top = Path(root)
        self._proc = ProcReader(str(top / "proc"))
        self._hidden: set[int | str] = set()
        self._sources: list[Source] = []
        patterns: list[str] = []
        sources: list[Source] = [ContainersStorage(top), UsersStorage(top)]
        sources.extend(Containerd(top, folder) for folder in folders)
        for source in sources:
            self._sources.extend([source] * len(source.patterns))
            patterns.extend(source.patterns)
        self._watch = FolderWatch(top, patterns, _FILES)
        self._known: dict[tuple[str, ...], Known] = {}
        self._table: Table | None = None
        self._rescanned = 0.0
        self._unsettled: set[Match] = set()
        self._facts: dict[str, PodFacts] = {}
        around = self._look("self")
        # An agent on a node that is itself a container may see that one's name in every path.
        self._outer = frozenset(
            named
            for path in (cgroups.of_process(around.cgroups) if around else ())
            for _, named in cgroups.ancestors(path)
        )
        self._hosts = [one for one in (self._look(1), around) if one]
        self.rescan()

    @property
    def problems(self) -> Mapping[str, str]:
        """Why what can't be read: by runtime, ``watch``, ``processes`` or ``pods``."""
        found = {"watch": self._watch.problem, "pods": self._pods.problem if self._pods else ""}
        if self._hidden:
            found["processes"] = _NO_ACCESS
        for known in self._known.values():
            description = known.description
            if description.problem and not known.gone:
                where = description.container
                found[where.runtime] = f"container {where.id[:64]!r}: {description.problem}"
        return {key: problem for key, problem in found.items() if problem}

    def fileno(self) -> int:
        """Return what is readable when `refresh` has something to do."""
        return self._watch.fileno()

    def refresh(self) -> None:
        """Take in what has changed: one system call if nothing has."""
        changed = self._watch.changed()
        blind = self._watch.problem and self._age() > _BLIND_RESCAN
        if changed is None or blind:
            self.rescan()
            return
        for match in changed | self._unsettled:
            self._take(match)

    def rescan(self) -> None:
        """List everything anew."""
        self._table = None
        self._rescanned = time.monotonic()
        found = self._watch.rescan()
        there = {self._key(match) for match in found}
        for match in found:
            self._take(match)
        for key, known in self._known.items():
            if key not in there:
                known.gone = True

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def by_cgroup(self, path: bytes) -> Container | None:
        """Return the outermost known container whose control group is `path` or around it.

        Also one that is gone, for the grace time.
        """
        # What a container's first exec needs was written before it, but perhaps not yet taken in.
        self.refresh()
        found = self._lookup().group(path)
        if not found and self.looks_contained(path) and self._age() > _UNKNOWN_RESCAN:
            # Nothing tells that a file system was mounted over a folder that is watched.
            self.rescan()
            found = self._lookup().group(path)
        return self._complete(found) if found else None

    def by_namespaces(self, mount: int, pid: int) -> Container | None:
        """Return the running container whose mount namespace this is, else whose pid namespace.

        Inode numbers; those of the host and of this agent are nobody's. A pid namespace that
        containers share is nobody's either.
        """
        self.refresh()
        found = self._lookup().namespaces(mount, pid)
        if not found or not found.place:
            return None
        # The kernel gives the numbers of dead namespaces to new ones.
        now = self._proc.mount_namespace(found.description.pid)
        if now != found.place.mount_namespace:
            self._inspect(found)
            again = self._lookup().namespaces(mount, pid)
            return self._complete(again) if again is found else None
        return self._complete(found)

    def looks_contained(self, path: bytes) -> str | None:
        """Return the outermost container id that a control group's path names, known or not."""
        return self._lookup().names(path)

    def client(self, container: Container) -> str:
        """Return the name of the runtime's client by which somebody on the node is in it now.

        "" if none is seen; what a container names so itself is none. Reads all of /proc.
        """
        for pid in self._proc.pids():
            name = client_of(container, self._proc.arguments(pid))
            groups = self._proc.cgroups(pid) if name else b""
            if groups and not any(map(self.looks_contained, cgroups.of_process(groups))):
                return name
        return ""

    def is_kind_certain(self, container: Container) -> bool:
        """Say whether `kind` is what the pod's specification says, or nobody will ever say it.

        The runtime may start a container before anybody has answered what it is: whoever must
        not take an ephemeral container for another asks for it again a little later.
        """
        if not container.pod or container.kind == "sandbox":
            return True
        if self._pods is None or self._pods.problem:
            return True
        facts = self._ask(container.pod.uid)
        return facts is not None and container.name in facts.kinds

    def all(self) -> Sequence[Container]:
        """Return the containers that are there, also those that don't run."""
        return [self._complete(known) for known in self._known.values() if not known.gone]

    def expire(self, now: float) -> None:
        """Forget those gone for longer than the grace time; `now` is seconds of any one clock."""
        for key, known in list(self._known.items()):
            if known.gone and known.gone_since is None:
                known.gone_since = now
            elif known.gone_since is not None and now - known.gone_since > self._grace:
                del self._known[key]
                self._table = None
        pods = [known.description.container.pod for known in self._known.values()]
        self._facts = {pod.uid: facts for pod in pods if pod and (facts := self._ask(pod.uid))}

    def _age(self) -> float:
        """Return the seconds since everything was listed."""
        return time.monotonic() - self._rescanned

    def _ask(self, uid: str) -> PodFacts | None:
        """Return what is known of a pod, or was: one that is deleted by force still runs."""
        facts = self._pods.pod(uid) if self._pods else None
        if facts:
            self._facts[uid] = facts
        return facts or self._facts.get(uid)

    def _key(self, match: Match) -> tuple[str, ...]:
        source = self._sources[match.pattern]
        return (type(source).__name__, *source.key(match.parts))

    def _take(self, match: Match) -> None:
        self._table = None
        key = self._key(match)
        description = self._sources[match.pattern].read(match.parts)
        known = self._known.get(key)
        self._unsettled.discard(match)
        if description and description.unsettled:
            self._unsettled.add(match)
            return
        if description is None:
            if known:
                known.gone = True
            return
        if not known or known.gone:
            container = description.container
            if self._pods and container.pod and container.kind != "sandbox":
                self._pods.want(container.pod.uid, container.name)
        self._known[key] = known = Known(description)
        self._inspect(known)

    def _inspect(self, known: Known) -> None:
        """Find the first process, if it is in the container as its description says."""
        self._table = None
        known.place = known.complete = None
        description = known.description
        expected = description.container.cgroup.encode("utf-8", "replace")
        known.groups = (expected,) if expected else ()
        place = self._look(description.pid) if description.pid else None
        if not place:
            return
        paths = cgroups.of_process(place.cgroups)
        found = [cgroups.base(path, description.container.id, expected) for path in paths]
        groups = tuple(path for path in found if path and path.startswith(description.slice))
        # A file with a process id outlives the process, and the id may be another's by then.
        if groups:
            known.place = place
            known.groups = tuple(dict.fromkeys(groups))

    def _look(self, pid: int | str) -> Place | None:
        self._hidden.discard(pid)
        try:
            return self._proc.look(pid)
        except PermissionError:
            self._hidden.add(pid)
        except (OSError, ValueError):
            pass  # It is gone.
        return None

    def _lookup(self) -> Table:
        if self._table is None:
            self._table = Table(self._known.values(), self._outer, self._hosts)
        return self._table

    def _complete(self, known: Known) -> Container:
        container = known.description.container
        pod = container.pod
        facts = self._ask(pod.uid) if pod else None
        labels = facts.labels if facts else self._lookup().labels.get(pod.uid) if pod else None
        done = known.complete
        if done and done[0] is facts and done[1] is labels:
            return done[2]
        if pod:
            container = replace(
                container,
                pod=replace(pod, labels=labels),
                probes=facts.probes.get(container.name, ()) if facts else (),
                kind=_kind(container, facts),
            )
        if known.groups:
            container = replace(container, cgroup=known.groups[0].decode("utf-8", "replace"))
        if known.place:
            container = replace(
                container,
                init_pid=known.description.pid,
                mount_namespace=known.place.mount_namespace,
                pid_namespace=known.place.pid_namespace,
            )
        known.complete = (facts, labels, container)
        return container


def _kind(container: Container, facts: PodFacts | None) -> str:
    if container.kind == "sandbox":
        return container.kind
    known = facts.kinds.get(container.name) if facts else None
    guess = "ephemeral" if _DEBUGGER.fullmatch(container.name) else container.kind
    return known or guess
