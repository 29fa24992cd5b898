"""The request for a roll-out, and what the masters say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from exectrail.audit_policy.manifest.settings import Settings
from exectrail.errors import UsageError


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of the steps on one master, in seconds."""

    start: int = 180
    ready: int = 300
    stable: int = 10
    probe: int = 30


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for, by the role's variables of the same names.

    `own_policy` is a file on the controller that replaces the profile; `masters` are all of the
    inventory, `selected` those that this run may change.
    """

    run: str
    holder: str
    state: Literal["present", "absent"]
    profile: str
    own_policy: str
    rules_first: list[dict[str, Any]]
    policy_file: str
    log_path: str
    log_maxsize: int
    log_maxbackup: int
    log_maxage: int
    cluster_id: str
    log_collection: bool
    take_over: bool
    remove_logs: bool
    state_dir: str
    timeouts: Timeouts
    masters: tuple[str, ...]
    selected: tuple[str, ...]

    def settings(self, **more: Any) -> Settings:
        """Give the manifest's settings; raise ManifestError for values no server could run with."""
        return Settings(
            policy_file=self.policy_file,
            log_path=self.log_path,
            log_maxsize=self.log_maxsize,
            log_maxbackup=self.log_maxbackup,
            log_maxage=self.log_maxage,
            log_collection=self.log_collection,
            take_over=self.take_over,
            **more,
        )

    @property
    def log_cap(self) -> int:
        """The most that the log takes, in bytes: the file in use and the rotated ones."""
        return self.log_maxsize * (self.log_maxbackup + 1) * 1024 * 1024

    @property
    def seconds_per_master(self) -> int:
        """How long a master may take at most, there and back."""
        limits = self.timeouts
        return limits.start + limits.ready + limits.probe + 900


class Kubelet(msgspec.Struct, frozen=True):
    """Whether the kubelet runs, and the folder of its static pods."""

    running: bool
    static_pod_path: str


class ManifestFile(msgspec.Struct, frozen=True):
    """The manifest as it is."""

    path: str
    text: str


class PolicyFile(msgspec.Struct, frozen=True):
    """What is at the policy's path; `kind` is ``file``, ``absent`` or says what else.

    `written` is its time of modification, in seconds of the node's clock.
    """

    kind: str
    text: str = ""
    mode: str = ""
    owner: tuple[int, int] = (0, 0)
    written: float = 0.0


class LogFolder(msgspec.Struct, frozen=True):
    """Room for the log: `free` and `held` by logs that are there, in bytes; `mode` if it exists."""

    free: int
    held: int
    mode: str | None
    problem: str | None


class Process(msgspec.Struct, frozen=True):
    """The running API server; `started` is in seconds of the node's clock as it goes now."""

    pid: int
    start: int
    args: list[str]
    started: float = 0.0


class Server(msgspec.Struct, frozen=True):
    """What the API server answers; only `problem` if it is not ready. `age` is in seconds."""

    problem: str | None
    version: str = ""
    namespace_uid: str = ""
    kubeadm: dict[str, Any] | None = None
    restarts: int = 0
    age: float = 0.0


class Applied(msgspec.Struct, frozen=True):
    """The last change that proved itself."""

    run: str
    manifest: str
    policy_sha256: str | None


class Rollout(msgspec.Struct, frozen=True):
    """The journal of a master's last change; `outcome` is running, done, back, abandoned or lost.

    `steps` are names and times; `alive` says whether the process that makes the change still runs;
    `lasting` is the API server (pid, start, boot) that has been seen to last.
    """

    folder: str
    outcome: str
    steps: list[tuple[str, float]]
    alive: bool
    run: str = ""
    cause: str = ""
    problem: str = ""
    unavailable: float = 0.0
    evidence: dict[str, str] = {}
    lasting: tuple[int, int, str] | None = None

    @property
    def interrupted(self) -> bool:
        """Whether nobody is at work on a change that has not ended."""
        return self.outcome == "running" and not self.alive


class Lock(msgspec.Struct, frozen=True):
    """Whose run it is, and for how many seconds more."""

    run: str
    holder: str
    seconds: int


class Master(msgspec.Struct, frozen=True, kw_only=True):
    """One master as the module apiserver_pod has read it."""

    kubelet: Kubelet
    foreign: str | None
    manifest: ManifestFile | None
    policy: PolicyFile
    log: LogFolder
    process: Process | None
    server: Server | None
    strays: list[str]
    state_dir: str | None
    applied: Applied | None
    original: dict[str, str | None] | None
    rollout: Rollout | None
    lock: Lock | None


class Unread(msgspec.Struct, frozen=True):
    """A master that could not be read, and why."""

    problem: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done on one master; also the request to its module.

    - `manifest` is the new text, `expected` the sha256 of the one that it replaces.
    - `policy` is the file's new text, None to leave it, or to remove it if `absent`.
    - `restart` is False if the running server needs not know of the change.
    - `wanted` maps the flags of the new server to their values, None for none.
    - `probe` is a request that the new policy records: path, agent, level.
    """

    reasons: tuple[str, ...]
    expected: str
    manifest: str
    manifest_before: str
    policy: str | None
    policy_before: str | None
    policy_sha256: str | None
    restart: bool
    wanted: dict[str, str | None]
    probe: dict[str, str] | None
    absent: bool


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run will do.

    `differing` are masters that this run leaves as they are although they differ. `kubeadm` is the
    ClusterConfiguration as it was read and as it is to be, None if nothing is to change. `leaving`
    are masters on which nothing of ours, not even notes, is to be there in the end.
    """

    not_applicable: str = ""
    changes: dict[str, Change] = {}
    notes: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    kubeadm: tuple[str, str] | None = None
    log_path: str = ""
    leaving: tuple[str, ...] = ()


class RolloutError(UsageError):
    """The roll-out can't begin; the message names every reason, and nothing was changed."""


def convert(data: Any, kind: type[Any]) -> Any:
    """Build `kind` from plain data of a node; raise RolloutError if it has another shape."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RolloutError(f"the master's answer has an unknown form: {error}") from error


def own_policy(request: Request) -> Path | None:
    """Where the user's own policy is, if it replaces the profile."""
    return Path(request.own_policy) if request.own_policy else None
