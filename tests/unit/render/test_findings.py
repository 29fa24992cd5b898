"""Results by finding: what is together, what is apart, and what comes first."""

from __future__ import annotations

import datetime as dt

import pytest

from exectrail.compliance.model import HostReport, HostState, Result, Severity
from exectrail.compliance.render.findings import Rank, group, rank
from tests.unit.render.reports import node, report, result, waiver

EXPIRED = waiver(expired=True, expires=dt.date(2026, 1, 1))
GATES = report(gates="blocker major").profile


@pytest.mark.parametrize(
    ("status", "severity", "covered", "expected"),
    [
        ("fail", "blocker", None, Rank.GATING),
        ("fail", "major", None, Rank.GATING),
        ("error", "major", None, Rank.GATING),
        ("fail", "minor", None, Rank.FAILING),
        ("error", "info", None, Rank.FAILING),
        ("warn", "blocker", None, Rank.WARNING),
        ("fail", "blocker", waiver(), Rank.WAIVED),
        ("error", "blocker", waiver(), Rank.WAIVED),
        ("warn", "blocker", waiver(), Rank.WAIVED),
        ("fail", "blocker", EXPIRED, Rank.GATING),
        ("warn", "blocker", EXPIRED, Rank.WARNING),
        ("pass", "blocker", None, Rank.FINE),
        ("skip", "blocker", None, Rank.FINE),
        ("pass", "blocker", waiver(), Rank.FINE),
    ],
)
def test_rank(status: str, severity: str, covered: object, expected: Rank) -> None:
    judged = result(status, severity=Severity(severity), waiver=covered)
    assert rank(judged, GATES) is expected


def test_the_worst_comes_first() -> None:
    def of(check: str, status: str, severity: str, **changes: object) -> object:
        return result(status, check=check, severity=Severity(severity), **changes)

    found = group(
        report(
            node(
                of("waived", "fail", "blocker", waiver=waiver()),
                of("warning", "warn", "blocker"),
                of("minor", "fail", "minor"),
                of("major", "fail", "major"),
                of("unreadable", "error", "blocker"),
                of("rare", "fail", "blocker"),
                of("common", "fail", "blocker"),
                of("fine", "pass", "blocker"),
            ),
            node(of("common", "fail", "blocker"), host="node2"),
        )
    )
    assert [finding.check for finding in found.findings] == [
        "common",
        "rare",
        "unreadable",
        "major",
        "minor",
        "warning",
        "waived",
    ]
    assert found.passed == {"fine": 1}


def test_hosts_share_a_finding_and_are_apart_by_what_was_seen() -> None:
    hosts = [
        node(result(observed=seen, remediation=fix), host=host)
        for host, seen, fix in (
            ("n3", "a", "do a"),
            ("n1", "b", "do b"),
            ("n10", "b", "do b"),
            ("n2", "b", ""),
        )
    ]
    (finding,) = group(report(*hosts)).findings
    assert finding.hosts == ("n1", "n2", "n3", "n10")
    assert [(v.observed, v.hosts) for v in finding.variants] == [
        ("b", ("n1", "n2", "n10")),
        ("a", ("n3",)),
    ]
    assert finding.remediations == (("do b", ("n1", "n10")), ("do a", ("n3",)))


def test_nodes_that_were_not_checked_are_grouped_by_reason() -> None:
    def lost(host: str, problem: str) -> HostReport:
        state, fix = HostState.UNREACHABLE, f"Try: ssh {host}."
        return node(result("error"), host=host, state=state, problem=problem, fix=fix)

    found = group(report(lost("n1", "no"), lost("n2", "no"), lost("n3", "never")))
    assert not found.findings
    assert [(each.hosts, each.problem, each.fix) for each in found.obstructed] == [
        (("n1", "n2"), "no", "Try: ssh NODE."),
        (("n3",), "never", "Try: ssh n3."),
    ]


def test_errors_that_come_from_one_problem_of_the_node_are_one_finding() -> None:
    def blind(host: str, *others: Result) -> HostReport:
        errors = [
            result("error", check=check, severity=severity, remediation="Install it.")
            for check, severity in (("a", Severity.MINOR), ("b", Severity.MAJOR))
        ]
        return node(*errors, *others, host=host, problem="no Python 3", fix="Install it.")

    other = result("error", check="c", remediation="Run as root.")
    excused = result("error", check="d", remediation="Install it.", waiver=waiver())
    seen = node(result("error", check="a", remediation="Install it."), host="n3")
    found = group(report(blind("n1"), blind("n2", other, excused), seen))
    (obstructed,) = found.obstructed
    assert obstructed.hosts == ("n1", "n2")
    assert obstructed.checks == ("a", "b")
    assert [(each.check, each.hosts) for each in found.findings] == [
        ("a", ("n3",)),
        ("c", ("n2",)),
        ("d", ("n2",)),
    ]
    assert found.gating == 3


def test_a_problem_that_hides_nothing_that_gates_is_no_gating_finding() -> None:
    minor = result("error", severity=Severity.MINOR, remediation="Do.")
    found = group(report(node(minor, problem="no Python 3", fix="Do.")))
    assert [each.gates for each in found.obstructed] == [False]
    assert found.gating == 0


def test_waivers_are_listed_by_row_expired_ones_first() -> None:
    later = waiver(owner="later", expires=dt.date(2028, 1, 1))
    found = group(
        report(
            node(result(waiver=later), result(check="b", waiver=EXPIRED)),
            node(result(waiver=later), result("pass", check="b", waiver=waiver()), host="node2"),
            node(result(waiver=waiver()), host="node3"),
        )
    )
    assert [(use.check, use.waiver, use.hosts) for use in found.waivers] == [
        ("b", EXPIRED, ("node1",)),
        ("node.clock", waiver(), ("node3",)),
        ("node.clock", later, ("node1", "node2")),
    ]
