from __future__ import annotations

import pytest

from exectrail import __version__
from exectrail.compliance.model import (
    HostReport,
    HostState,
    Result,
    Severity,
    Status,
    Verdict,
    Waiver,
)
from tests.unit.render import reports
from tests.unit.render.reports import report, waiver

VALID = waiver()
EXPIRED = waiver(expired=True)


def result(
    status: Status, severity: Severity = Severity.BLOCKER, waiver: Waiver | None = None
) -> Result:
    return reports.result(status, severity=severity, waiver=waiver)


def host(name: str, *results: Result, state: HostState = HostState.CHECKED) -> HostReport:
    return reports.node(*results, host=name, state=state)


PASS, SKIP = result(Status.PASS), result(Status.SKIP)
BLOCKER, MAJOR = result(Status.FAIL), result(Status.FAIL, Severity.MAJOR)
MINOR, WARN = result(Status.FAIL, Severity.MINOR), result(Status.WARN)
ERROR, MINOR_ERROR = result(Status.ERROR), result(Status.ERROR, Severity.MINOR)
WAIVED = result(Status.FAIL, waiver=VALID)
WAIVED_ERROR = result(Status.ERROR, waiver=VALID)
WAIVED_WARN = result(Status.WARN, waiver=VALID)


@pytest.mark.parametrize(
    ("results", "lax", "strict"),
    [
        ([PASS, SKIP], 0, 0),
        ([], 0, 0),
        ([WARN], 0, 1),
        ([MINOR], 0, 1),
        ([MINOR_ERROR], 0, 1),
        ([MAJOR], 2, 2),
        ([BLOCKER, WARN, MINOR_ERROR], 2, 2),
        ([ERROR], 3, 3),
        ([ERROR, BLOCKER], 3, 3),
        ([WAIVED, WAIVED_ERROR, WAIVED_WARN, PASS], 0, 0),
        ([WAIVED, WARN], 0, 1),
        ([WAIVED, MAJOR], 2, 2),
        ([result(Status.FAIL, waiver=EXPIRED)], 2, 2),
        ([result(Status.ERROR, waiver=EXPIRED)], 3, 3),
        ([result(Status.FAIL, Severity.INFO)], 0, 1),
    ],
)
def test_exit_codes(results: list[Result], lax: int, strict: int) -> None:
    verdicts = (Verdict.FIT, Verdict.WARNINGS, Verdict.UNFIT, Verdict.UNKNOWN)
    for code, asked in ((lax, False), (strict, True)):
        found = report(host("n", *results), host("m", PASS), strict=asked)
        assert (found.exit_code, found.verdict) == (code, verdicts[code])
        assert found.strict == asked


@pytest.mark.parametrize("state", [HostState.UNREACHABLE, HostState.NOT_REACHED])
def test_a_node_that_was_not_looked_at_leaves_the_verdict_open(state: HostState) -> None:
    # Even if none of its errors would gate.
    found = report(host("n", BLOCKER), host("m", MINOR_ERROR, state=state))
    assert (found.verdict, found.exit_code) == (Verdict.UNKNOWN, 3)
    assert (found.counts.hosts, found.counts.hosts_fit, found.counts.hosts_unreachable) == (2, 0, 1)


def test_counts() -> None:
    found = report(
        host("fit", PASS, SKIP, WARN, MINOR, WAIVED),
        host("unfit", PASS, BLOCKER, MAJOR, MINOR_ERROR, WAIVED_ERROR),
        host("gone", ERROR, ERROR, state=HostState.UNREACHABLE),
        host("later", ERROR, state=HostState.NOT_REACHED),
        host("fit too", PASS),
    ).counts
    assert (found.hosts, found.hosts_fit, found.hosts_unreachable) == (5, 2, 2)
    assert (found.passed, found.skipped, found.warned) == (3, 1, 1)
    assert (found.failed, found.errors, found.waived, found.gating) == (4, 5, 2, 5)


def test_the_report_says_what_was_run() -> None:
    found = report(host("b"), host("a"), interrupted=True)
    assert [entry.host for entry in found.hosts] == ["a", "b"]
    assert (found.run_id, found.tool_version, found.schema_version) == ("r1", __version__, 1)
    assert (found.started, found.finished) == (reports.STARTED, reports.FINISHED)
    assert found.interrupted
    assert found.profile.name == "ours"
    assert not report().interrupted
