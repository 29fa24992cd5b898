"""The node's half: one transaction, its journal, and the way back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.remediation.conftest import WANTS, Killed, Machine, load

FILE = {"do": "write", "path": "/etc/apt.conf", "text": "off\n"}
LINK = {"do": "link", "path": "/etc/resolv.conf", "target": "../run/stub"}
TIMER = {"do": "unit", "name": "upgrade.timer", "on": False}
DAEMON = {"do": "unit", "name": "clock.service", "on": True}
PACKAGE = {"do": "package", "name": "libbpf1", "manager": "apt-get"}
ALL = (FILE, LINK, TIMER, DAEMON, PACKAGE)


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine on which each of the actions has something to do."""
    (machine.root / "etc/apt.conf").write_text("on\n")
    (machine.root / "etc/apt.conf").chmod(0o640)
    os.utime(machine.root / "etc/apt.conf", (1, 1))
    (machine.root / "etc/resolv.conf").write_text("nameserver 10.0.0.1\n")
    machine.unit("upgrade.timer", on=True)
    machine.unit("clock.service", on=False)
    return machine


def is_repaired(node: Machine) -> bool:
    conf = node.root / "etc/resolv.conf"
    return (
        (node.root / "etc/apt.conf").read_text() == "off\n"
        and conf.is_symlink()
        and str(conf.readlink()) == "../run/stub"
        and not (node.root / WANTS / "upgrade.timer").is_symlink()
        and (node.root / "units/upgrade.timer").read_text() == "inactive\n"
        and (node.root / WANTS / "clock.service").is_symlink()
        and (node.root / "units/clock.service").read_text() == "active\n"
        and (node.root / "pkg/libbpf1").exists()
    )


def test_a_repair_is_made_and_undone(node: Machine) -> None:
    before = node.tree()

    made = node.apply(*ALL)
    assert is_repaired(node), made
    assert (node.root / "etc/apt.conf").stat().st_mode & 0o777 == 0o640

    assert len(node.undo()["changes"]) == len(ALL)
    assert node.tree() == before
    assert [journal["state"] for journal in node.journals()] == ["undone"]
    assert node.undo() == {"changes": None}


def test_what_was_there_is_kept_for_root_alone(node: Machine) -> None:
    folder = Path(node.apply(FILE, LINK)["folder"])

    assert folder.name.endswith("Z-node.test")
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("etc-apt.conf", "etc-resolv.conf", "journal.json"), 0o600
    )
    assert (folder / "etc-resolv.conf").read_text() == "nameserver 10.0.0.1\n"


def test_bytes_that_are_no_text_come_back(node: Machine) -> None:
    (node.root / "etc/apt.conf").write_bytes(b"\xff\xfe")

    node.apply(FILE)
    node.undo()

    assert (node.root / "etc/apt.conf").read_bytes() == b"\xff\xfe"


def test_a_new_file_goes_again_and_a_link_is_a_link_again(node: Machine) -> None:
    (node.root / "etc/apt.conf").unlink()
    (node.root / "etc/resolv.conf").unlink()
    (node.root / "etc/resolv.conf").symlink_to("nowhere")
    before = node.tree()

    node.apply(FILE, LINK)
    assert (node.root / "etc/apt.conf").stat().st_mode & 0o777 == 0o644
    node.undo()

    assert node.tree() == before


def test_a_masked_unit_is_masked_again(node: Machine) -> None:
    mask = node.root / "etc/systemd/system/upgrade.timer"
    mask.symlink_to("/dev/null")
    before = node.tree()

    node.apply(TIMER)
    assert mask.is_symlink()
    node.undo()

    assert node.tree() == before


@pytest.mark.parametrize("action", ALL, ids=lambda action: action["do"])
def test_what_was_changed_since_it_was_read_is_not_touched(
    node: Machine, action: dict[str, Any]
) -> None:
    changes = node.changes(action)
    change_by_hand(node, action)
    before = node.tree()

    answer = node.ask("apply", changes=changes, await_clock=0)

    assert answer["refused"].endswith("was changed since it was read; run again")
    assert node.tree() == before
    assert node.journals() == []


@pytest.mark.parametrize("action", ALL, ids=lambda action: action["do"])
def test_what_somebody_has_changed_since_is_not_undone(
    node: Machine, action: dict[str, Any]
) -> None:
    made = node.apply(*ALL)
    change_by_hand(node, action)
    before = node.tree()

    answer = node.undo()

    subject = action.get("path") or action["name"]
    assert answer["refused"].startswith(f"{subject} has been changed since it was repaired")
    assert made["folder"] in answer["refused"]
    assert node.tree() == before
    assert node.undo(dry=True) == answer


def change_by_hand(node: Machine, action: dict[str, Any]) -> None:
    """Change what an action is about to another state than it is in, whichever that is."""
    if "path" in action:
        path = node.root / action["path"][1:]
        path.unlink(missing_ok=True)
        path.write_text("by hand\n")
    elif action["do"] == "unit":
        state = node.root / "units" / action["name"]
        state.write_text("failed\n")
    else:
        (node.root / "pkg" / action["name"]).write_text("1.2.0")


def test_undo_can_be_looked_at_first(node: Machine) -> None:
    node.apply(FILE)

    (change,) = node.undo(dry=True)["changes"]

    assert (change["before"]["text"], change["after"]["text"]) == ("off\n", "on\n")
    assert (node.root / "etc/apt.conf").read_text() == "off\n"


def test_repairs_are_undone_one_by_one_the_newest_first(node: Machine) -> None:
    node.apply(FILE)
    node.apply({**FILE, "text": "offer\n"})
    node.ask("apply", check="node.other", changes=node.changes(LINK), await_clock=0)

    node.undo()
    assert (node.root / "etc/apt.conf").read_text() == "off\n"
    node.undo()
    assert (node.root / "etc/apt.conf").read_text() == "on\n"
    assert (node.root / "etc/resolv.conf").is_symlink()


@pytest.mark.parametrize("number", range(len(ALL)), ids=[each["do"] for each in ALL])
def test_a_step_that_fails_takes_all_back(
    node: Machine, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = node.tree()
    made = node.module.make

    def make(where: Any, action: dict[str, Any], state: dict[str, Any]) -> None:
        made(where, action, state)
        if action == ALL[number]:
            raise node.module.Failed("as the test wants")

    monkeypatch.setattr(node.module, "make", make)

    assert node.apply(*ALL) == {"refused": "as the test wants; everything is as before"}
    assert node.tree() == before
    assert [journal["state"] for journal in node.journals()] == ["taken back"]


def test_a_program_that_fails_is_quoted(node: Machine) -> None:
    before = node.tree()
    node.broken.add("stop")

    told = node.apply(FILE, TIMER)["refused"]

    assert "systemctl stop upgrade.timer: Failed to stop upgrade.timer: as the test wants" in told
    assert node.tree() == before


def test_what_can_t_be_taken_back_says_where_it_lies(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.broken.add("stop")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/etc")

    monkeypatch.setattr(node.module, "put_back", fail)
    told = node.apply(FILE, TIMER)["refused"]

    assert "it could not be taken back: /etc: No space left on device. What was there" in told
    assert [journal["state"] for journal in node.journals()] == ["running"]


WHEN = [
    (name, count)
    for name, times in (("before", 5), ("after", 5), ("noted", 6))
    for count in range(times)
]


def kill(node: Machine, monkeypatch: pytest.MonkeyPatch, when: str, count: int) -> None:
    """Let a repair end before or after its nth step, or after that is in the journal."""
    passed = 0
    made, written = node.module.make, node.module.Journal.write

    def make(*arguments: Any) -> None:
        nonlocal passed
        passed += 1
        if (when, passed - 1) == ("before", count):
            raise Killed
        made(*arguments)
        if (when, passed - 1) == ("after", count):
            raise Killed

    def write(journal: Any) -> None:
        written(journal)
        if (when, journal.data["done"]) == ("noted", count):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(node.module, "make", make)
        patch.setattr(node.module.Journal, "write", write)
        with pytest.raises(Killed):
            node.apply(*ALL)


LOOK = {"paths": ["/etc/apt.conf"], "units": [], "packages": {}, "resolver": False}


@pytest.mark.parametrize(("when", "count"), WHEN)
def test_a_repair_that_was_killed_is_taken_back_by_the_next(
    node: Machine, monkeypatch: pytest.MonkeyPatch, when: str, count: int
) -> None:
    before = node.tree()
    kill(node, monkeypatch, when, count)
    killed = node.tree()

    assert node.ask("look", dry=True, **LOOK)["interrupted"]
    assert node.ask("look", check="node.other", **LOOK)["interrupted"] is False
    assert node.tree() == killed

    found = node.ask("look", **LOOK)
    assert found["interrupted"]
    assert found["paths"]["/etc/apt.conf"]["text"] == "on\n"
    assert node.tree() == before
    assert node.ask("look", **LOOK)["interrupted"] is False


def test_what_a_killed_repair_has_left_is_no_obstacle(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = node.tree()
    kill(node, monkeypatch, "after", 2)
    node.ask("look", **LOOK)

    assert "changes" in node.apply(*ALL)
    assert is_repaired(node)
    node.undo()
    assert node.tree() == before


@pytest.mark.parametrize(("when", "count"), [("after", 1), ("after", 4), ("noted", 5)])
def test_a_repair_that_was_killed_can_be_undone(
    node: Machine, monkeypatch: pytest.MonkeyPatch, when: str, count: int
) -> None:
    before = node.tree()
    kill(node, monkeypatch, when, count)

    assert node.undo()["changes"]
    assert node.tree() == before


def test_a_killed_repair_that_somebody_has_gone_on_with_is_left(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(node, monkeypatch, "after", 1)
    (node.root / "etc/resolv.conf").unlink()

    assert "/etc/resolv.conf has been changed" in node.ask("look", **LOOK)["refused"]


def test_a_half_written_file_is_cleared_away(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (node.root / "etc/new").mkdir()
    before = node.tree()

    def rename(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        made = node.module.put_file
        patch.setattr(
            node.module,
            "put_file",
            lambda where, text, like: (
                patch.setattr(node.module.os, "rename", rename) if "apt.conf" in where[-8:] else 0,
                made(where, text, like),
            ),
        )
        with pytest.raises(Killed):
            node.apply({**FILE, "path": "/etc/new/apt.conf"})
    assert list((node.root / "etc/new").iterdir()) != []

    node.ask("look", **LOOK)

    assert list((node.root / "etc/new").iterdir()) == []
    assert node.tree() == before


def test_one_repair_at_a_time(node: Machine) -> None:
    with node.module.Lock(node.module.Node(str(node.root))):
        assert node.apply(FILE) == {"refused": "another repair of this node is under way"}
    assert "changes" in node.apply(FILE)


def test_a_folder_is_no_file(node: Machine) -> None:
    (node.root / "etc/resolv.conf").unlink()
    (node.root / "etc/resolv.conf").mkdir()

    told = node.apply(LINK)["refused"]

    assert told == "/etc/resolv.conf is neither a file nor a link; everything is as before"


def test_a_file_is_not_written_through_a_link(node: Machine) -> None:
    (node.root / "etc/apt.conf").unlink()
    (node.root / "etc/apt.conf").symlink_to("resolv.conf")

    assert "/etc/apt.conf is no regular file" in node.apply(FILE)["refused"]
    assert (node.root / "etc/resolv.conf").read_text() == "nameserver 10.0.0.1\n"


def test_a_clock_that_nothing_sets_takes_the_repair_back(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = node.tree()
    ticks = iter([0.0, 1.0, 2.0])
    monkeypatch.setattr(node.module, "clock_is_synchronised", lambda: False)
    monkeypatch.setattr(node.module.time, "monotonic", lambda: next(ticks))
    monkeypatch.setattr(node.module.time, "sleep", lambda _: None)

    told = node.apply(DAEMON, await_clock=1)["refused"]

    assert told.startswith("the clock did not become synchronised within 1 s")
    assert node.tree() == before


def test_the_clock_is_asked_of_the_kernel(node: Machine) -> None:
    assert node.module.clock_is_synchronised() in (True, False)


def test_a_package_is_found_by_the_node_s_manager(node: Machine) -> None:
    names = {"apt-get": "libbpf1", "dnf": "libbpf"}
    found = node.ask("look", **{**LOOK, "packages": names})["package"]
    node.candidate = "(none)"
    none = node.ask("look", **{**LOOK, "packages": names})["package"]
    node.root.joinpath("pkg/libbpf1").write_text("1.1.0")
    there = node.ask("look", **{**LOOK, "packages": names})["package"]

    common = {"name": "libbpf1", "manager": "apt-get"}
    assert found == {**common, "installed": None, "offered": True}
    assert none == {**common, "installed": None, "offered": False}
    assert there == {**common, "installed": "1.1.0", "offered": False}
    assert node.ask("look", **{**LOOK, "packages": {"no-such": "x"}})["package"] is None


def test_old_lists_of_packages_are_fetched_anew(node: Machine) -> None:
    node.apply(PACKAGE)

    calls = [call for call in node.calls if call[0] == "apt-get"]
    assert [call[-1] for call in calls] == ["libbpf1", "update", "libbpf1"]
    assert "--no-remove" in calls[0]


def test_a_package_that_is_needed_now_stays(node: Machine) -> None:
    node.apply(PACKAGE)
    node.broken.add("--remove")

    assert node.undo()["refused"].startswith("dpkg --remove libbpf1: Failed to --remove libbpf1")
    assert (node.root / "pkg/libbpf1").exists()


def test_the_resolver_s_own_nameservers_are_told_apart(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node.module, "STUB", ("127.0.0.1", 9))

    def seen(text: str) -> dict[str, Any]:
        monkeypatch.setattr(node.module.Node, "start", lambda *_: (0, text, ""))
        found: dict[str, Any] = node.ask("look", **{**LOOK, "resolver": True})["resolver"]
        return found

    assert seen("Global:\nLink 2 (eth0): 10.0.0.2\n") == {
        "answers": False,
        "links": True,
        "globally": False,
    }
    assert seen("Global: 10.0.0.1\nLink 2 (eth0):\n")["globally"]
    assert not seen("Global: 10.0.0.1\nLink 2 (eth0):\n")["links"]


def test_a_program_is_waited_for_with_patience() -> None:
    node = load("node_repair").Node()

    assert node.run(["sh", "-c", "echo $LC_ALL"]) == "C\n"
    assert node.start(["sh", "-c", "echo out; echo err >&2; exit 3"]) == (3, "out\n", "err\n")
    for command, told in (
        (["no-such-program"], "no-such-program: No such file or directory"),
        (["sleep", "9"], "sleep 9: not finished within 0 s"),
        (["false"], "false: exit code 1"),
    ):
        with pytest.raises(Exception, match=told):
            node.run(command, seconds=0.05 if command[0] == "sleep" else 9)
