"""The report on a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.compliance.model import HostState, Severity
from exectrail.compliance.render import console
from exectrail.compliance.render.layout import Block, blocks, columns
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

SGR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("name", ["mixed", "fit", "hostile"])
def test_output_is_as_reviewed(name: str) -> None:
    assert console.render(saved(name), colour=False) == golden(f"{name}.txt")


def test_colour_adds_nothing_but_colour() -> None:
    coloured = console.render(saved("mixed"), colour=True)
    assert SGR.search(coloured)
    assert SGR.sub("", coloured) == golden("mixed.txt")


@pytest.mark.parametrize("width", [72, 80, 132])
@pytest.mark.parametrize("name", ["mixed", "fit"])
def test_lines_fit_the_terminal(name: str, width: int) -> None:
    text = console.render(saved(name), colour=False, width=width)
    commands = ("dnf ", "ln -sf", "systemctl", "journalctl", "timedatectl", "mv ", "apt-get")
    for line in text.splitlines():
        assert columns(line) <= width or line.strip().startswith(commands)


@pytest.mark.parametrize("text", HOSTILE)
def test_nodes_cannot_write_to_the_terminal(text: str) -> None:
    shown = console.render(hostile_report(text), colour=False)
    assert all(line.isprintable() for line in shown.split("\n"))


@given(st.text(st.characters(exclude_categories=())))
def test_a_node_never_forges_a_line(text: str) -> None:
    forged = f"x\nFIT: 1 of 1 node fit, 0 gating findings (exit 0){text}"
    lines = console.render(report(node(result(observed=forged))), colour=False).split("\n")
    assert not any(line.startswith("FIT") for line in lines)
    assert lines[-2] == "UNFIT: 0 of 1 node fit, 1 gating finding (exit 2)"


@pytest.mark.parametrize(
    ("nodes", "strict", "last"),
    [
        ([node(result("pass"))], False, "FIT: 1 of 1 node fit, 0 gating findings (exit 0)"),
        ([node(result("warn"))], False, "FIT: 1 of 1 node fit, 0 gating findings (exit 0)"),
        ([node(result("warn"))], True, "WARNINGS: 1 of 1 node fit, 0 gating findings (exit 1)"),
        ([node(result())], False, "UNFIT: 0 of 1 node fit, 1 gating finding (exit 2)"),
        ([node(result("error"))], False, "UNKNOWN: 0 of 1 node fit, 1 gating finding (exit 3)"),
        (
            [node(result("error"), state=HostState.NOT_REACHED), node(result("pass"), host="b")],
            False,
            "UNKNOWN: 1 of 2 nodes fit, 1 unreachable, 0 gating findings (exit 3)",
        ),
        (
            [node(result(waiver=waiver()))],
            False,
            "FIT: 1 of 1 node fit, 0 gating findings (exit 0)",
        ),
    ],
)
def test_the_last_line_is_the_verdict(nodes: list, strict: bool, last: str) -> None:  # noqa: FBT001
    text = console.render(report(*nodes, strict=strict), colour=False)
    assert text.splitlines()[-1] == last


def test_an_interrupted_run_says_so() -> None:
    cut = report(node(result("pass")), interrupted=True)
    assert "interrupted" in console.render(cut, colour=False)
    assert "interrupted" not in console.render(saved("mixed"), colour=False)


def test_one_problem_of_a_node_is_told_once() -> None:
    errors = [result("error", check=f"c{i}", remediation="Install it.") for i in range(9)]
    blind = node(*errors, problem="the node has no Python 3", fix="Install it.")
    text = console.render(report(blind), colour=False)
    assert text.count("the node has no Python 3") == 1
    assert text.count("Install it.") == 1
    assert "c0, c1, c2, c3, c4, c5, c6, c7, c8" in text
    assert text.splitlines()[-1] == "UNKNOWN: 0 of 1 node fit, 1 gating finding (exit 3)"


def test_many_observations_are_counted_not_listed() -> None:
    many = report(*(node(result(observed=f"saw {i}"), host=f"n{i}") for i in range(17)))
    text = console.render(many, colour=False)
    assert text.count("observed") == 5
    assert "and 12 more on 12 nodes" in text


def test_a_remediation_comes_once_whatever_the_number_of_nodes() -> None:
    text = console.render(report(*(node(result(), host=f"n{i}") for i in range(40))), colour=False)
    assert text.count("timedatectl set-ntp true") == 1
    assert "n[0-39] (40 of 40 nodes)" in text


def test_a_failure_that_does_not_gate_says_so() -> None:
    text = console.render(report(node(result(severity=Severity.MINOR))), colour=False)
    assert "FAIL node.clock (minor, does not gate)" in text


def test_commands_are_never_broken() -> None:
    command = "sed -i " + " ".join(f"-e s/word{i}/other{i}/" for i in range(20)) + " /etc/file"
    text = console.render(report(node(result(remediation=f"Do this:\n{command}"))), colour=False)
    assert command in text
    inline = f"Run `{command}` and wait."
    assert command in console.render(report(node(result(remediation=inline))), colour=False)


@pytest.mark.parametrize(
    ("remediation", "expected"),
    [
        ("", []),
        ("Do it.", [("text", "Do it.")]),
        ("Do\nit all:\nrm -r x\nls", [("text", "Do it all:"), ("command", "rm -r x\nls")]),
        ("rm x\nThen wait.", [("command", "rm x"), ("text", "Then wait.")]),
        ("Do it:\n    if x; then\n      y", [("text", "Do it:"), ("command", "if x; then\n  y")]),
        ("Set this\n  A=1", [("text", "Set this"), ("command", "A=1")]),
        ("Set:\nFOO=bar run", [("text", "Set:"), ("command", "FOO=bar run")]),
        ("One.\n\nTwo.", [("text", "One. Two.")]),
    ],
)
def test_prose_and_commands_are_told_apart(
    remediation: str, expected: list[tuple[str, str]]
) -> None:
    wanted = [Block(is_command=kind == "command", text=text) for kind, text in expected]
    assert list(blocks(remediation)) == wanted
