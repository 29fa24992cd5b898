"""What a node needs so that it has the agent as wanted, or has none: decided in one place."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from packaging.version import InvalidVersion, Version

PAST = "in the last ten minutes "
"""How a reason begins that tells of the past alone; the agent repeats it for ten minutes."""
_STALE_SECONDS = 30
_YOUNG_SECONDS = 15
_OLDEST_PYTHON = (3, 8)
_MODES = {"configuration": "0600", "unit": "0644", "command": "0755"}


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node as plugins/modules/exec_agent_node.py has read it.

    `current` is where the link of that name leads, `digest` the sha256 of the program there.
    `files` are the texts of configuration, unit and command, `modes` theirs. `active` and `enabled`
    are systemd's words,
    `process` the state letter of the main process and `age` its seconds; `newer` are files that
    were written after it has started. `status` is its status file, `silent` the seconds since it
    was written. `traces` are paths of an installation that exist, `held` those with what it has
    recorded.
    """

    python: tuple[int, int]
    bpf: bool
    libbpf: bool
    systemd: bool
    packages: str
    api: list[str]
    sensor: str
    current: str
    digest: str
    files: dict[str, str]
    modes: dict[str, str]
    log_modes: dict[str, str]
    active: str
    enabled: str
    process: str
    age: float
    newer: list[str]
    status: dict[str, Any]
    silent: float
    pid: int
    traces: list[str]
    held: list[str]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a node is to have; `files` are as in `Node`, those of each sensor."""

    state: Literal["present", "absent"]
    python: str
    sensor: Literal["auto", "bpf", "audit"]
    allow_downgrade: bool
    remove_logs: bool
    version: str = ""
    release: str = ""
    digest: str = ""
    files: dict[str, dict[str, str]] = {}


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether there is anything to do, and why.

    `kind` is one word for it; `restart` says that the running agent has to go even if no file
    changes; `refusals` are why it can't or may not be done. `sensor` is the one that is expected,
    `trial` the one that a self-test is to try before, if any.
    """

    kind: Literal["nothing", "install", "upgrade", "downgrade", "repair", "remove"]
    work: bool
    restart: bool = False
    reasons: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    sensor: str = ""
    trial: str = ""


def decide(node: Node, wanted: Wanted) -> Decision:
    """Compare what is there with what is wanted. Pure."""
    if wanted.state == "absent":
        left = _left(node, wanted)
        return Decision(
            kind="remove" if left else "nothing",
            work=bool(left),
            reasons=tuple(f"{path} is there" for path in left),
        )
    refusals = _refusals(node, wanted)
    unhealthy = _unhealthy(node)
    reasons = [*_differences(node, wanted), *unhealthy]
    return Decision(
        kind=_kind(node, wanted) if reasons else "nothing",
        # Who can't have it is asked to do something too: the refusal is said there.
        work=bool(reasons or refusals),
        restart=bool(node.newer or (unhealthy and not _young(node))),
        reasons=tuple(reasons),
        refusals=tuple(refusals),
        sensor=_sensor(node, wanted),
        trial=_trial(node, wanted),
    )


def changes(node: Node, wanted: Wanted, sensor: str) -> list[tuple[str, str, str]]:
    """Give what changes where this sensor works: its name, and its texts before and after."""
    if wanted.state == "absent":
        return [("paths", "".join(f"{path}\n" for path in _left(node, wanted)), "")]
    pairs = [(name, node.files[name], text) for name, text in wanted.files[sensor].items()]
    pairs.append(("program", node.current, wanted.release))
    return [pair for pair in pairs if pair[1] != pair[2]]


def version(node: Node) -> str:
    """Give the version that is installed; "" if none is."""
    return _release(node).rpartition("-")[0]


def _left(node: Node, wanted: Wanted) -> list[str]:
    return [*node.traces, *(node.held if wanted.remove_logs else ())]


def _sensor(node: Node, wanted: Wanted) -> str:
    if wanted.sensor != "auto":
        return wanted.sensor
    return node.sensor or ("bpf" if node.bpf else "audit")


def _trial(node: Node, wanted: Wanted) -> str:
    if node.sensor == "audit":
        # There is one kernel audit: a self-test with it would disturb the agent that runs.
        return "bpf" if wanted.sensor != "audit" and node.bpf else ""
    proven = node.sensor == "bpf" and wanted.sensor != "audit" and _release(node) == wanted.release
    return "" if proven else wanted.sensor


def _release(node: Node) -> str:
    return node.current.rpartition("/")[2]


def _kind(node: Node, wanted: Wanted) -> Literal["install", "upgrade", "downgrade", "repair"]:
    if not node.current:
        return "install"
    if _release(node) == wanted.release:
        return "repair"
    return "downgrade" if _is_older(wanted.version, version(node)) else "upgrade"


def _is_older(given: str, than: str) -> bool:
    """Compare as Python packages do, without local parts; what is no version is not older."""
    try:
        return Version(Version(given).public) < Version(Version(than).public)
    except InvalidVersion:
        return False


def _refusals(node: Node, wanted: Wanted) -> list[str]:
    found = []
    if not node.systemd:
        found.append("systemd does not run this node")
    if node.python < _OLDEST_PYTHON:
        found.append(
            f"{wanted.python} is Python {node.python[0]}.{node.python[1]}: install 3.8 or newer "
            "and name it in exec_agent_python"
        )
    if wanted.sensor == "bpf" and not node.bpf:
        found.append(
            "the bpf sensor needs a kernel from 5.8 on that describes its types "
            "(/sys/kernel/btf/vmlinux): leave exec_agent_sensor to auto"
        )
    if not wanted.allow_downgrade and _is_older(wanted.version, version(node)):
        found.append(
            f"version {version(node)} is installed and {wanted.version} is older: set "
            "exec_agent_allow_downgrade=true if it is to go back"
        )
    return found


def _differences(node: Node, wanted: Wanted) -> list[str]:
    if not node.current:
        return ["no agent is installed"]
    found = []
    if _release(node) != wanted.release:
        found.append(f"{_release(node)} is installed, not {wanted.release}")
    elif node.digest != wanted.digest:
        found.append("its program is not the one that was installed")
    for name, text in wanted.files[_sensor(node, wanted)].items():
        if node.files[name] != text:
            found.append(f"its {name} is another" if node.files[name] else f"it has no {name}")
        elif node.modes.get(name) != _MODES[name]:
            found.append(f"its {name} has mode {node.modes.get(name)}")
    found += [f"{path} has mode {mode}" for path, mode in sorted(node.log_modes.items())]
    if wanted.sensor == "auto" and node.sensor == "audit" and node.bpf and node.libbpf:
        found.append("the bpf sensor may work here by now")
    return found


def _unhealthy(node: Node) -> list[str]:
    """Say what keeps the agent that is there from seeing."""
    if not node.current:
        return []
    found = []
    if node.enabled != "enabled":
        found.append(f"its service is {node.enabled or 'not there'}")
    if node.active != "active":
        return [*found, f"its service is {node.active or 'not there'}"]
    if node.newer:
        found.append(f"{node.newer[0]} is newer than the agent that runs")
    if node.process in {"T", "t"}:
        return [*found, "its process was stopped by a signal"]
    if node.status.get("pid") != node.pid or node.silent > _STALE_SECONDS:
        return [*found, "it says nothing"]
    found += [str(reason) for reason in node.status["reasons"] if not str(reason).startswith(PAST)]
    if not node.status["canary"]:
        found.append("its self-test has not passed")
    return found


def _young(node: Node) -> bool:
    """Say whether it has not had the time to prove itself."""
    return node.process not in {"T", "t"} and node.age < _YOUNG_SECONDS
