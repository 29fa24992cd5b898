"""The items of installation_evidence that checks read: names and values, as in node.py.

Moments are seconds of the node's own wall clock since the epoch, ages seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from exectrail.compliance.items.access import Item
from exectrail.compliance.items.node import Unit

Moment = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
Size = Annotated[int, msgspec.Meta(ge=0)]


class Service(Unit, frozen=True):
    """A service in systemd's words."""

    sub: str
    restarts: int = 0


class Process(msgspec.Struct, frozen=True):
    """The agent's main process; `state` is the kernel's letter."""

    pid: int
    state: str
    age: float


class Config(msgspec.Struct, frozen=True):
    """What the agent's configuration says of its log; `max_size_mb` in millions of bytes."""

    folder: str
    max_size_mb: Size
    max_files: Size


class Program(msgspec.Struct, frozen=True):
    """The program that the link `current` leads to; its `folder` is named VERSION-DIGITS."""

    folder: str
    path: str
    sha256: str
    written: Moment


class AgentStatus(msgspec.Struct, frozen=True):
    """What the agent says of itself."""

    pid: int
    started: Moment
    sensor: str
    reasons: list[str]


class SelfTest(msgspec.Struct, frozen=True):
    """The self-test that was asked for: when, when it came back, whether it is in the log."""

    asked: Moment
    seen: Moment | None = None
    recorded: bool | None = None
    problem: str = ""


class Owned(msgspec.Struct, frozen=True):
    """A file or folder; `mode` in octal digits, `owner` as user and group id."""

    mode: str
    owner: tuple[int, int]


class NamedFile(Owned, frozen=True):
    """A file of a folder."""

    name: str


class AgentLog(msgspec.Struct, frozen=True):
    """The agent's log."""

    path: str
    folder: Owned
    held: Size
    files: list[NamedFile]


class Losses(msgspec.Struct, frozen=True):
    """Loss records of the last day: counts by cause, and the newest."""

    causes: dict[str, int]
    newest: Moment | None = None


class Entered(msgspec.Struct, frozen=True):
    """The exec into the canary pod, as the agent has recorded it."""

    namespace: str
    pod: str
    container: str
    command: str
    entry: str


class ApiServer(msgspec.Struct, frozen=True):
    """The running API server, and its audit flags without the dashes."""

    started: Moment
    flags: dict[str, str]


class Applied(msgspec.Struct, frozen=True):
    """What the last roll-out of the audit policy has left of itself, and when."""

    manifest: str
    written: Moment
    policy_sha256: str | None = None


class PolicyFile(msgspec.Struct, frozen=True):
    """The policy file that the server was told to read."""

    path: str
    text: str
    sha256: str
    written: Moment


class AuditLog(msgspec.Struct, frozen=True):
    """The log of the running server; null for what is not there."""

    path: str
    held: Size
    folder: Owned | None = None
    file: Owned | None = None


class Probe(msgspec.Struct, frozen=True):
    """A request of ours: for `name` among `resource`, or for the path /NAME where that is empty.

    `level` is null when the log does not tell of it.
    """

    resource: str
    name: str
    level: str | None = None


class Probes(msgspec.Struct, frozen=True):
    """Who made the requests, as the log says (empty if it tells of none), and what came of them."""

    user: str
    groups: list[str]
    requests: list[Probe]


class ClusterNode(msgspec.Struct, frozen=True):
    """A node of the cluster."""

    name: str
    addresses: list[str]


AGENT_UNIT: Item[Service | None] = Item("agent.unit", Service | None)
AGENT_PROCESS: Item[Process | None] = Item("agent.process", Process | None)
AGENT_CONFIG: Item[Config] = Item("agent.config", Config)
AGENT_PROGRAM: Item[Program | None] = Item("agent.program", Program | None)
AGENT_STATUS: Item[AgentStatus | None] = Item("agent.status", AgentStatus | None)
SELF_TEST: Item[SelfTest | None] = Item("agent.self_test", SelfTest | None)
AGENT_LOG: Item[AgentLog | None] = Item("agent.log", AgentLog | None)
LOSSES: Item[Losses] = Item("agent.losses", Losses)
ENTERED: Item[Entered | None] = Item("agent.canary", Entered | None)
KUBELET_UNIT: Item[Service | None] = Item("kubelet.unit", Service | None)
API_SERVER: Item[ApiServer | None] = Item("api.server", ApiServer | None)
API_NODES: Item[list[ClusterNode] | None] = Item("api.nodes", list[ClusterNode] | None)
APPLIED: Item[Applied | None] = Item("audit.applied", Applied | None)
POLICY: Item[PolicyFile | None] = Item("audit.policy", PolicyFile | None)
PROBES: Item[Probes | None] = Item("audit.probes", Probes | None)
AUDIT_LOG: Item[AuditLog | None] = Item("audit.log", AuditLog | None)
NOW: Item[float] = Item("clock.now", Moment)
