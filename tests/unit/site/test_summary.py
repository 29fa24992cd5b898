"""A run's journal, and what is told of it in the end."""

from __future__ import annotations

import datetime as dt
import json
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exectrail.audit_policy.rollout.model import Change, Plan
from exectrail.errors import UsageError
from exectrail.site import held, journal, outcome, summary
from exectrail.site.journal import Begun, Note

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
NODES = ("m1", "w1", "w2", "w3")


def begun(**more: Any) -> Begun:
    base: dict[str, Any] = {
        "run_id": "r",
        "mode": "site",
        "started": NOW,
        "check": False,
        "nodes": NODES,
        "masters": ("m1",),
    }
    return Begun(**{**base, **more})


def of(*notes: Note, **more: Any) -> summary.Summary:
    known = journal.Journal(
        begun=begun(**more), notes={(note.step, note.host): note for note in notes}
    )
    return summary.build(known, {}, finished=NOW + dt.timedelta(seconds=9))


def note(host: str, done: journal.Outcome, detail: str = "", step: journal.Step = "agent") -> Note:
    return Note(host=host, step=step, outcome=done, detail=detail)


def test_nodes_that_are_alike_are_one_line() -> None:
    made = of(*(note(host, "done", "installed") for host in ("w1", "w2", "w3")), note("m1", "kept"))
    text = summary.render(made)

    assert text.splitlines() == [
        "== Site: 4 nodes, 3 changed, 1 not, 9 s",
        "   m1: agent: nothing to do",
        "   w[1-3]: agent: installed (3 nodes)",
        "   Nothing is left to do.",
    ]
    assert made.exit_code == 0


def test_check_mode_says_what_would_be() -> None:
    text = summary.render(of(note("w1", "done", "installed"), check=True))

    assert "1 would change" in text
    assert "w1: agent: would be installed" in text


@pytest.mark.parametrize(
    ("done", "code"),
    [("failed", 2), ("planned", 3), ("lost", 3), ("left", 0), ("kept", 0), ("done", 0)],
)
def test_a_failure_decides_the_exit_code(done: journal.Outcome, code: int) -> None:
    assert of(note("w1", done, "it broke"), note("w2", "kept")).exit_code == code


def test_a_failure_is_told_first_with_its_node() -> None:
    made = of(note("w1", "left", "not touched"), note("w2", "failed", "no ears\nagain"))
    lines = summary.render(made).splitlines()

    assert lines[-3:] == [
        "-- Left to do",
        "!! w2: agent: no ears | again",
        "   w1: agent: not touched",
    ]
    assert [node.changed for node in made.nodes] == [False] * 4


def test_an_interrupted_run_is_unknown() -> None:
    known = journal.Journal(
        begun=begun(), notes={("agent", "w1"): note("w1", "planned", "installed")}
    )
    made = summary.build(known, {}, finished=NOW, interrupted=True)

    assert made.exit_code == 3
    assert "Run it again" in summary.render(made)
    assert "not brought to its end" in summary.render(made)
    nothing = summary.build(
        journal.Journal(begun=begun(), notes={}), {}, finished=NOW, interrupted=True
    )
    assert "Nothing is left" not in summary.render(nothing)


@pytest.mark.parametrize(
    ("fix", "told"),
    [
        ("Find it,\nand go. Then\nls", "Find it, and go."),
        ("Find it, and\ngo:\nls -l /x.y\ndf", "Find it, and go: ls -l /x.y"),
        ("Find it:\n# here:\nls", "Find it:"),
        ("ls /x: y\ndf", "ls /x: y"),
    ],
)
def test_what_to_do_is_told_by_whole_sentences_and_commands(fix: str, told: str) -> None:
    made = msgspec.structs.replace(
        of(),
        nodes=(
            summary.NodeSummary(
                host="w1",
                changed=False,
                verified="",
                steps=(),
                left=(summary.Finding(what="broken", fix=fix, gates=True),),
            ),
        ),
    )

    assert summary.render(made).splitlines()[-1].strip() == told


def test_a_thousand_nodes_are_twenty_lines() -> None:
    names = tuple(f"n{number}" for number in range(1000))
    notes = [note(name, "failed", f"reason {name}") for name in names[::2]]
    notes += [note(name, "done", f"upgraded from {name}") for name in names[1::2]]

    assert len(summary.render(of(*notes, nodes=names)).splitlines()) <= 20


def test_what_a_node_says_can_not_move_the_cursor() -> None:
    assert "\x1b" not in summary.render(of(note("w1", "failed", "\x1b[2J")))


def test_the_last_note_of_a_step_holds_and_files_are_their_owners(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    journal.begin(folder, begun())
    journal.note(folder, [note("w1", "planned"), note("w2", "planned")])
    journal.note(folder, [note("w1", "done", "installed")])
    with (folder / "journal.jsonl").open("ab") as stream:
        stream.write(b'{"host": "w2", "ste')  # cut off by a kill
    known = journal.load(folder)

    assert [one.host for one in known.of("agent", "done")] == ["w1"]
    assert [one.host for one in known.of("agent", "planned")] == ["w2"]
    path = summary.save(outcome.sum_up(folder), folder)
    assert stat.S_IMODE((folder / "journal.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert json.loads(path.read_text())["run_id"] == "r"
    loaded = summary.load(folder)
    assert loaded
    assert loaded.run_id == "r"
    journal.begin(folder, begun(run_id="next"))
    assert summary.load(folder) is None
    assert journal.load(folder).notes == {}


def test_there_may_be_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        journal.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="install_report_dir"):
        journal.begin(tmp_path / "file", begun())


def plan_of(kind: str, *, work: bool = True, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "work": work, "reasons": [], "refusals": [], "installed": "1.0", **more}


def test_only_nodes_that_need_a_change_are_changed() -> None:
    found = outcome.agents("site", {"w1": plan_of("install"), "w2": plan_of("nothing", work=False)})

    assert found.changing == ["w1"]
    assert [one.outcome for one in found.notes] == ["planned", "kept"]
    assert found.refused == []


def test_one_refusal_refuses_the_run() -> None:
    refusals = {"w1": plan_of("downgrade", refusals=["older"]), "w2": plan_of("install")}

    assert outcome.agents("install", refusals).refused == ["w1: older"]
    assert outcome.agents("upgrade", refusals).refused == [
        "w1: older",
        "w2: no agent is installed, so there is none to upgrade: run install",
    ]


CHANGE = Change(
    reasons=("the manifest",),
    expected="",
    manifest="",
    manifest_before="",
    policy=None,
    policy_before=None,
    policy_sha256=None,
    restart=True,
    wanted={},
    probe=None,
    absent=False,
)


def test_masters_before_the_one_that_failed_are_changed_and_those_after_it_not() -> None:
    plan = Plan(changes={"m1": CHANGE, "m2": CHANGE, "m3": CHANGE})
    found = [
        outcome.broken_policy(host, plan, "m2", "it broke" if host == "m2" else "").outcome
        for host in plan.changes
    ]

    assert found == ["done", "failed", "left"]
    assert outcome.broken_policy("m1", None, None, "").outcome == "left"


def test_a_roll_out_that_ended_well_is_told_of_each_master() -> None:
    plan = Plan(changes={"m1": CHANGE})

    assert outcome.policy("m1", plan).detail == "changed (the manifest)"
    assert outcome.policy("m2", plan).outcome == "kept"
    assert outcome.policy("m2", plan, resumed=True).outcome == "done"
    assert "not applicable: k3s" in outcome.policy("m1", Plan(not_applicable="k3s")).detail


def test_what_would_be_deleted_is_listed_by_folder() -> None:
    text = held.render({"w1": [("/var/log/x/a", 1000), ("/var/log/x/b", 500)], "w2": []})

    assert "  w1: /var/log/x: 2 files, 2 kB" in text
    assert "  w2: nothing is there" in text
