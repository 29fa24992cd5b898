"""The report as one page that needs nothing else: no network, no script, no second file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from exectrail.compliance.model import HostState, Report, Severity, Verdict
from exectrail.compliance.render.findings import Findings, Rank, consequence, group, rank
from exectrail.compliance.render.layout import blocks
from exectrail.hostnames import fold, in_order
from exectrail.printable import printable

_HERE = Path(__file__).parent
_INLINE_CODE = re.compile(r"`([^`]+)`")
_VARIANTS = 200
"""Different observations shown of one finding; a page must open on a telephone too."""
_LONGEST = 2_000
"""Characters of one text from a node; report.json has it whole."""


_VERDICTS = {
    Verdict.FIT: "Every node meets the requirements that gate.",
    Verdict.WARNINGS: "Nothing gates, but there are warnings, and the run was strict.",
    Verdict.UNFIT: "Some nodes do not meet a requirement that gates.",
    Verdict.UNKNOWN: "Some nodes, or requirements that gate, could not be checked.",
}


class Cell(NamedTuple):
    """The outcome of one check on nodes that are alike; `finding` is its id on the page, or ""."""

    state: str
    finding: str


class Row(NamedTuple):
    """Nodes that are alike in every check; with a `problem` they were not checked at all."""

    hosts: tuple[str, ...]
    cells: tuple[Cell, ...]
    problem: str = ""


class CheckRow(NamedTuple):
    """One requirement, and on how many of the nodes that were checked it had which outcome."""

    check: str
    title: str
    severity: Severity
    expected: str
    references: tuple[str, ...]
    counts: Counter[str]


def render(report: Report) -> str:
    """Return the page; every text in it is escaped, and control characters are shown as text."""
    found = group(report)
    checks = _checks(report)
    return _template().render(
        report=report,
        found=found,
        checks=checks,
        rows=_rows(report, found, list(checks)),
        nodes=_nodes(report),
        fact_names=list(dict.fromkeys(name for host in report.hosts for name in host.facts)),
        tally=Counter(finding.rank.name for finding in found.findings),
        verdict_says=_VERDICTS[report.verdict],
        most_variants=_VARIANTS,
    )


def _checks(report: Report) -> dict[str, CheckRow]:
    checks: dict[str, CheckRow] = {}
    for host in report.hosts:
        for result in host.results:
            row = checks.get(result.check)
            if row is None:
                row = checks[result.check] = CheckRow(
                    result.check,
                    result.title,
                    result.severity,
                    result.expected,
                    result.references,
                    Counter(),
                )
            if host.state is HostState.CHECKED:
                row.counts["waived" if result.waived else result.status] += 1
    return checks


def _rows(report: Report, found: Findings, checks: list[str]) -> list[Row]:
    """Fold the nodes that are alike into rows, the worst first."""
    ids = {
        (finding.rank, finding.check, finding.status, finding.severity): f"f{number}"
        for number, finding in enumerate(found.findings)
    }
    obstacles = {
        host: f"o{number}"
        for number, obstructed in enumerate(found.obstructed)
        for host in obstructed.hosts
    }
    none = Cell("", "")
    alike: dict[tuple[Cell, ...], list[str]] = defaultdict(list)
    for host in report.hosts:
        if host.state is HostState.CHECKED:
            cells = {}
            for result in host.results:
                key = (rank(result, report.profile), result.check, result.status, result.severity)
                state = "waived" if key[0] is Rank.WAIVED else result.status.value
                id_ = obstacles[host.host] if consequence(result, host) else ids.get(key, "")
                cells[result.check] = Cell(state, id_)
            alike[tuple(cells.get(check, none) for check in checks)].append(host.host)
    gating = {id_ for (place, *_), id_ in ids.items() if place is Rank.GATING}
    gating |= {f"o{number}" for number, each in enumerate(found.obstructed) if each.gates}
    rows = [Row(tuple(in_order(hosts)), cells) for cells, hosts in alike.items()]
    rows += [
        Row(each.hosts, (), each.problem or each.state)
        for each in found.obstructed
        if each.state is not HostState.CHECKED
    ]
    return sorted(rows, key=lambda row: _order(row, gating))


def _order(row: Row, gating: set[str]) -> tuple[int, int]:
    """Put nodes where something gates first, then the unchecked, the others, the flawless."""
    gates = sum(cell.finding in gating for cell in row.cells)
    found = sum(cell.finding != "" for cell in row.cells)
    place = 0 if gates else 1 if row.problem else 2 if found else 3
    return place, -gates or -found


def _nodes(report: Report) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Fold the nodes of which the same facts are known."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for host in report.hosts:
        if host.facts:
            alike[tuple(host.facts.items())].append(host.host)
    return [(tuple(in_order(hosts)), dict(facts)) for facts, hosts in alike.items()]


def _remedy(remediation: str) -> Markup:
    """Mark up a remediation: paragraphs, and blocks of commands to copy."""
    return Markup("").join(
        Markup("<pre><code>{}</code></pre>").format(block.text)
        if block.is_command
        else Markup("<p>{}</p>").format(_inline(block.text))
        for block in blocks(remediation)
    )


def _inline(text: str) -> Markup:
    parts = _INLINE_CODE.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if position % 2 else escape(part)
        for position, part in enumerate(parts)
    )


def _folded(hosts: tuple[str, ...]) -> str:
    return printable(fold(hosts))


def _shown(value: object) -> object:
    return printable(value, limit=_LONGEST) if type(value) is str else value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(_HERE),
        # Every expression passes here, so no text can be forgotten; ours is Markup and passes.
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(remedy=_remedy, folded=_folded)
    for name in ("css", "js"):
        text = (_HERE / f"report.{name}").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        environment.globals[name] = Markup(text)  # noqa: S704  our own file
        environment.globals[f"{name}_hash"] = f"sha256-{digest}"
    return environment.get_template("report.html.j2")
