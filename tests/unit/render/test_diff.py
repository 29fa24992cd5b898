"""What changed between two reports."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from exectrail.compliance.model import HostReport, HostState, Result
from exectrail.compliance.render.diff import Change, compare, render_diff
from tests.unit.render.reports import HOSTILE, golden, hostile_report, node, report, result, saved
from tests.unit.render.reports import waiver as _waiver

WAIVED = _waiver()
ENDED = _waiver(expired=True)


@pytest.mark.parametrize(
    ("old", "new", "change", "before", "after"),
    [
        (result("pass"), result("pass"), None, "", ""),
        (result("skip"), result("skip"), None, "", ""),
        (result("warn"), result("warn"), None, "", ""),
        (result("pass"), result(), Change.FAILING, "pass", "fail"),
        (result("skip"), result(), Change.FAILING, "skip", "fail"),
        (result("warn"), result(), Change.FAILING, "warn", "fail"),
        (result("pass"), result("error"), Change.FAILING, "pass", "error"),
        (None, result(), Change.FAILING, "not checked", "fail"),
        (None, result("pass"), None, "", ""),
        (None, result("warn"), None, "", ""),
        (result(), result(), Change.STILL, "fail", "fail"),
        (result("error"), result("error"), Change.STILL, "error", "error"),
        (result(), result("error"), Change.OTHER, "fail", "error"),
        (result("error"), result(), Change.OTHER, "error", "fail"),
        (result(), result("pass"), Change.FIXED, "fail", "pass"),
        (result("error"), result("pass"), Change.FIXED, "error", "pass"),
        (result("warn"), result("pass"), Change.FIXED, "warn", "pass"),
        (result(waiver=WAIVED), result("pass"), Change.FIXED, "fail (waived)", "pass"),
        (result("skip"), result("pass"), Change.OTHER, "skip", "pass"),
        (result(), result("skip"), Change.OTHER, "fail", "skip"),
        (result(), result("warn"), Change.OTHER, "fail", "warn"),
        (result("pass"), result("warn"), Change.OTHER, "pass", "warn"),
        (result(), None, Change.DROPPED, "fail", "not checked"),
        (result(), result(waiver=WAIVED), Change.WAIVED, "fail", "fail (waived)"),
        (result("pass"), result(waiver=WAIVED), Change.WAIVED, "pass", "fail (waived)"),
        (result(waiver=WAIVED), result(waiver=WAIVED), None, "", ""),
        (result(waiver=WAIVED), result(waiver=ENDED), Change.EXPIRED, "fail (waived)", "fail"),
        (result(waiver=WAIVED), result(), Change.UNWAIVED, "fail (waived)", "fail"),
        (result(waiver=ENDED), result(waiver=ENDED), Change.STILL, "fail", "fail"),
    ],
)
def test_change_of_a_check(
    old: Result | None, new: Result | None, change: Change | None, before: str, after: str
) -> None:
    nodes = [node(*([each] if each else [])) for each in (old, new)]
    found = compare(report(nodes[0]), report(nodes[1])).differences
    if change is None:
        assert found == ()
        return
    (difference,) = found
    assert dataclasses.astuple(difference) == (change, "node.clock", before, after, ("node1",))


def lost(state: HostState = HostState.UNREACHABLE) -> HostReport:
    return node(result("error"), state=state, problem="no answer")


CHECKED = node(result())


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        (CHECKED, None, [Change.GONE]),
        (None, CHECKED, [Change.FAILING, Change.NEW]),
        (None, node(result("pass")), [Change.NEW]),
        (None, lost(), [Change.NEW]),
        (CHECKED, lost(), [Change.LOST]),
        (lost(), CHECKED, [Change.FAILING, Change.REACHED]),
        (lost(), node(result("pass")), [Change.REACHED]),
        (lost(), lost(), [Change.STILL]),
        (lost(), lost(HostState.NOT_REACHED), [Change.STILL]),
    ],
)
def test_change_of_a_node(
    old: HostReport | None, new: HostReport | None, changes: list[Change]
) -> None:
    keep = node(result("pass"), host="keep")
    before, after = (report(keep, *([each] if each else [])) for each in (old, new))
    assert [each.change for each in compare(before, after).differences] == changes


def test_output_is_as_reviewed() -> None:
    assert render_diff(compare(saved("earlier"), saved("mixed"))) == golden("diff.txt")


def test_the_last_line_counts() -> None:
    same = render_diff(compare(saved("mixed"), saved("mixed")))
    assert same.splitlines()[-1] == "Nothing changed; 12 still failing."
    fixed = render_diff(compare(report(node(result())), report(node(result("pass")))))
    assert fixed.splitlines()[-1].startswith("0 newly failing, 0 newly unreachable, 1 fixed")


def test_what_makes_reports_hard_to_compare_is_said() -> None:
    old, new = report(node(result())), report(node(result()), gates="blocker")
    assert "requirements differ" not in render_diff(compare(old, new))
    text = render_diff(compare(saved("mixed"), new))
    assert "requirements differ" in text
    later = report(started=old.started + dt.timedelta(days=1))
    assert "right order" in render_diff(compare(later, old))
    assert "right order" not in render_diff(compare(old, later))


@pytest.mark.parametrize("text", HOSTILE)
def test_nodes_cannot_write_to_the_terminal(text: str) -> None:
    fit = report(node(result("pass")))
    for pair in ((hostile_report(text), fit), (fit, hostile_report(text))):
        assert all(line.isprintable() for line in render_diff(compare(*pair)).split("\n"))
