"""A container as its runtime describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Probe:
    """A command that the kubelet, or Docker itself, runs inside a container.

    `kind` is ``liveness``, ``readiness``, ``startup``, ``postStart``, ``preStop`` or, Docker's,
    ``health``.
    """

    kind: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Pod:
    """The pod of a container; `labels` is None where nobody could be asked for them."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Container:
    """One container. Strings are as the runtime has them: anybody may have chosen them.

    - `runtime`: ``containerd``, ``cri-o``, ``docker`` or ``podman``.
    - `name`: of a pod's container its name there, else the runtime's.
    - `kind`: ``container``, ``sandbox`` (a pod's pause container), ``init`` or ``ephemeral``; of a
      pod, as far as known.
    - `cgroup`: path below the hierarchy's root, "" if unknown.
    - `init_pid`: in the agent's pid namespace, 0 if unknown; the namespaces are that process's.
    - `shares_pids`: its pid namespace is the host's or its pod's, so that pid 1 of it says nothing.
    - `interactive`: made with a standard input and a terminal (``kubectl run -it``).
    """

    id: str
    runtime: str
    name: str
    image: str
    cgroup: str
    init_pid: int = 0
    mount_namespace: int = 0
    pid_namespace: int = 0
    shares_pids: bool = False
    interactive: bool = False
    kind: str = "container"
    pod: Pod | None = None
    probes: tuple[Probe, ...] = field(default=())
