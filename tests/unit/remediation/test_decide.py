"""What is named, who has to do what no repair does, and how a run ends."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from exectrail import playbook
from exectrail.compliance.checks import CHECKS
from exectrail.compliance.model import Evidence, HostState
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.waivers import NO_WAIVERS, WaiverBook
from exectrail.compliance.waivers import Row as WaiverRow
from exectrail.errors import UsageError
from exectrail.remediation import decide, run
from exectrail.remediation.commands import remediate
from exectrail.remediation.model import Became, Outcome
from exectrail.remediation.owners import OWNERS, table
from exectrail.remediation.repairs import REPAIRS
from tests.unit.compliance.nodes import TODAY, node, profile

ROOT = Path(__file__).parents[3]


def test_every_check_has_a_repair_or_somebody() -> None:
    assert set(REPAIRS) | set(OWNERS) == set(CHECKS)
    assert not set(REPAIRS) & set(OWNERS)


def test_the_guide_has_every_check() -> None:
    assert table() in (ROOT / "docs/remediate.md").read_text()


def test_checks_are_named_with_commas() -> None:
    named = decide.named(" node.clock,,node.libbpf,node.clock", profile("self_managed"))

    assert named == ("node.clock", "node.libbpf")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "No check is named, so nothing is repaired"),
        (" , ", "There are repairs for node.automatic-upgrades, node.clock"),
        ("node.clock,node.resolvconf", "did you mean 'node.resolv-conf'?"),
        ("node.kernel-version", "does not require .* whoever provides the node's image to do"),
        ("all", "The profile 'self_managed' has no check 'all'"),
    ],
)
def test_a_name_that_can_t_be_meant_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        decide.named(text, profile("self_managed"))


def test_a_repair_belongs_to_the_check_whatever_the_requirement_is_called(tmp_path: Path) -> None:
    (tmp_path / "ours.yml").write_text(
        "name: ours\ntitle: Ours\ngates: [major]\nrequirements:\n"
        "  - {id: ours.time, check: node.clock, title: The time, severity: major}\n"
    )
    ours = load_profile(str(tmp_path / "ours.yml"))
    evidence = node(items={"clock": {"synchronised": False, "by": None}})

    (case,) = decide.judge(evidence, ours, NO_WAIVERS, decide.named("ours.time", ours), TODAY)

    assert decide.settled(case) is None
    assert not isinstance(decide.look(case, evidence), Outcome)


def settled(check: str, evidence: Evidence, waivers: WaiverBook = NO_WAIVERS) -> Outcome | None:
    (case,) = decide.judge(evidence, profile("self_managed"), waivers, [check], TODAY)
    return decide.settled(case)


UNSYNCHRONISED = {"clock": {"synchronised": False, "by": None}}


def waiver(expires: dt.date) -> WaiverBook:
    row = WaiverRow(check="node.clock", hosts=("*",), reason="a test", owner="ops", expires=expires)
    return WaiverBook({"node.clock": [(frozenset({node().host}), row)]})


def test_what_is_waived_is_left_alone() -> None:
    found = settled("node.clock", node(items=UNSYNCHRONISED), waiver(TODAY))

    assert found
    assert found.became == Became.WAIVED
    assert found.message == f"ops waives it until {TODAY}: a test"


def test_a_waiver_that_has_expired_is_none() -> None:
    late = waiver(TODAY - dt.timedelta(days=1))

    assert settled("node.clock", node(items=UNSYNCHRONISED), late) is None


def test_a_node_out_of_reach_is_unknown() -> None:
    found = settled(
        "node.clock", node(state=HostState.UNREACHABLE, problem="no route", fix="Look.", items={})
    )

    assert found
    assert found.became == Became.UNKNOWN
    assert found.message.endswith("no route. Look.")


def test_what_has_no_repair_says_who_and_how() -> None:
    disk = {"path": "/var/log", "bytes_free": 1, "inodes_total": 0, "inodes_free": 0}
    found = settled("node.log-space", node(items={"disk.log": disk}))

    assert found
    assert found.became == Became.BY_HAND
    assert "It is for whoever administers the node to do: what may be deleted" in found.message
    assert "\njournalctl --vacuum-size=200M" in found.message


# --- a run ------------------------------------------------------------------------------------


def begun(folder: Path, checks: str = "node.clock", **more: Any) -> None:
    run.begin(
        folder,
        checks,
        **{"undo": False, "dry": False, **more},
        profile="self_managed",
        waivers="",
        strict=False,
        selected=["a", "b"],
        inventory={"a": [], "b": []},
        run_id="the run",
    )


def test_a_wrong_name_opens_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'node\.clock'"):
        begun(tmp_path, "node.clokc")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("became", "code"),
    [
        (Became.REPAIRED, 0),
        (Became.WOULD_REPAIR, 0),
        (Became.NOTHING, 0),
        (Became.WAIVED, 0),
        (Became.UNDONE, 0),
        (Became.BY_HAND, 2),
        (Became.FAILED, 2),
        (Became.UNKNOWN, 3),
    ],
)
def test_a_run_ends_with_the_worst_that_is_left(tmp_path: Path, became: Became, code: int) -> None:
    begun(tmp_path)
    run.save(tmp_path, "a", [Outcome("node.clock", became, "So\x1b[0m.\nHow.")])
    run.save(tmp_path, "b", [Outcome("node.clock", Became.NOTHING, "Well.")])

    ended, text = run.finish(tmp_path)

    assert ended.exit_code == code
    assert ended.left == ({"a": f"node.clock: {became}"} if code else {})
    assert run.summary(tmp_path) == ended
    assert text.split("\n")[:3] == [
        f"a  node.clock  {became}: So\\x1b[0m.",
        "    How.",
        "b  node.clock  nothing to do: Well.",
    ]


def test_a_node_that_says_nothing_is_left(tmp_path: Path) -> None:
    begun(tmp_path, "node.clock,node.libbpf")
    run.save(tmp_path, "a", [])
    begun(tmp_path)

    ended, text = run.finish(tmp_path)

    assert ended.exit_code == 3
    assert set(ended.left) == {"a", "b"}
    assert text.startswith("a, b  node.clock  unknown: nothing came from the node")
    assert text.endswith("2 nodes: 2 unknown")


@pytest.mark.parametrize(("ends", "code"), [("well", 0), ("opened", 3), ("not at all", 4)])
def test_the_command_gives_the_run_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, code: int
) -> None:
    asked: list[Any] = []

    def played(name: str, variables: dict[str, Any], arguments: list[str]) -> bool:
        asked.extend([name, arguments, variables["remediate"], variables["remediate_undo"]])
        if ends != "not at all":
            begun(tmp_path)
            (tmp_path / "run.json").write_text(
                (tmp_path / "run.json")
                .read_text()
                .replace("the run", str(variables["remediate_run_id"]))
            )
        if ends == "well":
            for host in "ab":
                run.save(tmp_path, host, [Outcome("node.clock", Became.REPAIRED, "")])
            run.finish(tmp_path)
        return ends == "opened"

    monkeypatch.setattr(playbook, "run", played)
    command = ["node.clock", "-i", "a,b,", "-l", "a", "--check", "--undo", "--report-dir"]
    with click.Context(remediate):
        done = CliRunner().invoke(
            remediate, [*command, str(tmp_path), "--", "--forks", "2"], standalone_mode=False
        )

    assert done.return_value == code, done.output
    flags = ["-i", "a,b,", "--limit", "a", "--check", "--diff", "--forks", "2"]
    assert asked == ["remediate", flags, "node.clock", True]
