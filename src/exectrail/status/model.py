"""What each node says of itself, judged: the rows of ``exectrail status`` and its exit code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from exectrail.compliance.model import ExitCode, Report
from exectrail.compliance.verdict import judge
from exectrail.nodes import script
from exectrail.nodes.fleet import Answer
from exectrail.nodes.reachability import explain

_STALE = 30.0
"""Seconds after which a status that was not rewritten tells nothing; the agent's own bound."""


class State(StrEnum):
    """How an agent is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Of the agent's status file what is shown; moments are epoch seconds of the node."""

    version: str
    sensor: str
    written: float
    last_record: float
    losses: dict[str, int]
    reasons: list[str]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What on_node.py prints; `process` is a letter of the kernel's, empty for none."""

    now: float
    loaded: bool
    active: str
    process: str
    status: AgentStatus | None
    policy: bool | None


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A row. `policy` is null where no API server runs, `fit` empty where no preflight was made.

    `age` is the time since the last record in seconds, null where there is none. `why` says what is
    wrong, in words.
    """

    host: str
    agent: State
    fit: str = ""
    sensor: str = ""
    version: str = ""
    policy: bool | None = None
    age: float | None = None
    losses: int | None = None
    why: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing has to be done here."""
        return self.agent is State.HEALTHY and self.policy is not False


def fitness(report: Report | None) -> dict[str, str]:
    """Give each host's verdict in the last preflight."""
    if report is None:
        return {}
    gates = report.profile.gates
    return {host.host: str(judge([host], gates, strict=report.strict)) for host in report.hosts}


def row(answer: Answer, fit: str) -> Node:
    """Judge what a node has said, or why it said nothing."""
    said = None if answer.unreachable else _said(answer.out)
    if said is None:
        words = f"{answer.out}\n{answer.err}\n{answer.unreachable}"
        why = explain(words, answer.host).problem
        return Node(host=answer.host, agent=State.UNREACHABLE, fit=fit, why=why)
    agent, why = _agent(said)
    about = said.status
    if said.policy is False:
        why = "; ".join(filter(None, (why, "the API server has not the audit policy rolled out")))
    shown = about if about and agent is not State.ABSENT else None
    return Node(
        host=answer.host,
        agent=agent,
        fit=fit,
        sensor=shown.sensor if shown else "",
        version=shown.version if shown else "",
        policy=said.policy,
        age=max(0.0, said.now - shown.last_record) if shown and shown.last_record else None,
        losses=sum(shown.losses.values()) if shown else None,
        why=why,
    )


def _said(out: str) -> Said | None:
    for answer in script.answers(out):
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.convert(answer, Said)
    return None


def _agent(said: Said) -> tuple[State, str]:
    if not said.loaded:
        return State.ABSENT, "the agent is not installed"
    if obstacle := _down(said):
        return State.DOWN, obstacle
    reasons = said.status.reasons if said.status else []
    return (State.DEGRADED, "; ".join(reasons)) if reasons else (State.HEALTHY, "")


def _down(said: Said) -> str:
    if said.active != "active" or not said.process:
        return f"the agent is {said.active or 'not known to systemd'}"
    if said.process in "Tt":
        return "the agent is stopped by a signal"
    if said.status is None:
        return "the agent has not told its status"
    silent = said.now - said.status.written
    return f"the agent has not said anything for {silent:.0f} s" if silent > _STALE else ""


def exit_code(nodes: Iterable[Node]) -> int:
    """Give the exit code that all commands share; a node that can't be asked decides."""
    rows: Sequence[Node] = list(nodes)
    if any(node.agent is State.UNREACHABLE for node in rows):
        return ExitCode.UNKNOWN
    return ExitCode.FIT if all(node.fine for node in rows) else ExitCode.UNFIT
