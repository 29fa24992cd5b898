"""Sessions for people: who entered which container, and what was run there, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from exectrail_agent.log.escape import visible

_WIDEST = 90
"""Columns; what is nested deeper is shown there."""


@dataclass
class _Session:
    entry: Mapping[str, Any] | None = None
    commands: list[Mapping[str, Any]] = field(default_factory=list)
    exits: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None


def render(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the sessions in the order in which they began."""
    sessions: dict[str, _Session] = {}
    for record in records:
        trace = record.get("traceId")
        if not isinstance(trace, str):
            continue
        session = sessions.setdefault(trace, _Session())
        kind = record.get("kind")
        if kind == "Kubernetes":
            session.entry = record
        elif kind == "Command":
            session.commands.append(record)
        elif kind == "CommandExit":
            session.exits[str(record.get("eventId"))] = record
        elif kind == "SessionEnd":
            session.end = record
    return "\n".join(_session(trace, each) for trace, each in sessions.items())


def _session(trace: str, session: _Session) -> str:
    known = session.entry or (session.commands[0] if session.commands else {})
    lines = [f"{_where(known)}  {visible(known.get('entry.type', ''))}".rstrip()]
    when = visible(str(known.get("time", ""))[:19].replace("T", " "))
    lines.append(f"  {when}  traceId {visible(trace)}")
    children: dict[str, list[Mapping[str, Any]]] = {}
    earlier: set[str] = set()
    for command in session.commands:
        parent = str(command.get("parentEventId", ""))
        # Only an earlier one can be the parent: whatever a damaged log says, there is no ring.
        children.setdefault(parent if parent in earlier else "", []).append(command)
        earlier.add(str(command.get("eventId", "")))
    pending = [(each, "", index == 0) for index, each in enumerate(reversed(children.pop("", [])))]
    while pending:
        command, indent, last = pending.pop()
        event = str(command.get("eventId"))
        lines.append(f"  {indent}{'└─' if last else '├─'} {_command(command, session)}")
        below = indent + ("   " if last else "│  ") if len(indent) < _WIDEST else indent
        pending += [
            (each, below, index == 0)
            for index, each in enumerate(reversed(children.pop(event, [])))
        ]
    if session.end is None:
        lines.append("  (still open)")
    return "\n".join(lines) + "\n"


def _where(record: Mapping[str, Any]) -> str:
    pod = record.get("k8s.pod.name")
    if pod:
        namespace = visible(record.get("k8s.pod.namespace", ""))
        name = visible(record.get("k8s.container.name", ""))
        return f"{namespace}/{visible(pod)} [{name}]"
    names = ("container.name", "k8s.container.name", "container.id", "k8s.container.id")
    known = (record[each] for each in names if record.get(each))
    return visible(next(known, "a container that nobody knows"))


def _command(command: Mapping[str, Any], session: _Session) -> str:
    arguments = command.get("process.args")
    words = arguments if isinstance(arguments, list) else [command.get("process.cmdline", "")]
    text = " ".join(_quoted(visible(word)) for word in words)
    ended = session.exits.get(str(command.get("eventId")))
    return f"{text}{_exit(ended)}"


def _exit(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return ""
    code, signal = record.get("exit.code"), record.get("exit.signal")
    if signal:
        return f"   [signal {visible(signal)}]"
    return "" if code == 0 else f"   [exit {visible(code)}]"


def _quoted(word: str) -> str:
    return f"'{word}'" if not word or " " in word else word
