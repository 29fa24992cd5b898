"""The rows of ``exectrail status`` as a table, and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from exectrail.compliance.render.layout import columns
from exectrail.hostnames import fold, in_order
from exectrail.printable import printable
from exectrail.status.model import Node, State, exit_code

_HEAD = ("node", "fit", "agent", "sensor", "version", "policy", "last record", "lost")
_RED, _GREEN, _YELLOW, _MAGENTA, _BOLD = "31", "32", "33", "35", "1"
_COLOURS = {
    State.HEALTHY: _GREEN,
    State.DEGRADED: _YELLOW,
    State.DOWN: _RED,
    State.ABSENT: _RED,
    State.UNREACHABLE: _MAGENTA,
    "fit": _GREEN,
    "unfit": _RED,
    "unknown": _MAGENTA,
    "warnings": _YELLOW,
    "yes": _GREEN,
    "no": _RED,
}
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))
_NOTHING = "–"  # noqa: RUF001  meant
_LONGEST = 300


def table(nodes: Sequence[Node], *, colour: bool) -> str:
    """Return a row for each node that was reached, a line for what is wrong, and the outcome."""
    by_name = {node.host: node for node in nodes}
    ordered = [by_name[host] for host in in_order(by_name)]
    rows = [_cells(node) for node in ordered if node.agent is not State.UNREACHABLE]
    widths = [max(columns(cell) for cell in column) for column in zip(_HEAD, *rows, strict=True)]
    lines = [_line(_HEAD, widths, head=True, colour=colour)] if rows else []
    lines += [_line(cells, widths, head=False, colour=colour) for cells in rows]
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for node in ordered:
        if node.why:
            # Each unreachable node has no other line; what others share is said once.
            wrong[node.why, node.host * (node.agent is State.UNREACHABLE)].append(node.host)
    lines += [""] * bool(rows and wrong)
    for (why, _), hosts in wrong.items():
        lines.append(f"{printable(fold(hosts))}: {printable(why, limit=_LONGEST)}")
    fine = sum(node.fine for node in ordered)
    counts = Counter(str(node.agent) for node in ordered if node.agent is not State.HEALTHY)
    others = "".join(f", {count} {state}" for state, count in sorted(counts.items()))
    code = exit_code(nodes)
    last = f"{fine} of {len(ordered)} nodes as they should be{others} (exit {code})"
    lines += ["", _paint(last, _RED if code else _GREEN, colour=colour)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def as_json(nodes: Sequence[Node]) -> str:
    """Return all of it for programs: ``nodes`` by name, and the ``exit_code``."""
    by_name = {node.host: node for node in nodes}
    ordered = [by_name[host] for host in in_order(by_name)]
    found = {"nodes": msgspec.to_builtins(ordered), "exit_code": exit_code(nodes)}
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def _cells(node: Node) -> tuple[str, ...]:
    policy = {True: "yes", False: "no", None: _NOTHING}[node.policy]
    lost = _NOTHING if node.losses is None else str(node.losses)
    found = (node.host, node.fit, node.agent, node.sensor, node.version, policy, _age(node), lost)
    return tuple(printable(str(cell)) or _NOTHING for cell in found)


def _age(node: Node) -> str:
    if node.age is None:
        return "never" if node.losses is not None else _NOTHING
    for seconds, unit in _UNITS:
        if node.age >= seconds:
            return f"{node.age // seconds:.0f} {unit} ago"
    return f"{node.age:.0f} s ago"


def _line(cells: Sequence[str], widths: Sequence[int], *, head: bool, colour: bool) -> str:
    parts = []
    for cell, width in zip(cells, widths, strict=True):
        padding = " " * (width - columns(cell))
        shade = _BOLD if head else _COLOURS.get(cell, "")
        parts.append(_paint(cell, shade, colour=colour) + padding)
    return "  ".join(parts)


def _paint(text: str, shade: str, *, colour: bool) -> str:
    return f"\x1b[{shade}m{text}\x1b[0m" if colour and shade else text
