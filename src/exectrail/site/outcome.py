"""What the parts of a run say of themselves, as notes; and the run's summary from its folder."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from exectrail.audit_policy.rollout import run
from exectrail.audit_policy.rollout.model import Master, Plan
from exectrail.compliance.model import Report
from exectrail.compliance.render import json as report_file
from exectrail.errors import UsageError
from exectrail.hostnames import fold
from exectrail.site import journal, summary
from exectrail.site.journal import Mode, Note

_DONE = {
    "install": "installed",
    "upgrade": "upgraded",
    "downgrade": "taken back to an older version",
    "repair": "repaired",
    "remove": "removed",
}


class Agents(NamedTuple):
    """Notes of what is there, the nodes to change, and why nothing may be changed at all."""

    notes: list[Note]
    changing: list[str]
    refused: list[str]


def agents(mode: Mode, plans: Mapping[str, Mapping[str, Any]]) -> Agents:
    """Judge the decisions on the nodes' agents together: one refusal refuses the run."""
    notes, changing = [], []
    refused: dict[str, list[str]] = {}
    for host, plan in plans.items():
        refusals = list(plan["refusals"])
        if mode == "upgrade" and plan["kind"] == "install":
            refusals = ["no agent is installed, so there is none to upgrade: run install"]
        if refusals:
            notes.append(
                Note(host=host, step="agent", outcome="failed", detail="; ".join(refusals))
            )
            for refusal in refusals:
                refused.setdefault(refusal, []).append(host)
        elif plan["work"]:
            changing.append(host)
            notes.append(Note(host=host, step="agent", outcome="planned", detail=_told(plan)))
        else:
            detail = "there is none" if mode == "uninstall" else "as it should be"
            notes.append(Note(host=host, step="agent", outcome="kept", detail=detail))
    lines = [f"{fold(hosts, limit=8)}: {refusal}" for refusal, hosts in refused.items()]
    return Agents(notes, changing, lines)


def _told(plan: Mapping[str, Any]) -> str:
    done = _DONE[plan["kind"]]
    if plan["kind"] == "repair":
        return f"{done} ({'; '.join(plan['reasons'])})"
    if plan["kind"] in {"upgrade", "downgrade"}:
        return f"{done} (version {plan['installed']} was there)"
    return done


def policy(host: str, plan: Plan, *, resumed: bool = False) -> Note:
    """Note what a roll-out that has ended well has done on one master.

    `resumed` says that it has ended first what another run had begun there.
    """
    if plan.not_applicable:
        detail = f"not applicable: {plan.not_applicable}"
        return Note(host=host, step="policy", outcome="kept", detail=detail)
    if host in plan.changes:
        return Note(host=host, step="policy", outcome="done", detail=_change(host, plan))
    if resumed:
        detail = "completed, what an interrupted run had begun"
        return Note(host=host, step="policy", outcome="done", detail=detail)
    return Note(host=host, step="policy", outcome="kept", detail="as it should be")


def broken_policy(host: str, plan: Plan | None, stopped: str | None, problem: str) -> Note:
    """Note what has become of one master in a roll-out that has failed.

    `stopped` is the master at which it failed, `problem` what this one said itself.
    """
    if problem:
        return Note(host=host, step="policy", outcome="failed", detail=problem)
    order = list(plan.changes) if plan else []
    if plan and stopped in order and host in order and order.index(host) < order.index(stopped):
        return Note(host=host, step="policy", outcome="done", detail=_change(host, plan))
    detail = f"not touched, because {stopped or 'another master'} failed"
    return Note(host=host, step="policy", outcome="left", detail=detail)


def must_be_upgradable(directory: Path) -> None:
    """Raise UsageError unless every master of the roll-out in `directory` has a policy of ours."""
    asked = run.request(directory)
    if run.load_plan(directory).not_applicable:
        return
    masters = {host: run.master(directory, host) for host in asked.selected}
    without = [
        host
        for host, found in masters.items()
        if isinstance(found, Master) and found.applied is None
    ]
    if without:
        raise UsageError(
            f"Nothing was touched, because {fold(without, limit=8)} has no audit policy of ours, "
            "so there is none to upgrade: run install."
        )


def _change(host: str, plan: Plan) -> str:
    change = plan.changes[host]
    return f"{'removed' if change.absent else 'changed'} ({'; '.join(change.reasons)})"


def sum_up(directory: Path, *, interrupted: bool = False) -> summary.Summary:
    """Build the summary of the run in `directory`, with those reports that are of this run."""
    known = journal.load(directory)
    reports: dict[str, Report] = {}
    for name in ("preflight", "verify"):
        if name not in known.begun.reports:
            continue
        try:
            report = report_file.load(Path(known.begun.reports[name]) / "report.json")
        except UsageError:
            continue
        if report.started >= known.begun.started:
            reports[name] = report
    return summary.build(known, reports, finished=dt.datetime.now(dt.UTC), interrupted=interrupted)
