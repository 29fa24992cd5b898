"""`exectrail status`: what nodes say, judged and printed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from exectrail.nodes.fleet import Answer
from exectrail.nodes.reachability import NO_PYTHON
from exectrail.status import on_node, render
from exectrail.status.model import Node, State, exit_code, row

NOW = 1_800_000_000.0
STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "sensor": "bpf",
    "written": NOW - 2,
    "last_record": NOW - 90,
    "losses": {"ring-full": 2, "agent-killed": 1},
    "reasons": [],
    "something": "of a later version",
}
SAID: dict[str, Any] = {
    "now": NOW,
    "loaded": True,
    "active": "active",
    "process": "S",
    "status": STATUS,
    "policy": None,
}


def _answer(said: Any = None, *, out: str = "", err: str = "", unreachable: str = "") -> Answer:
    text = out if said is None else f"Welcome!\n{json.dumps({'answer': said})}\n"
    return Answer("n", text, err, unreachable, NOW, NOW)


def _row(**changes: Any) -> Node:
    return row(_answer({**SAID, **changes}), "fit")


def test_a_healthy_agent() -> None:
    found = _row()

    assert found.fine
    assert (found.agent, found.fit, found.sensor, found.version) == (
        State.HEALTHY,
        "fit",
        "bpf",
        "0.1.0",
    )
    assert (found.age, found.losses, found.policy, found.why) == (90.0, 3, None, "")


@pytest.mark.parametrize(
    ("changes", "state", "why"),
    [
        ({"loaded": False, "active": "inactive"}, State.ABSENT, "not installed"),
        ({"active": "failed", "process": ""}, State.DOWN, "the agent is failed"),
        ({"active": "inactive", "process": ""}, State.DOWN, "the agent is inactive"),
        ({"process": ""}, State.DOWN, "the agent is active"),
        ({"process": "T"}, State.DOWN, "stopped by a signal"),
        ({"status": None}, State.DOWN, "has not told"),
        ({"status": {**STATUS, "written": NOW - 99}}, State.DOWN, "for 99 s"),
        ({"status": {**STATUS, "reasons": ["blind", "deaf"]}}, State.DEGRADED, "blind; deaf"),
    ],
)
def test_an_agent_that_is_not_well(changes: dict[str, Any], state: State, why: str) -> None:
    found = _row(**changes)

    assert found.agent is state
    assert why in found.why
    assert not found.fine


def test_a_master_without_the_policy_is_not_fine_though_its_agent_is() -> None:
    assert _row(policy=True).fine
    found = _row(policy=False)
    assert (found.agent, found.fine) == (State.HEALTHY, False)
    assert "policy" in found.why


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_answer(unreachable="ssh: connect: Connection refused"), "nothing listens"),
        (_answer(err="sudo: a password is required"), "becoming root needs a password"),
        (_answer(out=NO_PYTHON), "it has no Python 3"),
        (_answer(out='{"answer": {"now": "then"}}'), "could not be read"),
        (_answer(out='{"answer": '), "could not be read"),
        (_answer(), "no answer at all"),
    ],
)
def test_a_node_that_says_nothing_is_unreachable_and_why(answer: Answer, why: str) -> None:
    found = row(answer, "")

    assert found.agent is State.UNREACHABLE
    assert why in found.why


HEALTHY = Node(host="n", agent=State.HEALTHY)
UNREACHABLE = Node(host="u", agent=State.UNREACHABLE, why="it does not answer")


@pytest.mark.parametrize(
    ("nodes", "code"),
    [
        ([HEALTHY], 0),
        ([HEALTHY, Node(host="d", agent=State.DEGRADED)], 2),
        ([HEALTHY, Node(host="m", agent=State.HEALTHY, policy=False)], 2),
        ([Node(host="d", agent=State.DOWN), UNREACHABLE], 3),
    ],
)
def test_the_exit_code_is_the_worst(nodes: list[Node], code: int) -> None:
    assert exit_code(nodes) == code
    assert json.loads(render.as_json(nodes))["exit_code"] == code


def test_a_row_for_each_node_and_what_they_share_once() -> None:
    nodes = [
        Node(host=f"n{number}", agent=State.ABSENT, why="not installed") for number in (1, 10, 2)
    ] + [UNREACHABLE, Node(host="v", agent=State.UNREACHABLE, why="it does not answer")]

    lines = render.table(nodes, colour=False).splitlines()

    assert [line.split()[0] for line in lines[1:4]] == ["n1", "n2", "n10"]
    assert "n[1-2,10]: not installed" in lines
    assert lines.count("u: it does not answer") == lines.count("v: it does not answer") == 1
    assert lines[-1] == "0 of 5 nodes as they should be, 3 absent, 2 unreachable (exit 3)"


@pytest.mark.parametrize(
    ("age", "losses", "shown"),
    [
        (0.0, 0, "0 s ago"),
        (90.0, 0, "1 min ago"),
        (7300.0, 0, "2 h ago"),
        (200000.0, 0, "2 d ago"),
        (None, 0, "never"),
    ],
)
def test_how_long_ago(age: float | None, losses: int, shown: str) -> None:
    text = render.table([Node(host="n", agent=State.HEALTHY, age=age, losses=losses)], colour=False)

    assert shown in text


def test_colours_are_for_terminals_and_a_nodes_text_can_not_bring_its_own() -> None:
    nodes = [Node(host="n", agent=State.DEGRADED, version="\x1b[31m", why="\x1b]0;x\x07")]

    assert "\x1b" not in render.table(nodes, colour=False)
    coloured = render.table(nodes, colour=True)
    assert "\x1b[33mdegraded\x1b[0m" in coloured
    assert "\\x1b]0;x\\x07" in coloured


MANIFEST = """\
spec:
  containers:
  - command:
    - kube-apiserver
    - --audit-policy-file={policy}
    - "--audit-log-path=/var/log/a"
"""


@pytest.mark.parametrize(
    ("rules", "flags", "in_force"),
    [
        ("rules", ["--audit-log-path=/var/log/a"], True),
        ("edited", ["--audit-log-path=/var/log/a"], False),
        ("rules", ["--audit-log-path=/elsewhere"], False),
        ("rules", None, False),
    ],
)
def test_the_policy_in_force_is_the_one_rolled_out(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, rules: str, flags: Any, in_force: Any
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(rules)
    digest = on_node.hashlib.sha256(b"rules").hexdigest()
    applied = tmp_path / "applied.json"
    applied.write_text(
        json.dumps({"manifest": MANIFEST.format(policy=policy), "policy_sha256": digest})
    )
    words = ["kube-apiserver"]
    words += [f"--audit-policy-file={policy}", *flags] if flags else []
    monkeypatch.setattr(on_node, "APPLIED", str(applied))
    monkeypatch.setattr(on_node, "arguments", lambda: words)

    assert on_node.policy() is in_force
    monkeypatch.setattr(on_node, "APPLIED", "/nonexistent")
    assert on_node.policy() is False
    monkeypatch.setattr(on_node, "arguments", lambda: None)
    assert on_node.policy() is None
