"""What a run over a fleet says when it is asked for a part, or begun in the middle. Looks only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.sshd import Fleet
from tests.integration.conftest import Exectrail, Ran


@pytest.fixture
def workers(inventory: Path) -> Path:
    data = yaml.safe_load(inventory.read_text())
    hosts: dict[str, dict[str, str]] = {name: {} for name in data["all"]["hosts"]}
    data["all"]["children"] = {"workers": {"hosts": hosts}}
    inventory.write_text(yaml.safe_dump(data))
    return inventory


def _look(exectrail: Exectrail, command: str, inventory: Path, *arguments: str) -> Ran:
    where = ("--report-dir", exectrail.reports, "--masters-group", "")
    return exectrail(command, "-i", inventory, *where, "--check", *arguments)


def _outcomes(exectrail: Exectrail) -> dict[str, dict[str, str]]:
    """What became of each step on each node, by the summary."""
    summary: dict[str, Any] = json.loads((exectrail.reports / "summary.json").read_text())
    return {
        node["host"]: {one["step"]: one["outcome"] for one in node["steps"]}
        for node in summary["nodes"]
    }


def test_a_node_out_of_reach_is_told_alone(
    exectrail: Exectrail, workers: Path, machines: Fleet
) -> None:
    data = yaml.safe_load(workers.read_text())
    data["all"]["hosts"]["node-002"]["ansible_port"] = 1
    workers.write_text(yaml.safe_dump(data))
    ran = _look(exectrail, "uninstall", workers)

    assert ran.code == 3, ran.out + ran.err
    assert "!! node-002: agent: nothing listens on its ssh port" in ran.out
    steps = _outcomes(exectrail)
    assert sorted(steps) == machines.names
    assert steps.pop("node-002") == {"agent": "lost"}
    assert {outcome for each in steps.values() for outcome in each.values()} <= {"kept", "done"}


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (
            ("--limit", "node-001:node-002", "--diff"),
            {"node-001": {"agent"}, "node-002": {"agent"}},
        ),
        (("--limit", "node-003", "--", "--tags", "policy"), {"node-003": set()}),
    ],
)
def test_only_the_part_that_is_asked_for_is_looked_at(
    exectrail: Exectrail, workers: Path, options: tuple[str, ...], steps: dict[str, set[str]]
) -> None:
    ran = _look(exectrail, "uninstall", workers, *options)

    assert ran.code == 0, ran.out + ran.err
    assert {host: set(each) for host, each in _outcomes(exectrail).items()} == steps


@pytest.mark.parametrize(
    ("command", "task"),
    [
        ("site", "Look at the agent of the node"),
        ("verify", "Judge the evidence and write the reports"),
    ],
)
def test_a_run_that_was_not_begun_can_not_go_on(
    exectrail: Exectrail, workers: Path, command: str, task: str
) -> None:
    where = ("-i", workers, "--report-dir", exectrail.reports)
    ran = exectrail(command, *where, "--", "--start-at-task", task)

    assert ran.code == 4, ran.out + ran.err
    assert ran.err.count("This run was not begun") == 1
    assert not list(exectrail.reports.glob("*.json*"))
