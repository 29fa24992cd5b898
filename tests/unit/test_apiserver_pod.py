"""The node's half of a roll-out, as far as it can be seen without a cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.scripts import load


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load("apiserver_pod")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["kube-apiserver", "--audit-log-path=/a"], "/a"),
        (["kube-apiserver", "--audit-log-path", "/a"], "/a"),
        (["kube-apiserver", "--audit_log_path=/a", "--audit-log-path=/b"], "/b"),
        (["kube-apiserver", "--audit-log-path"], ""),
        (["kube-apiserver", "--audit-log-path=a=b"], "a=b"),
        (["kube-apiserver"], None),
    ],
)
def test_flags_are_read_as_the_server_does(
    module: ModuleType, arguments: list[str], value: str | None
) -> None:
    assert module.flag(arguments, "audit-log-path") == value


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("kube-apiserver.yaml", "metadata:\n  name: kube-apiserver\n", False),
        (".kube-apiserver.yaml.swp", "metadata:\n  name: kube-apiserver\n", False),
        ("kube-apiserver.yaml~", "", True),
        ("kube-apiserver.yaml.bak", "anything", True),
        ("copy.yaml", "metadata:\n  name: kube-apiserver\n", True),
        ("copy.json", '{"metadata": {\n"name": "kube-apiserver",\n', True),
        ("etcd.yaml", "metadata:\n  name: etcd\n", False),
        ("proxy.yaml", "image: kube-apiserver-proxy\n", False),
    ],
)
def test_another_manifest_of_an_api_server_is_a_stray(
    module: ModuleType, tmp_path: Path, name: str, text: str, *, found: bool
) -> None:
    (tmp_path / name).write_text(text)

    assert module.strays(str(tmp_path)) == [name] * found


def test_the_state_folder_must_be_beside_the_static_pods(
    module: ModuleType, tmp_path: Path
) -> None:
    pods = tmp_path / "manifests"
    pods.mkdir()

    assert module.state_dir_problem(str(tmp_path / "exectrail"), str(pods)) is None
    assert "in the static-pod" in module.state_dir_problem(str(pods / "x"), str(pods))
    assert "different file systems" in module.state_dir_problem("/proc/exectrail", str(pods))


def lock(module: ModuleType, folder: Path, run: str, **more: Any) -> None:
    request = {"state_dir": str(folder), "run": run, "holder": f"of {run}", "seconds": 60}
    module.lock({**request, **more})


def test_a_lock_is_held_by_one_run(module: ModuleType, tmp_path: Path) -> None:
    lock(module, tmp_path, "a")
    lock(module, tmp_path, "a")
    with pytest.raises(module.Refused, match=r"of a\. If it is dead, its lock ends in (60|59) s"):
        lock(module, tmp_path, "b")
    module.unlock({"state_dir": str(tmp_path), "run": "b"})
    with pytest.raises(module.Refused):
        lock(module, tmp_path, "b")
    module.unlock({"state_dir": str(tmp_path), "run": "a"})
    lock(module, tmp_path, "b")


def test_a_lock_ends(module: ModuleType, tmp_path: Path) -> None:
    lock(module, tmp_path, "a", seconds=0)
    lock(module, tmp_path, "b")
    lock(module, tmp_path, "c", replaces="b")
    held = json.loads((tmp_path / "lock.json").read_text())
    (tmp_path / "lock.json").write_text(json.dumps({**held, "boot": "another"}))
    lock(module, tmp_path, "d")


def test_a_file_is_replaced_in_one_step_with_owner_and_mode(
    module: ModuleType, tmp_path: Path
) -> None:
    path, saved = tmp_path / "a.yaml", tmp_path / "saved"
    path.write_text("new")
    saved.write_text("old\udcff", errors="surrogateescape")
    saved.chmod(0o640)
    module.put_back(str(saved), str(path), str(tmp_path / "staged"))

    assert path.read_bytes() == b"old\xff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.yaml", "saved"]


def test_a_file_is_put_back_although_nothing_can_be_written(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, saved = tmp_path / "a.yaml", tmp_path / "saved"
    path.write_text("new")
    saved.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "stage", full)
    module.put_back(str(saved), str(path), str(tmp_path / "staged"))

    assert path.read_text() == "old"


def test_a_line_counts_once_it_is_whole(module: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old exectrail/1\nsome\nnew exectrail/1")

    assert module.search(str(log), 16, "exectrail/1") is None
    with log.open("ab") as stream:
        stream.write(b" end\n")
    assert module.search(str(log), 16, "exectrail/1") == "new exectrail/1 end\n"
    # Rotated in between: the file is another one, and shorter.
    log.write_bytes(b"exectrail/1\n")
    assert module.search(str(log), 16, "exectrail/1") == "exectrail/1\n"
    assert module.search(str(tmp_path / "none"), 0, "x") is None


def test_a_process_is_told_from_a_later_one_of_its_number(module: ModuleType) -> None:
    me = module.myself()

    assert module.lives(me)
    assert not module.lives([me[0], me[1] + 1, me[2]])
    assert not module.lives([me[0], me[1], "another boot"])
    assert not module.lives(None)


def test_a_change_that_ends_while_it_is_looked_at_has_ended(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker writes the last words between the look at the journal and that for the worker."""
    path = tmp_path / "rollout.json"
    path.write_text(json.dumps({"worker": [1, 1, "boot"], "outcome": "running"}))

    def ends(_who: object) -> bool:
        path.write_text(json.dumps({"worker": [1, 1, "boot"], "outcome": "done"}))
        return False

    monkeypatch.setattr(module, "lives", ends)

    found = module.under_way(str(path))
    assert (found["outcome"], found["alive"]) == ("done", False)


@pytest.mark.parametrize(("late", "problem"), [(2, None), (99, "The read operation timed out")])
def test_a_server_that_is_late_with_an_answer_is_asked_again(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, late: int, problem: str | None
) -> None:
    """Its answers are made up."""
    asked: list[str] = []

    def ask(_where: Any, path: str) -> tuple[int, str]:
        asked.append(path)
        if path.endswith("kube-system") and asked.count(path) <= late:
            raise TimeoutError("The read operation timed out")
        if path.endswith("kubeadm-config"):
            return 404, ""
        made = {"gitVersion": "v1.35.4", "metadata": {"uid": "u-1"}, "items": []}
        return 200, json.dumps(made)

    monkeypatch.setattr(module, "ask", ask)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    names = ("client-ca-file", "kubelet-client-certificate", "kubelet-client-key")
    found = module.server_state({"args": [f"--{name}=/x" for name in names], "start": 0})

    assert found["problem"] == problem
    assert found.get("namespace_uid") == (None if problem else "u-1")
    assert asked.count("/api/v1/namespaces/kube-system") == min(late + 1, module.ASKED)


def test_the_last_words_are_those_of_the_newest_container_that_has_any(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LOGS", str(tmp_path))
    assert module.container_log({}) == "# there is no log of a kube-apiserver container\n"

    def log(pod: str, name: str, text: str, when: int) -> Path:
        path = tmp_path / f"kube-system_kube-apiserver-m1_{pod}" / "kube-apiserver" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (when, when))
        return path

    old = log("a", "0.log", "serving\n", 90)
    former = module.container_logs()
    (tmp_path / "kube-system_kube-apiserver-m1_a/kube-apiserver/2.log").symlink_to("gone")
    assert module.container_log(former).splitlines()[1:] == [f"# {old}", "serving"]
    assert module.container_log(former).startswith("# FORMER")
    empty = log("b", "2.log", "", 30)
    assert module.container_log(former) == f"# {empty}\n\n"
    log("b", "0.log", "crashed at first\n", 10)
    last = log("b", "1.log", "crashed again\n", 20)
    assert module.container_log(former) == f"# {last}\ncrashed again\n"


def test_a_policy_that_is_no_file_says_what_it_is(module: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("text")
    (tmp_path / "policy").chmod(0o644)
    os.mkfifo(tmp_path / "fifo")
    # As a container runtime leaves it where what it is to mount is missing.
    (tmp_path / "empty").mkdir()

    assert module.policy_state(str(tmp_path / "empty")) == {"kind": "absent"}
    assert module.policy_state(str(tmp_path / "none")) == {"kind": "absent"}
    assert module.policy_state(str(tmp_path)) == {"kind": "a directory"}
    assert module.policy_state(str(tmp_path / "fifo")) == {"kind": "no regular file"}
    assert module.policy_state(str(tmp_path / "policy"))["mode"] == "0644"


@pytest.mark.parametrize(
    ("outcome", "applied", "left"),
    [
        ("done", False, True),
        ("back", False, True),
        ("done", True, False),
        ("running", False, False),
    ],
)
def test_notes_are_removed_when_nothing_is_in_force(
    module: ModuleType, tmp_path: Path, outcome: str, *, applied: bool, left: bool
) -> None:
    folder = tmp_path / "exectrail"
    (folder / "changes").mkdir(parents=True)
    (folder / "rollout.json").write_text(json.dumps({"outcome": outcome, "worker": None}))
    if applied:
        (folder / "applied.json").write_text(json.dumps({"run": "x"}))

    assert module.leave({"state_dir": str(folder)}) == {"left": left}
    assert folder.exists() is not left
    if left:
        assert module.leave({"state_dir": str(folder)}) == {"left": False}


def test_a_policy_that_is_right_keeps_its_time(module: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("rules: []\n")
    path.chmod(0o644)
    os.utime(path, (1000, 1000))
    change = object.__new__(module.Change)
    change.request = {"policy_file": str(path), "policy": "rules: []\n", "absent": False}
    change.request["state_dir"] = str(tmp_path)
    change.put_policy()

    found = module.policy_state(str(path))
    assert (found["written"], found["mode"]) == (1000, "0600")
    change.request["policy"] = "rules: [] # new\n"
    change.put_policy()
    assert module.policy_state(str(path))["written"] > 1000
