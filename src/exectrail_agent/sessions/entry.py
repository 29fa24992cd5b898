"""How somebody came into a container, as far as what the kernel shows can tell."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b

from exectrail_agent.containers.model import Container
from exectrail_agent.events import AUDIT_VARIABLES, UNSET_LOGIN_UID, ExecEvent, Task
from exectrail_agent.sessions.crossing import (
    Crossing,
    Way,
    debugs_node,
    is_monitor,
    is_runtime,
    looks_ephemeral,
)
from exectrail_agent.sessions.program import arguments, base, runtime_name

_AUDIT_ID, _SPO_UID = AUDIT_VARIABLES
_NO_AUDIT_ID = b"unknown"
_HOOKS = {"postStart", "preStop"}
_TAR_MODES = {b"cf", b"xmf", b"xf"}
_OPERATIONS = {
    "exec": "PodExec",
    "copy": "PodExec",
    "ephemeral-container": "PodEphemeralContainers",
    "interactive-container": "PodAttach",
}
_ORPHAN = 0.3
_NO_FIRST_PROCESS = 0.4
_UNREADABLE = 0.5
_UNDESCRIBED = 0.6
_CLIENT = 0.8


@dataclass(frozen=True)
class Entry:
    """How a session began: one of the documented types, how sure that is (0 to 1), and why not 1.

    `probe` names the probe or hook of the pod's specification that has the same command.
    """

    type: str
    confidence: float = 1.0
    reason: str = ""
    probe: str = ""

    @property
    def operation(self) -> str | None:
        """What it is called in Kubernetes' own audit, if it is there at all."""
        return _OPERATIONS.get(self.type)


@dataclass(frozen=True)
class Ids:
    """What ties an entry to Kubernetes' audit: the API request's own id, and SPO's; b"" if none."""

    audit: bytes = b""
    spo: bytes = b""


UNSEEN = Entry("unknown", 0.2, "how it began was not seen")


def ids_of(event: ExecEvent) -> Ids:
    """Return the ids that were handed to an entry's first program."""
    args = arguments(event).values
    spo = event.environment.get(_SPO_UID, b"")
    if not spo and _carries_spo(args):
        spo = args[1].partition(b"=")[2]
    return Ids(event.environment.get(_AUDIT_ID, b""), spo)


def classify(
    event: ExecEvent,
    crossing: Crossing,
    *,
    regular: bool = False,
    client: Callable[[Container], str] = lambda _: "",
) -> Entry:
    """Return the type of an access.

    - `regular`: the same command came at even intervals before.
    - `client`: returns the name of the runtime's client that is at work in a container, "" if none
      is seen; asked only where that decides.
    """
    entry = _typed(event, crossing, regular=regular)
    if crossing.own_start and crossing.way is Way.WAIT:
        entry = _at_most(entry, _UNDESCRIBED, "nobody has said what kind of container it is")
    if crossing.container and entry.type in {"exec", "unknown"} and not _is_known(ids_of(event)):
        name = client(crossing.container)
        if name:
            reason = f"{name} was at work in the container, perhaps not alone"
            entry = Entry("runtime-exec", _CLIENT, reason)
    return _at_most(entry, crossing.certainty, crossing.doubt)


def _typed(event: ExecEvent, crossing: Crossing, *, regular: bool) -> Entry:
    container = crossing.container
    if crossing.own_start and container:
        return _started(container)
    if crossing.by_namespaces:
        return _by_namespaces(event)
    if container and container.shares_pids and _may_adopt(event.parent, event.task):
        return Entry(
            "unknown", _ORPHAN, "an orphan of a container with the host's pids has the same parent"
        )
    if _by_runtime(event):
        return _through_runtime(event, crossing, regular=regular)
    if not event.parent.executable:
        entry = _through_runtime(event, crossing, regular=regular)
        return _at_most(entry, _UNREADABLE, "what started it could not be read")
    return _from_host(event, container)


def _may_adopt(parent: Task, task: Task) -> bool:
    """Whether a parent may have got its child when another died: within one pid namespace only."""
    both = {parent.pid_namespace, task.pid_namespace}
    return is_monitor(parent) and (len(both) == 1 or 0 in both)


def _by_namespaces(event: ExecEvent) -> Entry:
    if _by_runtime(event):
        return Entry("runtime-exec", 0.7, "a runtime started it outside the container's cgroup")
    return Entry("nsenter")


def _from_host(event: ExecEvent, container: Container | None) -> Entry:
    if runtime_name(event.parent) == b"nsenter":
        return Entry("nsenter", 0.95, "nsenter may also have been another program's name")
    if container and container.mount_namespace == event.task.mount_namespace != 0:
        return Entry("nsenter", 0.8, "it joined the container's cgroup too")
    return Entry("unknown", 0.5, "it came into the container's cgroup without a known runtime")


def _by_runtime(event: ExecEvent) -> bool:
    return is_runtime(event.parent) or is_monitor(event.parent)


def _started(container: Container) -> Entry:
    if container.kind == "ephemeral":
        return Entry("ephemeral-container")
    if looks_ephemeral(container):
        return Entry("ephemeral-container", 0.7, "told by its name alone")
    if debugs_node(container):
        return Entry("nsenter", 0.8, "a pod named as kubectl debug node names its own")
    return Entry(
        "interactive-container", 0.8, "a container with a terminal may start with nobody at it"
    )


def _through_runtime(event: ExecEvent, crossing: Crossing, *, regular: bool) -> Entry:
    container = crossing.container
    if container is None:
        entry = _executed(event, described=False, regular=False)
        if b"kubepods" not in event.task.cgroup:
            entry = Entry("runtime-exec")
        return _at_most(entry, _UNDESCRIBED, "nobody has described the container")
    entry = _in_container(event, container, regular=regular)
    if crossing.way is Way.WAIT:
        return _at_most(entry, _NO_FIRST_PROCESS, "it may be the container's own first process")
    return entry


def _in_container(event: ExecEvent, container: Container, *, regular: bool) -> Entry:
    if event.tty is None and not _is_known(ids_of(event)):
        command = tuple(arguments(event).values)
        for probe in container.probes:
            if tuple(part.encode(errors="surrogatepass") for part in probe.command) == command:
                kind = "hook" if probe.kind in _HOOKS else "probe"
                reason = "anybody may have run the same command"
                return Entry(kind, 0.9, reason, probe=probe.kind)
    if event.login_uid != UNSET_LOGIN_UID and container.pod:
        return Entry("runtime-exec", 0.9, "a login's user id came with it, the kubelet has none")
    if container.pod is None:
        return Entry("runtime-exec")
    described = container.pod.labels is not None or bool(container.probes)
    return _executed(event, described=described, regular=regular)


def _executed(event: ExecEvent, *, described: bool, regular: bool) -> Entry:
    if event.tty is None and _copies(_own_command(arguments(event).values)):
        return Entry("copy", 0.9, "anybody may run tar in this way")
    if _is_known(ids_of(event)):
        return Entry("exec", 0.95, "an audit id came with it, and others can set that variable")
    if event.tty is not None:
        return Entry("exec", 0.9, "a client of the runtime, such as crictl, leaves the same trace")
    if described:
        return Entry("exec", 0.8, "a client of the runtime, such as crictl, leaves the same trace")
    if regular:
        return Entry("probe", 0.6, "told by its even intervals; the pod's probes are not known")
    return Entry("exec", 0.6, "may be a probe or a hook: those of the pod are not known")


def _is_known(ids: Ids) -> bool:
    return bool(ids.spo) or ids.audit not in {b"", _NO_AUDIT_ID}


def _at_most(entry: Entry, confidence: float, reason: str) -> Entry:
    if entry.confidence <= confidence:
        return entry
    return replace(entry, confidence=confidence, reason=reason)


def _carries_spo(args: tuple[bytes, ...]) -> bool:
    return len(args) > 1 and base(args[0]) == b"env" and args[1].startswith(_SPO_UID + b"=")


def _own_command(args: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return args[2:] if _carries_spo(args) else args


def _copies(args: tuple[bytes, ...]) -> bool:
    """Whether a command is one of those by which kubectl cp copies, or goes on copying."""
    if not args:
        return False
    if base(args[0]) == b"tar":
        pairs = zip(args[1:], args[2:])  # noqa: B905, RUF007 - neither is in Python 3.8
        return any(mode.lstrip(b"-") in _TAR_MODES and file == b"-" for mode, file in pairs)
    return (
        args[:2] == (b"sh", b"-c")
        and args[-1].startswith(b"tar cf - ")
        and b" | tail -c+" in args[-1]
    )


class IntervalWatch:
    """Notices commands that come into a container at even intervals, as probes do."""

    _SIZE = 1024
    _TIMES = 4
    _SLACK = 0.1
    _LEAST_SLACK = 300_000_000
    _LEAST = 1_000_000_000

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, deque[int]] = OrderedDict()

    def regular(self, container_id: str, event: ExecEvent) -> bool:
        """Note an entry, and say whether it is at least the fourth at even intervals."""
        text = container_id.encode(errors="surrogatepass") + b"\0" + event.argv
        key = blake2b(text, digest_size=16).digest()
        times = self._seen.setdefault(key, deque(maxlen=self._TIMES))
        self._seen.move_to_end(key)
        if len(self._seen) > self._SIZE:
            self._seen.popitem(last=False)
        times.append(event.time)
        if len(times) < self._TIMES:
            return False
        stamps = list(times)
        gaps = [stamps[at + 1] - stamps[at] for at in range(len(stamps) - 1)]
        mean = sum(gaps) / len(gaps)
        slack = max(mean * self._SLACK, self._LEAST_SLACK)
        return mean >= self._LEAST and all(abs(gap - mean) <= slack for gap in gaps)
