from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from exectrail.audit_policy.rollout import run
from exectrail.audit_policy.rollout.model import Master, RolloutError, Unread
from tests.unit.audit_policy.rollout.masters import master, request


def variables() -> dict[str, object]:
    asked = msgspec.to_builtins(request(masters=["m1", "m/2"], selected=["m1", "m/2"]))
    return {key: value for key, value in asked.items() if key not in {"run", "holder"}}


def test_a_run_goes_through_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "run"
    begun = run.begin(folder, variables())
    for host in begun.masters:
        assert isinstance(run.save_master(folder, host, msgspec.to_builtins(master())), Master)
    made = run.make_plan(folder)

    assert run.request(folder) == begun
    assert run.load_plan(folder) == made
    assert run.change(folder, "m/2") == made.changes["m/2"]
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.json")} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_master_that_said_nothing_is_a_reason_to_refuse(tmp_path: Path) -> None:
    run.begin(tmp_path, variables())
    run.save_master(tmp_path, "m1", {"problem": "Connection refused"})

    assert run.master(tmp_path, "m1") == Unread("Connection refused")
    with pytest.raises(RolloutError, match="m/2: it could not be reached"):
        run.make_plan(tmp_path)


def test_nothing_of_the_run_before_is_taken_for_this_one(tmp_path: Path) -> None:
    run.begin(tmp_path, variables())
    run.save_master(tmp_path, "m1", msgspec.to_builtins(master()))
    folder = run.stop(tmp_path, "m1", {"../cause.txt": "it broke"})
    assert (folder / "cause.txt").read_text() == "it broke"
    assert run.stopped_at(tmp_path) == "m1"
    run.begin(tmp_path, variables())

    assert isinstance(run.master(tmp_path, "m1"), Unread)
    assert run.stopped_at(tmp_path) is None
    assert (tmp_path / "evidence.previous/m1/cause.txt").read_text() == "it broke"


@pytest.mark.parametrize("text", ["", "{", '{"run": 1}'])
def test_a_broken_folder_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(RolloutError):
        run.request(tmp_path)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RolloutError, match="audit_policy_report_dir"):
        run.begin(tmp_path / "file", variables())


def test_only_a_dead_run_of_this_controller_is_dead() -> None:
    mine = run.holder()
    assert not run.holder_is_dead(mine)
    assert run.holder_is_dead(mine.replace(" since ", " since 1"))
    assert run.holder_is_dead(mine.replace(f"pid {os.getppid()}", "pid 4194305"))
    assert not run.holder_is_dead("root@another pid 4194305 since 1")
    assert not run.holder_is_dead("nonsense")


def test_a_run_is_dead_before_anybody_has_taken_leave_of_it() -> None:
    child = subprocess.Popen(["true"])
    start = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    name = run.holder().partition(" pid ")[0] + f" pid {child.pid} since {start}"
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert run.holder_is_dead(name)
    child.wait()
