"""What the ways to verify share: nodes' answers as evidence, and reports of a part of a run."""

from __future__ import annotations

import json
from pathlib import Path

from exectrail.compliance import collect, run
from exectrail.compliance.model import HostState, Severity, Status, Verdict, Waiver
from exectrail.compliance.verdict import blocked
from exectrail.compliance.verification import narrow
from exectrail.nodes.reachability import NO_PYTHON
from tests.unit.compliance.test_verdict import EXPIRED, VALID, host, result
from tests.unit.render.reports import report


def _line(**items: object) -> str:
    return json.dumps({"answer": {"schema": 1, "items": items}}, separators=(",", ":"))


def test_every_line_of_evidence_counts_and_no_other() -> None:
    out = f"Last login: today\n{_line(a=1)}\n{{half a line\n{_line(b={'unreadable': 'x'})}\n"

    found = collect.from_output("n", out, "", groups=("masters",), variables={"asked": 1.0})

    assert found.items == {"a": 1, "b": {"unreadable": "x"}}
    assert (found.state, found.groups) == (HostState.CHECKED, ("masters",))
    assert found.variables == {"asked": 1.0}


def test_a_node_without_python_was_reached() -> None:
    found = collect.from_output("n", NO_PYTHON, "")

    assert found.state is HostState.CHECKED
    assert found.problem == "it has no Python 3"


def test_a_node_that_says_something_else_was_not() -> None:
    found = collect.from_output("n", "", "Permission denied (publickey).")

    assert found.state is HostState.UNREACHABLE
    assert found.problem == "ssh refused the login"


def _excused(waiver: Waiver) -> dict[str, list[str]]:
    return blocked(report(host("n", result(Status.FAIL, waiver=waiver))))


def test_only_blockers_block() -> None:
    assert blocked(report(host("n", result(Status.FAIL), result(Status.PASS)))) == {
        "n": ["node.clock"]
    }
    assert blocked(report(host("n", result(Status.ERROR)))) == {"n": ["node.clock"]}
    for fine in (
        result(Status.PASS),
        result(Status.WARN),
        result(Status.SKIP),
        result(Status.FAIL, Severity.MAJOR),
    ):
        assert blocked(report(host("n", fine))) == {}


def test_a_waiver_lifts_the_block_while_it_lasts() -> None:
    assert _excused(VALID) == {}
    assert _excused(EXPIRED) == {"n": ["node.clock"]}


def test_a_node_out_of_reach_is_blocked() -> None:
    away = host("n", result(Status.ERROR, Severity.MINOR), state=HostState.UNREACHABLE)

    assert blocked(report(away)) == {"n": ["reached"]}


def test_a_part_of_a_report_is_judged_by_itself() -> None:
    whole = report(host("bad", result(Status.FAIL)), host("good", result(Status.PASS)))

    assert narrow(whole, "self_managed", {("node.clock", "bad")}).verdict is Verdict.UNFIT
    part = narrow(whole, "self_managed", {("node.clock", "good")})
    assert part.verdict is Verdict.FIT
    assert [len(each.results) for each in part.hosts] == [0, 1]


def test_what_is_known_of_a_node_before_it_is_asked(tmp_path: Path) -> None:
    run.begin(
        tmp_path,
        profile="self_managed",
        waivers="",
        strict=False,
        selected=["a"],
        inventory={"a": ["masters"], "b": []},
        addresses={"a": ["a", "192.0.2.1"], "b": ["b"]},
    )
    row = {"mark": "m", "namespace": "n", "pod": "p", "container": "c", "node": "a", "problem": ""}
    (tmp_path / "canary.json").write_text(json.dumps({"hosts": {"a": row}}))

    known = collect.known_before(tmp_path, "a")

    assert known == {"inventory_addresses": ["192.0.2.1", "a", "b"], "canary": row}
    assert collect.verification(known)["installation_evidence"] == {"canary": row}
    assert "canary" not in collect.known_before(tmp_path, "b")
    assert collect.verification({}) == {
        "node_evidence": {},
        "installation_evidence": {"canary": None},
    }
