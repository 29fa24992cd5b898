"""The report on a terminal: by finding, worst first, the verdict as the last line."""

from __future__ import annotations

from collections.abc import Iterator

from exectrail.compliance.model import HostState, Report, Status, Verdict
from exectrail.compliance.render.findings import (
    Finding,
    Findings,
    Obstructed,
    Rank,
    WaiverUse,
    group,
)
from exectrail.compliance.render.layout import blocks, wrap, wrap_prose
from exectrail.hostnames import fold
from exectrail.printable import printable

_SHOWN = 5
"""Different observations, or remediations, shown of one finding."""
_RANGES = 24
"""Ranges of hosts shown in one place."""
_LONGEST = 400
"""Characters of one text from a node; report.json has it whole."""

_BOLD, _RED, _GREEN, _YELLOW, _MAGENTA, _CYAN = "1", "1;31", "1;32", "1;33", "1;35", "1;36"
_STATUS_COLOURS = {Status.FAIL: _RED, Status.ERROR: _MAGENTA, Status.WARN: _YELLOW}
_VERDICT_COLOURS = {
    Verdict.FIT: _GREEN,
    Verdict.WARNINGS: _YELLOW,
    Verdict.UNFIT: _RED,
    Verdict.UNKNOWN: _MAGENTA,
}
_STATES = {
    HostState.CHECKED: "ERROR",
    HostState.UNREACHABLE: "UNREACHABLE",
    HostState.NOT_REACHED: "NOT CHECKED",
}


def render(report: Report, *, colour: bool, width: int = 80) -> str:
    """Return the report as text; only commands in a remediation may exceed `width` columns."""
    lines = _Page(report, width, colour=colour).lines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


class _Page:
    def __init__(self, report: Report, width: int, *, colour: bool) -> None:
        self._report = report
        self._width = width
        self._colour = colour

    def lines(self) -> Iterator[str]:
        found = group(self._report)
        by_rank = {rank: [each for each in found.findings if each.rank is rank] for rank in Rank}
        yield from self._head()
        for finding in by_rank[Rank.GATING]:
            yield from self._finding(finding)
        for obstructed in found.obstructed:
            yield from self._obstructed(obstructed)
        for finding in by_rank[Rank.FAILING] + by_rank[Rank.WARNING]:
            yield from self._finding(finding)
        for use in found.waivers:
            yield from self._waiver(use)
        yield from self._fine(found)
        yield from self._results()
        yield from self._verdict(found.gating)

    def _head(self) -> Iterator[str]:
        report = self._report
        for line in wrap(printable(report.profile.title), self._width):
            yield self._paint(line, _BOLD)
        seconds = (report.finished - report.started).total_seconds()
        yield from wrap(
            f"profile {printable(report.profile.name)}, {_count(len(report.hosts), 'node')}, "
            f"{report.started:%Y-%m-%d %H:%M:%S} UTC, {seconds:.0f} s",
            self._width,
        )
        if report.interrupted:
            yield self._paint("The run was interrupted: this is what was learnt until then.", _BOLD)
        yield ""

    def _finding(self, finding: Finding) -> Iterator[str]:
        aside = ", does not gate" if finding.rank is Rank.FAILING else ""
        yield from self._heading(
            finding.status.upper(),
            _STATUS_COLOURS[finding.status],
            f"{printable(finding.check)} ({finding.severity}{aside})",
            finding.title,
        )
        yield from self._on(finding.hosts)
        yield from self._seen(finding)
        fixes = finding.remediations
        for fix, hosts in fixes[:_SHOWN]:
            if len(fixes) > 1:
                yield from self._field("fix on", _folded(hosts))
            yield from self._fix(fix)
        yield from self._omitted([hosts for _, hosts in fixes[_SHOWN:]])
        yield ""

    def _seen(self, finding: Finding) -> Iterator[str]:
        first, *others = finding.variants
        if all(other.expected == first.expected for other in others):
            yield from self._field("expected", first.expected)
        if not others:
            yield from self._field("observed", first.observed)
            yield from self._field("because", first.message)
            return
        for variant in finding.variants[:_SHOWN]:
            yield from wrap(_folded(variant.hosts), self._width, indent="  ")
            if any(other.expected != first.expected for other in others):
                yield from self._field("expected", variant.expected, indent="    ")
            yield from self._field("observed", variant.observed, indent="    ")
            yield from self._field("because", variant.message, indent="    ")
        yield from self._omitted([variant.hosts for variant in finding.variants[_SHOWN:]])

    def _omitted(self, rest: list[tuple[str, ...]]) -> Iterator[str]:
        if rest:
            nodes = _count(sum(map(len, rest)), "node")
            yield f"  and {len(rest)} more on {nodes} (report.html and report.json have them)"

    def _obstructed(self, obstructed: Obstructed) -> Iterator[str]:
        yield self._paint(_STATES[obstructed.state], _MAGENTA)
        yield from self._on(obstructed.hosts)
        yield from self._field("because", obstructed.problem)
        if obstructed.state is HostState.CHECKED:
            yield from self._field("unknown", ", ".join(obstructed.checks))
        yield from self._fix(obstructed.fix)
        yield ""

    def _waiver(self, use: WaiverUse) -> Iterator[str]:
        waiver, check = use.waiver, printable(use.check)
        if waiver.expired:
            yield from self._heading("EXPIRED WAIVER", _RED, check, use.title)
        else:
            yield from self._heading("WAIVED", _CYAN, check, use.title)
        yield from self._on(use.hosts)
        if waiver.expired:
            yield from self._field("held", f"until {waiver.expires}; it is a failure again")
        else:
            yield from self._field("holds", f"until {waiver.expires}")
        yield from self._field("owner", waiver.owner)
        yield from self._field("reason", waiver.reason)
        yield ""

    def _fine(self, found: Findings) -> Iterator[str]:
        everywhere = sum(found.passed.values())
        yield from self._field(
            "passed", f"{_count(everywhere, 'result')} of {_count(len(found.passed), 'check')}"
        )
        if found.skipped:
            which = ", ".join(f"{check} ({count})" for check, count in found.skipped.items())
            yield from self._field("skipped", f"does not apply: {which}")
        yield ""

    def _results(self) -> Iterator[str]:
        counts = self._report.counts
        unknown = sum(
            len(host.results) for host in self._report.hosts if host.state is not HostState.CHECKED
        )
        aside = f" ({unknown} of nodes not checked)" if unknown else ""
        yield from wrap(
            f"Results: {counts.passed} pass, {counts.failed} fail, {counts.errors} error{aside}, "
            f"{counts.warned} warn, {counts.skipped} skip; {counts.waived} waived",
            self._width,
        )

    def _verdict(self, gating: int) -> Iterator[str]:
        report, counts = self._report, self._report.counts
        told = f"{counts.hosts_fit} of {_count(counts.hosts, 'node')} fit"
        if counts.hosts_unreachable:
            told += f", {counts.hosts_unreachable} unreachable"
        told += f", {_count(gating, 'gating finding')} (exit {report.exit_code})"
        yield self._paint(f"{report.verdict.upper()}: {told}", _VERDICT_COLOURS[report.verdict])

    def _heading(self, label: str, colour: str, check: str, title: str) -> Iterator[str]:
        first, *rest = wrap(f"{label} {check}", self._width)
        yield self._paint(label, colour) + self._paint(first.removeprefix(label), _BOLD)
        yield from rest
        yield from wrap(printable(title), self._width, indent="  ")

    def _on(self, hosts: tuple[str, ...]) -> Iterator[str]:
        total = _count(len(self._report.hosts), "node")
        yield from self._field("on", f"{_folded(hosts)} ({len(hosts)} of {total})")

    def _field(self, label: str, text: str, indent: str = "  ") -> Iterator[str]:
        head = f"{indent}{label:<10}"
        body = wrap(printable(text, limit=_LONGEST), self._width, indent=" " * len(head))
        yield head + body[0].removeprefix(" " * len(head))
        yield from body[1:]

    def _fix(self, remediation: str) -> Iterator[str]:
        head = f"  {'fix':<10}"
        indent = " " * len(head)
        told = list(blocks(remediation))
        step = "  " if len(told) > 1 else ""
        for block in told:
            if block.is_command:
                body = [f"{indent}{step}{line}" for line in block.text.split("\n")]
            else:
                body = wrap_prose(block.text, self._width, indent=indent)
            yield head + body[0].removeprefix(indent)
            yield from body[1:]
            head = indent

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour and text else text


def _folded(hosts: tuple[str, ...]) -> str:
    return printable(fold(hosts, limit=_RANGES))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
