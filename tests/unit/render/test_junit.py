"""JUnit: read back by a parser that is not ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped

from exectrail.compliance.model import HostState, Result, Severity
from exectrail.compliance.render import junit
from tests.unit.render.reports import (
    HOSTILE,
    golden,
    hostile_report,
    node,
    report,
    result,
    saved,
    waiver,
)

MINOR = Severity.MINOR


def parse(text: str) -> JUnitXml:
    return JUnitXml.fromstring(text.encode())


@pytest.mark.parametrize("name", ["mixed", "hostile"])
def test_output_is_as_reviewed(name: str) -> None:
    assert junit.render(saved(name)) == golden(f"{name}.xml")


@pytest.mark.parametrize(
    ("judged", "strict", "kind", "type_", "says"),
    [
        (result("pass"), False, None, "", ""),
        (result(), False, Failure, "major", "told"),
        (result(), True, Failure, "major", "told"),
        (result("error"), False, Error, "major", "told"),
        (result("skip"), False, Skipped, "not-applicable", "told"),
        (result("skip"), True, Skipped, "not-applicable", "told"),
        (result("warn"), False, Skipped, "warning", "warn, but major does not gate: told"),
        (result("warn"), True, Failure, "major", "told"),
        (result(severity=MINOR), False, Skipped, "warning", "fail, but minor does not gate: told"),
        (result(severity=MINOR), True, Failure, "minor", "told"),
        (result("error", severity=MINOR), False, Skipped, "warning", "error, but minor"),
        (result("error", severity=MINOR), True, Failure, "minor", "told"),
        (result(waiver=waiver()), False, Skipped, "waived", "waived until 2027-01-31 by team"),
        (result(waiver=waiver()), True, Skipped, "waived", "moving"),
        (result(waiver=waiver(expired=True)), False, Failure, "major", "told"),
    ],
)
def test_outcome(judged: Result, strict: bool, kind: type, type_: str, says: str) -> None:  # noqa: FBT001
    ((case,),) = parse(junit.render(report(node(judged), strict=strict)))
    assert (case.name, case.classname) == ("node.clock", "node1")
    if kind is None:
        assert case.is_passed
        return
    (outcome,) = case.result
    assert isinstance(outcome, kind)
    assert outcome.type == type_
    assert says in outcome.message


def test_red_cases_agree_with_the_exit_code() -> None:
    for status in ("pass", "fail", "warn", "error", "skip"):
        for severity in Severity:
            for strict in (False, True):
                one = report(node(result(status, severity=severity)), strict=strict)
                suites = parse(junit.render(one))
                assert bool(suites.failures + suites.errors) is (one.exit_code > 0)


@pytest.mark.parametrize("state", [HostState.UNREACHABLE, HostState.NOT_REACHED])
@pytest.mark.parametrize("rows", [0, 3])
def test_a_node_that_was_not_checked_is_one_error(state: HostState, rows: int) -> None:
    results = [result("error", check=f"c{i}") for i in range(rows)]
    (suite,) = parse(
        junit.render(report(node(*results, state=state, problem="no answer", fix="Look.")))
    )
    assert (suite.tests, suite.errors, suite.skipped) == (rows + 1, 1, rows)
    (error,) = next(iter(suite)).result
    assert (error.type, error.message) == (state, "no answer")
    assert "Look." in error.text


@pytest.mark.parametrize("name", ["mixed", "fit", "hostile"])
def test_counts_are_those_of_the_cases(name: str) -> None:
    suites = parse(junit.render(saved(name)))
    told = [(suites.tests, suites.failures, suites.errors, suites.skipped)]
    told += [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in suites]
    suites.update_statistics()
    counted = [(suites.tests, suites.failures, suites.errors, suites.skipped)]
    counted += [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in suites]
    assert told == counted
    assert [suite.name for suite in suites][:1] != []


def test_a_suite_per_node_and_a_case_per_check() -> None:
    mixed = saved("mixed")
    suites = parse(junit.render(mixed))
    assert [suite.name for suite in suites] == [host.host for host in mixed.hosts]
    for suite, host in zip(suites, mixed.hosts, strict=True):
        names = [case.name for case in suite if case.name != "reached"]
        assert names == [each.check for each in host.results]


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_gives_xml_with_the_same_cases(text: str) -> None:
    suites = list(parse(junit.render(hostile_report(text))))
    assert [len(suite) for suite in suites] == [4, 2]


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_gives_xml(text: str) -> None:
    suites = list(parse(junit.render(hostile_report(text))))
    assert [len(suite) for suite in suites] == [4, 2]


def test_facts_are_properties() -> None:
    (suite,) = parse(junit.render(report(node(result(), facts={"os": "Debian 12"}))))
    assert [(each.name, each.value) for each in suite.properties()] == [("os", "Debian 12")]
