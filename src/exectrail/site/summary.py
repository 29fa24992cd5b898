"""What a run has done, changed and left to do: about twenty lines, and ``summary.json``."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from exectrail.compliance.model import ExitCode, HostState, Report, Severity, Status
from exectrail.compliance.verdict import gating
from exectrail.hostnames import fold
from exectrail.printable import printable
from exectrail.site.journal import Journal, Mode, Note

_LINES = 14
"""How many findings are shown; the files have all."""
_WORDS = {"preflight": "preflight", "agent": "agent", "policy": "audit policy"}
_UNKNOWN = ("planned", "lost")
"""Outcomes after which nobody knows how the node is."""
_SENTENCE = re.compile(r"[A-Z].*?(?:\.(?=\s)|:\n(?:[^#\n]+)?|\Z)", re.DOTALL)
"""With the command that it leads to."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step on one node: kept, done, left or failed; `would` in check mode."""

    step: str
    outcome: str
    detail: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something left to do; `gates` if it keeps the run from being good."""

    what: str
    fix: str
    gates: bool


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One node: what was done there, whether that changed anything, what is left to do."""

    host: str
    changed: bool
    verified: str
    steps: tuple[Step, ...]
    left: tuple[Finding, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What ``summary.json`` holds."""

    run_id: str
    mode: Mode
    check: bool
    started: dt.datetime
    finished: dt.datetime
    interrupted: bool
    exit_code: int
    nodes: tuple[NodeSummary, ...]
    left_out: tuple[str, ...] = ()
    reports: dict[str, str] = {}


def build(
    journal: Journal,
    reports: Mapping[str, Report],
    *,
    finished: dt.datetime,
    interrupted: bool = False,
) -> Summary:
    """Sum a run up. `reports` are those of this run, by ``preflight`` and ``verify``."""
    begun = journal.begun
    found = tuple(_node(host, journal, reports) for host in begun.nodes)
    gone = any(note.outcome in _UNKNOWN for note in journal.notes.values())
    codes = [ExitCode.UNKNOWN if interrupted or gone else ExitCode.FIT]
    codes += [ExitCode.UNFIT for one in found if any(each.gates for each in one.left)]
    if "verify" in reports:
        codes.append(reports["verify"].exit_code)
    elif any(note.outcome == "failed" for note in journal.of("preflight", "failed")):
        codes.append(reports["preflight"].exit_code if "preflight" in reports else ExitCode.UNFIT)
    return Summary(
        run_id=begun.run_id,
        mode=begun.mode,
        check=begun.check,
        started=begun.started,
        finished=finished,
        interrupted=interrupted,
        exit_code=max(codes),
        nodes=found,
        left_out=begun.left_out,
        reports=begun.reports,
    )


def _node(host: str, journal: Journal, reports: Mapping[str, Report]) -> NodeSummary:
    notes = [note for (_, noted), note in journal.notes.items() if noted == host]
    left = [
        _broken(note)
        for note in notes
        if note.outcome in {"failed", "left", *_UNKNOWN}
        # The report says it better.
        and not (note.step == "preflight" and "preflight" in reports)
    ]
    verified = ""
    # What preflight has found is told by verify too, if that has looked.
    for name in ("verify", "preflight"):
        if name in reports and not verified:
            told = _findings(host, reports[name], preflight=name == "preflight")
            known = {finding.what for finding in left}
            left += [finding for finding in told if finding.what not in known]
            verified = f"{name} {'failed' if any(each.gates for each in told) else 'passed'}"
    return NodeSummary(
        host=host,
        changed=any(note.outcome == "done" for note in notes),
        verified=verified,
        steps=tuple(
            Step(step=note.step, outcome=note.outcome, detail=printable(note.detail, limit=2000))
            for note in notes
        ),
        left=tuple(left),
    )


def _broken(note: Note) -> Finding:
    what = _WORDS[note.step]
    if note.outcome == "planned":
        said = "not brought to its end: the run was interrupted, or the node went away"
        return Finding(what=f"{what}: {said}", fix="Run again.", gates=True)
    detail = printable(note.detail.strip().replace("\n", " | "), limit=400)
    return Finding(what=f"{what}: {detail}", fix=note.fix, gates=note.outcome != "left")


def _findings(host: str, report: Report, *, preflight: bool) -> list[Finding]:
    found = []
    for one in report.hosts:
        if one.host != host:
            continue
        if one.state is not HostState.CHECKED:
            found.append(Finding(what=one.problem, fix=one.fix, gates=True))
            continue
        for result in one.results:
            if result.status in {Status.FAIL, Status.ERROR, Status.WARN} and not result.waived:
                # Preflight lets pass what is no blocker, whatever else its profile asks for.
                decisive = (Severity.BLOCKER,) if preflight else report.profile.gates
                told = f"{result.check}: {result.message or result.title}"
                gates = gating(result, decisive)
                if gates or result.severity in {Severity.BLOCKER, Severity.MAJOR}:
                    found.append(Finding(what=told, fix=result.remediation, gates=gates))
    return found


def render(summary: Summary) -> str:
    """Give the summary for people, nodes that are alike folded into one line."""
    names = {"site": "Site", "install": "Install", "upgrade": "Upgrade", "uninstall": "Uninstall"}
    seconds = (summary.finished - summary.started).total_seconds()
    mode = " (check mode: nothing was changed)" if summary.check else ""
    ended = " interrupted" if summary.interrupted else ""
    changed = [node.host for node in summary.nodes if node.changed]
    unchanged = len(summary.nodes) - len(changed)
    word = "would change" if summary.check else "changed"
    counts = f"{len(summary.nodes)} nodes, {len(changed)} {word}, {unchanged} not"
    lines = [f"== {names[summary.mode]}{ended}: {counts}, {seconds:.0f} s{mode}"]
    lines += _by_nodes(
        (_phrase(step.step, step.outcome, step.detail, check=summary.check), node.host)
        for node in summary.nodes
        for step in node.steps
        if step.outcome in {"kept", "done"}
    )
    lines += _by_nodes((node.verified, node.host) for node in summary.nodes if node.verified)
    if summary.left_out:
        lines.append(f"   {fold(summary.left_out, limit=4)}: in none of the two groups, left alone")
    if summary.interrupted:
        lines.append("!! Run it again: what was begun is completed, what is right is left alone.")
    lines += _left(summary)
    return "\n".join(lines) + "\n"


def _left(summary: Summary) -> list[str]:
    found: dict[Finding, list[str]] = {}
    for node in summary.nodes:
        for finding in node.left:
            found.setdefault(finding, []).append(node.host)
    if not found:
        return [] if summary.interrupted else ["   Nothing is left to do."]
    lines = ["-- Left to do"]
    ordered = sorted(found.items(), key=lambda item: not item[0].gates)
    for finding, hosts in ordered[: _LINES // 2]:
        mark = "!!" if finding.gates else "  "
        lines.append(f"{mark} {fold(hosts, limit=4)}: {printable(finding.what, limit=300)}")
        if finding.fix:
            lines.append(f"      {printable(_beginning(finding.fix), limit=300)}")
    if len(ordered) > _LINES // 2:
        lines.append(f"   and {len(ordered) - _LINES // 2} more, in the reports")
    return lines


def _beginning(fix: str) -> str:
    """Give the first sentence of what to do, or the first command; the report has it all."""
    sentence = _SENTENCE.match(fix)
    return " ".join((sentence[0] if sentence else fix.partition("\n")[0]).split())


def _by_nodes(told: Iterable[tuple[str, str]]) -> list[str]:
    found: dict[str, list[str]] = {}
    for phrase, host in told:
        found.setdefault(phrase, []).append(host)
    lines = [
        f"   {fold(hosts, limit=4)}: {phrase}" + (f" ({len(hosts)} nodes)" * (len(hosts) > 1))
        for phrase, hosts in found.items()
    ]
    if len(lines) > _LINES // 2:
        lines[_LINES // 2 :] = [f"   and {len(lines) - _LINES // 2} more kinds, in summary.json"]
    return lines


def _phrase(step: str, outcome: str, detail: str, *, check: bool) -> str:
    if outcome == "kept":
        return f"{_WORDS[step]}: {detail or 'nothing to do'}"
    return f"{_WORDS[step]}: {'would be ' if check else ''}{printable(detail, limit=160)}"


def save(summary: Summary, directory: Path) -> Path:
    """Write ``summary.json``, for its owner alone."""
    path = directory / "summary.json"
    draft = directory / ".summary.json"
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(msgspec.json.encode(summary) + b"\n")
    draft.replace(path)
    return path


def load(directory: Path) -> Summary | None:
    """Read the summary; None if there is none that can be read."""
    try:
        return msgspec.json.decode((directory / "summary.json").read_bytes(), type=Summary)
    except (OSError, ValueError):
        return None
