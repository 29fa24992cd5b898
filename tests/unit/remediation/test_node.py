"""A node's part of a run, with the real script on a machine in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from exectrail.compliance.model import Evidence
from exectrail.compliance.waivers import NO_WAIVERS
from exectrail.remediation.model import Became, Outcome
from exectrail.remediation.node import Node, Unheard, Unmet
from exectrail.remediation.repairs import APT_FILE
from exectrail.remediation.run import Asked, Opened
from tests.unit.compliance.nodes import TODAY, node, profile
from tests.unit.remediation.conftest import Killed, Machine

CHECK = "node.automatic-upgrades"
TIMER = "apt-daily-upgrade.timer"


@pytest.fixture
def upgrading(machine: Machine) -> Machine:
    """A machine that upgrades itself, by setting and timer."""
    (machine.root / APT_FILE[1:]).parent.mkdir(parents=True)
    machine.unit(TIMER, on=True)
    return machine


def evidence(machine: Machine) -> Evidence:
    """Read the machine as the evidence script would."""
    units = dict(node().items["upgrades.units"])
    units[TIMER] = machine.changes({"do": "unit", "name": TIMER, "on": False})[0]["before"]
    off = (machine.root / APT_FILE[1:]).exists()
    config = {"APT::Periodic::Unattended-Upgrade": "0" if off else "1"}
    return node(
        items={
            "upgrades.units": units,
            "upgrades.apt": {"installed": True, "config": config},
            "libbpf": None,
        }
    )


def run(
    machine: Machine,
    *checks: str,
    undo: bool = False,
    dry: bool = False,
    collect: Callable[[], Evidence] | None = None,
    ask: Callable[..., dict[str, Any]] | None = None,
) -> list[Outcome]:
    asked = Asked(checks=checks or (CHECK,), undo=undo, dry=dry)
    opened = Opened(asked, profile("self_managed"), NO_WAIVERS, TODAY)

    def answer(do: str, check: str, **more: Any) -> dict[str, Any]:
        found = machine.ask(do, check=check, dry=dry, **more)
        if "refused" in found:
            raise Unmet(found["refused"])
        return found

    started = Node(opened, collect or (lambda: evidence(machine)), ask or answer)
    return started.undo() if undo else started.repair()


def test_check_mode_shows_and_changes_nothing(upgrading: Machine) -> None:
    before = upgrading.tree()

    (outcome,) = run(upgrading, dry=True)

    assert outcome.became == Became.WOULD_REPAIR
    assert [subject for subject, *_ in outcome.diff] == [APT_FILE, TIMER]
    assert upgrading.tree() == before
    assert not (upgrading.root / "var").exists()


def test_a_repair_is_proven_and_then_nothing_is_left_to_do(upgrading: Machine) -> None:
    before = upgrading.tree()
    (outcome,) = run(upgrading)

    assert outcome.became == Became.REPAIRED
    assert outcome.message.startswith("Nothing upgrades the operating system by itself.")
    assert outcome.message.endswith(f"-{CHECK}.")
    assert [each[2] for each in outcome.diff][1] == "disabled, inactive\n"

    repaired = upgrading.tree()
    assert [each.became for each in run(upgrading)] == [Became.NOTHING]
    assert upgrading.tree() == repaired

    assert [each.became for each in run(upgrading, undo=True, dry=True)] == [Became.WOULD_UNDO]
    assert upgrading.tree() == repaired
    (undone,) = run(upgrading, undo=True)
    assert (undone.became, undone.message) == (Became.UNDONE, f"{APT_FILE}, {TIMER} as before.")
    assert upgrading.tree() == before
    assert [each.became for each in run(upgrading, undo=True)] == [Became.NOTHING]


def test_one_check_does_not_stop_another(upgrading: Machine) -> None:
    upgrading.candidate = "(none)"
    upgrading.broken.add("stop")

    outcomes = run(upgrading, "node.libbpf", CHECK, "node.clock", "node.os-family")

    assert [each.became for each in outcomes] == [
        Became.BY_HAND,
        Became.FAILED,
        Became.NOTHING,
        Became.NOTHING,
    ]
    assert "it could not be taken back: systemctl stop" not in outcomes[1].message
    assert "everything is as before" in outcomes[1].message


def test_a_repair_that_does_not_help_is_taken_back(upgrading: Machine) -> None:
    before = upgrading.tree()
    still = evidence(upgrading)

    (outcome,) = run(upgrading, collect=lambda: still)

    assert outcome.became == Became.FAILED
    assert outcome.message.endswith("will upgrade itself. So it was taken back.")
    assert upgrading.tree() == before


def test_a_repair_that_can_t_be_proven_is_taken_back_and_unknown(upgrading: Machine) -> None:
    first, blind = evidence(upgrading), {"upgrades.units": {"unreadable": "no answer in time"}}
    answers = iter([first, node(items=blind), node(items=blind)])

    (outcome,) = run(upgrading, collect=lambda: next(answers))

    assert outcome.became == Became.UNKNOWN
    assert "no answer in time. So it was taken back." in outcome.message
    assert next(answers, None) is None


def test_a_busy_node_is_asked_twice(upgrading: Machine) -> None:
    blind = node(items={"upgrades.units": {"unreadable": "no answer in time"}})
    asked: list[bool] = []

    def collect() -> Evidence:
        asked.append(True)
        return blind if len(asked) == 2 else evidence(upgrading)

    assert [each.became for each in run(upgrading, collect=collect)] == [Became.REPAIRED]


def test_what_a_killed_run_left_is_taken_back_before_anything_is_planned(
    upgrading: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(upgrading.module, "switch_unit", die)
        with pytest.raises(Killed):
            run(upgrading)
    assert (upgrading.root / APT_FILE[1:]).exists()

    (outcome,) = run(upgrading)

    assert outcome.became == Became.REPAIRED
    assert [subject for subject, *_ in outcome.diff] == [APT_FILE, TIMER]
    assert sorted(each["state"] for each in upgrading.journals()) == ["done", "taken back"]


def test_a_node_that_can_t_be_asked_is_unknown(upgrading: Machine) -> None:
    def ask(*_: object, **__: object) -> dict[str, Any]:
        raise Unheard("no route to it")

    assert [each.became for each in run(upgrading, ask=ask)] == [Became.UNKNOWN]
    assert [each.became for each in run(upgrading, ask=ask, undo=True)] == [Became.UNKNOWN]


def test_undo_says_what_somebody_has_changed(upgrading: Machine) -> None:
    run(upgrading)
    (upgrading.root / APT_FILE[1:]).write_text("mine\n")

    (outcome,) = run(upgrading, undo=True)

    assert outcome.became == Became.FAILED
    assert outcome.message.startswith(f"{APT_FILE} has been changed since it was repaired")


def test_a_repair_that_can_be_taken_back_no_more_says_so(upgrading: Machine) -> None:
    still = evidence(upgrading)
    asked: list[str] = []

    def collect() -> Evidence:
        asked.append("")
        if len(asked) == 2:
            (upgrading.root / APT_FILE[1:]).write_text("mine\n")
        return still

    (outcome,) = run(upgrading, collect=collect)

    assert "It could not be taken back: /etc/apt" in outcome.message
    assert json.dumps(outcome.diff)
