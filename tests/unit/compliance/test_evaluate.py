"""What holds for every check, whatever a node says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exectrail.compliance.checks import Outcome
from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.model import Evidence, HostReport, HostState, Status
from exectrail.compliance.requirements import Requirements
from tests.unit.compliance.nodes import FIXTURES, TODAY, judge, load, node, profile

PROFILES = ("ack", "self_managed")
ALL_ITEMS = sorted({key for path in FIXTURES.glob("*.json") for key in load(path.stem).items})


class Recording(dict[str, Any]):
    """Items that remember which of them were asked for."""

    def __init__(self, items: dict[str, Any]) -> None:
        super().__init__(items)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def only(check: str, name: str) -> Requirements:
    requirements = profile(name)
    kept = tuple(r for r in requirements.checks if r.id == check)
    return msgspec.structs.replace(requirements, checks=kept)


def passes() -> Iterator[Any]:
    """Every (fixture, profile, check, item) in which the check read the item and passed."""
    for base, name in (
        ("debian12-vm", "self_managed"),
        ("debian11-kubeadm-worker", "self_managed"),
        ("ubuntu2204-kubeadm-master", "self_managed"),
        ("ubuntu2204-ack-worker", "ack"),
        ("alinux2-ack-dedicated-master", "ack"),
    ):
        saved = load(base)
        for requirement in profile(name).checks:
            items = Recording(saved.items)
            judged = Evidence(host="n", items=items, variables=saved.variables)
            # The node's facts read items too, so that only those read before them count.
            requirement_only = only(requirement.id, name)
            report = evaluate(judged, requirement_only, today=TODAY)
            if report.results[0].status is Status.PASS:
                for item in sorted(items.read - FACTS):
                    yield pytest.param(
                        base, name, requirement.id, item, id=f"{requirement.id}-{item}"
                    )


FACTS = {
    "os.release", "kernel.release", "kernel.btf", "kernel.lockdown", "kernel.bpf", "libbpf",
    "kernel.audit", "kubernetes.role", "kubernetes.version", "kubernetes.distribution",
}  # fmt: skip


@pytest.mark.parametrize(("base", "name", "check", "item"), list(passes()))
def test_an_item_that_a_pass_rests_on_is_an_error_when_it_can_not_be_read(
    base: str, name: str, check: str, item: str
) -> None:
    for broken, says in (
        ({"unreadable": "no such file"}, "no such file"),
        (..., "not collected"),
        (3.5, "not of the expected form"),
        ("text", "not of the expected form"),
        ([[]], "not of the expected form"),
    ):
        result = judge(check, node(base, {item: broken}), name)
        assert result.status is Status.ERROR, (broken, result)
        assert item in result.message
        assert says in result.message
        assert result.remediation


def test_the_property_above_covers_every_check() -> None:
    covered = {parameters.values[2] for parameters in passes()}
    rest_on_facts_only = {
        "cluster.version", "node.exec-sensor", "node.kernel-version", "node.libbpf",
        "node.os-family",
    }  # fmt: skip
    # Those of the profile `installed` have a property of their own.
    before = {each.check.id for name in ("ack", "self_managed") for each in profile(name).checks}
    assert covered | rest_on_facts_only == before


@pytest.mark.parametrize("broken", [{"unreadable": "denied"}, ..., 3.5, [[]]])
@pytest.mark.parametrize(
    ("base", "name", "check", "item"),
    [
        ("ubuntu2204-ack-worker", "ack", "node.os-family", "os.release"),
        ("ubuntu2204-ack-worker", "ack", "cluster.version", "os.release"),
        ("ubuntu2204-ack-worker", "ack", "cluster.version", "kubernetes.version"),
        ("ubuntu2204-ack-worker", "ack", "node.kernel-version", "kernel.release"),
        ("debian12-vm", "self_managed", "node.exec-sensor", "kernel.lockdown"),
        ("debian12-vm", "self_managed", "node.exec-sensor", "kernel.bpf"),
        ("debian12-vm", "self_managed", "node.libbpf", "libbpf"),
    ],
)
def test_the_same_for_items_that_describe_the_node(
    base: str, name: str, check: str, item: str, broken: Any
) -> None:
    result = judge(check, node(base, {item: broken}), name)
    assert result.status is Status.ERROR
    assert item in result.message


def complete(report: HostReport, requirements: Requirements) -> None:
    """Assert what every report of a node keeps to."""
    assert [result.check for result in report.results] == [r.id for r in requirements.checks]
    msgspec.json.encode(report)
    for result in report.results:
        assert all((result.title, result.expected, result.observed, result.message))
        assert result.references
        assert len(result.message) < 800
        assert len(result.observed) < 800
        needs_action = result.status in (Status.FAIL, Status.WARN, Status.ERROR)
        assert bool(result.remediation) == needs_action


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.json")), ids=lambda path: path.stem)
@pytest.mark.parametrize("name", PROFILES)
def test_every_result_is_complete(path: Any, name: str) -> None:
    complete(evaluate(load(path.stem), profile(name), today=TODAY), profile(name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.characters(categories=["Cs"]),
    lambda values: st.lists(values, max_size=4)
    | st.dictionaries(st.text(max_size=12) | st.sampled_from(["unreadable", "list"]), values,
                      max_size=4),
    max_leaves=12,
)  # fmt: skip
NODES = st.builds(
    lambda base, changed, taken, variables: node(
        base, {**changed, **dict.fromkeys(taken, ...)}, variables=variables
    ),
    st.sampled_from(["debian12-vm", "ubuntu2204-ack-worker", "no-python"]),
    st.dictionaries(st.sampled_from(ALL_ITEMS), JSON, max_size=12),
    st.lists(st.sampled_from(ALL_ITEMS), max_size=6),
    st.dictionaries(st.just("cluster_type"), JSON),
)


@settings(max_examples=150)
@given(NODES, st.sampled_from(PROFILES))
def test_any_evidence_at_all_gives_one_result_per_requirement(judged: Evidence, name: str) -> None:
    report = evaluate(judged, profile(name), today=TODAY)
    complete(report, profile(name))
    faults = [result.message for result in report.results if "itself is at fault" in result.message]
    assert not faults


LEAVES: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: st.sampled_from(["", "x", "static", "4.19.0"]) | st.text(max_size=8),
    type(None): st.none(),
}


def shaped(value: Any) -> st.SearchStrategy[Any]:
    """Give values of the same shape as a real one, every leaf of its own type but random."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({key: shaped(entry) for key, entry in value.items()})
    if isinstance(value, list):
        entries = st.one_of([shaped(entry) for entry in value]) if value else JSON
        return st.lists(entries, max_size=4)
    return LEAVES[type(value)] | st.just(value)


UNFIT = load("debian12-unfit").items


@settings(max_examples=100)
@given(st.fixed_dictionaries({key: shaped(value) for key, value in UNFIT.items()}))
def test_well_formed_nonsense_gives_one_result_per_requirement(items: dict[str, Any]) -> None:
    for name in PROFILES:
        report = evaluate(Evidence(host="n", items=items), profile(name), today=TODAY)
        complete(report, profile(name))
        assert not any("itself is at fault" in result.message for result in report.results)


@pytest.mark.parametrize(
    ("state", "problem", "says"),
    [
        (HostState.UNREACHABLE, "it does not answer", "it does not answer"),
        (HostState.NOT_REACHED, "", "not-reached"),
    ],
)
def test_a_node_that_was_not_looked_at_has_an_error_for_every_requirement(
    state: HostState, problem: str, says: str
) -> None:
    judged = node(state=state, problem=problem, fix="Look at it.")
    report = evaluate(judged, profile("ack"), today=TODAY)
    assert {result.status for result in report.results} == {Status.ERROR}
    assert len(report.results) == len(profile("ack").checks)
    assert {result.observed for result in report.results} == {state.value}
    assert all(says in result.message for result in report.results)
    assert {result.remediation for result in report.results} == {"Look at it."}
    assert (report.state, report.problem, report.fix) == (state, problem, "Look at it.")
    assert report.facts == {}


def test_the_reason_why_nothing_was_collected_is_the_reason_given() -> None:
    result = judge("node.clock", load("no-python"))
    assert result.message == "It can't be judged: clock: the node has no Python 3."
    assert result.remediation == load("no-python").fix


def test_a_fault_in_a_check_is_an_error_of_that_check_alone() -> None:
    def broken(_items: object, _parameters: object) -> Outcome:
        raise ZeroDivisionError("oh")

    requirements = profile("self_managed")
    first, *rest = requirements.checks
    faulty = msgspec.structs.replace(first, check=first.check._replace(judge=broken))
    changed = msgspec.structs.replace(requirements, checks=(faulty, *rest))
    report = evaluate(node(), changed, today=TODAY)
    assert report.results[0].status is Status.ERROR
    assert "itself is at fault (ZeroDivisionError: oh)" in report.results[0].message
    assert {result.status for result in report.results[1:]} == {Status.PASS, Status.SKIP}


def test_long_and_broken_text_is_cut_and_mended() -> None:
    judged = node(items={"os.release": {"ID": "\ud800" + "x" * 5000}}, host="h\udfff")
    report = evaluate(judged, profile("self_managed"), today=TODAY)
    assert report.host == "h?"
    assert report.results[0].host == "h?"
    assert len(report.results[0].observed) == 601
    assert report.results[0].observed.endswith("…")


@pytest.mark.parametrize(("length", "cut"), [(599, False), (600, False), (601, True)])
def test_a_text_is_cut_only_when_it_is_too_long(length: int, *, cut: bool) -> None:
    judged = node(items={"kernel.release": "6.1.0-" + "x" * (length - 6)})
    report = evaluate(judged, profile("ack"), today=TODAY)
    assert report.facts["kernel"].endswith("…") == cut


def test_only_a_value_that_is_nothing_but_unreadable_is_so() -> None:
    clock = {"unreadable": "x", "synchronised": True}
    assert judge("node.clock", node(items={"clock": clock})).status is Status.PASS


def test_remediation_never_holds_text_of_the_node() -> None:
    evil = load("hostile").items["os.release"]["ID"]
    for name in PROFILES:
        for result in evaluate(load("hostile"), profile(name), today=TODAY).results:
            assert evil not in result.remediation


def test_facts_leave_out_what_can_not_be_read() -> None:
    judged = node(items={"kernel.release": {"unreadable": "x"}, "os.release": {"ID": "debian"}})
    facts = evaluate(judged, profile("ack"), today=TODAY).facts
    assert facts == {"os": "linux", "role": "none", "kubernetes": "none"}


@pytest.mark.parametrize(
    "check",
    [
        "node.automatic-upgrades",
        "node.cpfs-volumes",
        "node.dns-source",
        "node.image-acceleration",
        "node.resolv-conf",
        "node.security-hardening",
    ],
)
def test_what_the_vendor_asks_of_ubuntu_is_asked_of_ubuntu_only(check: str) -> None:
    # Nothing else of the node is readable: the operating system alone decides.
    for system, like, says in (
        ("debian", "", "'debian' is not ubuntu"),
        ("linuxmint", "ubuntu debian", "'linuxmint' is only derived from ubuntu"),
    ):
        release = {"os.release": {"ID": system, "ID_LIKE": like}}
        result = judge(check, node("no-python", release), "ack")
        assert (result.status, result.observed) == ("skip", says)
    assert (
        judge(check, node("no-python", {"os.release": {"ID": "ubuntu"}}), "ack").status == "error"
    )
