"""Adds the nodes up: counts, the verdict and the exit code of a run."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence

import exectrail
from exectrail.compliance.model import (
    Counts,
    ExitCode,
    HostReport,
    HostState,
    Report,
    Result,
    Severity,
    Status,
    Verdict,
)
from exectrail.compliance.requirements import Requirements

SCHEMA_VERSION = 1

_EXIT_CODES = {
    Verdict.FIT: ExitCode.FIT,
    Verdict.WARNINGS: ExitCode.WARNINGS,
    Verdict.UNFIT: ExitCode.UNFIT,
    Verdict.UNKNOWN: ExitCode.UNKNOWN,
}


def build_report(  # noqa: PLR0913  a report says that much about its run
    host_reports: Iterable[HostReport],
    requirements: Requirements,
    *,
    run_id: str,
    started: dt.datetime,
    finished: dt.datetime,
    strict: bool,
    interrupted: bool = False,
) -> Report:
    """Build the report of a run; hosts come in the order of their names."""
    hosts = tuple(sorted(host_reports, key=lambda report: report.host))
    gates = requirements.profile.gates
    verdict = judge(hosts, gates, strict=strict)
    return Report(
        schema_version=SCHEMA_VERSION,
        run_id=run_id,
        tool_version=exectrail.__version__,
        started=started,
        finished=finished,
        profile=requirements.profile,
        strict=strict,
        verdict=verdict,
        exit_code=_EXIT_CODES[verdict],
        counts=_counts(hosts, gates),
        hosts=hosts,
        interrupted=interrupted,
    )


def gating(result: Result, gates: tuple[Severity, ...]) -> bool:
    """Whether this result alone keeps its node from being fit."""
    return (
        result.status in (Status.FAIL, Status.ERROR)
        and result.severity in gates
        and not result.waived
    )


def blocked(report: Report) -> dict[str, list[str]]:
    """Give the nodes that a *blocker* stops, whatever else the profile lets gate, and the ids.

    A node that was not reached is among them, with the id ``reached``, as in JUnit.
    """
    found = {
        host.host: [result.check for result in host.results if gating(result, (Severity.BLOCKER,))]
        if host.state is HostState.CHECKED
        else ["reached"]
        for host in report.hosts
    }
    return {host: checks for host, checks in found.items() if checks}


def judge(hosts: Sequence[HostReport], gates: tuple[Severity, ...], *, strict: bool) -> Verdict:
    """Give the verdict on some nodes together; an empty sequence is fit."""
    results = [result for host in hosts for result in host.results]
    decisive = {result.status for result in results if gating(result, gates)}
    if Status.ERROR in decisive or any(host.state is not HostState.CHECKED for host in hosts):
        return Verdict.UNKNOWN
    if decisive:
        return Verdict.UNFIT
    left = (result for result in results if not result.waived)
    if strict and any(result.status in (Status.FAIL, Status.WARN, Status.ERROR) for result in left):
        return Verdict.WARNINGS
    return Verdict.FIT


def _counts(hosts: tuple[HostReport, ...], gates: tuple[Severity, ...]) -> Counts:
    results = [result for host in hosts for result in host.results]
    by_status = Counter(result.status for result in results)
    return Counts(
        hosts=len(hosts),
        hosts_fit=sum(
            host.state is HostState.CHECKED
            and not any(gating(result, gates) for result in host.results)
            for host in hosts
        ),
        hosts_unreachable=sum(host.state is not HostState.CHECKED for host in hosts),
        passed=by_status[Status.PASS],
        failed=by_status[Status.FAIL],
        gating=sum(gating(result, gates) for result in results),
        warned=by_status[Status.WARN],
        skipped=by_status[Status.SKIP],
        errors=by_status[Status.ERROR],
        waived=sum(result.waived for result in results),
    )
