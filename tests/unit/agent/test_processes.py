"""Sessions found in /proc, where no kernel half has marked them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from exectrail_agent.sessions.processes import parent_of, scan_proc
from tests.unit.agent.world import HOST_MOUNT, HOST_PID, WEB, Index, check, tracker

INSIDE = (WEB.cgroup, WEB.mount_namespace, WEB.pid_namespace)
OUTSIDE = ("/system.slice/containerd.service", HOST_MOUNT, HOST_PID)
BESIDE = ("/user.slice", WEB.mount_namespace, WEB.pid_namespace)


class Proc:
    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, pid: int, parent: int, place: tuple[str, int, int], name: str = "sh") -> None:
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True)
        rest = ["S", str(parent), *["0"] * 17, str(pid), "0"]
        (folder / "stat").write_text(f"{pid} ({name}) {' '.join(rest)}\n")
        cgroup, mount, pids = place
        (folder / "cgroup").write_text(f"4:pids:{cgroup}\n0::/\n")
        (folder / "ns/mnt").symlink_to(f"mnt:[{mount}]")
        (folder / "ns/pid").symlink_to(f"pid:[{pids}]")
        (folder / "exe").symlink_to("/bin/sh")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    found = Proc(tmp_path)
    found.add(1, 0, OUTSIDE, "systemd")
    found.add(400, 1, OUTSIDE, "shim")
    found.add(500, 400, INSIDE, "app")
    found.add(501, 500, INSIDE, "worker")
    (tmp_path / "self").mkdir()
    (tmp_path / "77").mkdir()
    return found


def sessions(proc: Proc, *containers: object) -> list[list[int]]:
    found = scan_proc(str(proc.root), Index(*(containers or (WEB,))))  # type: ignore[arg-type]
    return [[task.pid for task in one.tasks] for one in found]


def test_a_container_alone_is_no_session(proc: Proc) -> None:
    assert sessions(proc) == []


def test_what_came_from_outside_is_one_session_each(proc: Proc) -> None:
    proc.add(900, 400, INSIDE, "sh) R 1 (")
    proc.add(901, 900, INSIDE)
    proc.add(910, 400, INSIDE)
    proc.add(920, 1, BESIDE)

    assert sessions(proc) == [[900, 901], [910], [920]]


def test_a_container_whose_first_process_is_unknown_may_be_a_session(proc: Proc) -> None:
    assert sessions(proc, replace(WEB, init_pid=0)) == [[500, 501]]


def test_they_are_told_as_recovered_and_not_followed(proc: Proc) -> None:
    proc.add(900, 400, INSIDE)
    index = Index(WEB)

    outcome = tracker(index=index).recover(scan_proc(str(proc.root), index), 1000.0)

    (record,) = check(outcome.records)
    assert record["recovered"]
    assert record["session.followed"] is False
    assert record["k8s.container.name"] == "app"


def test_a_parent_that_is_gone_is_none() -> None:
    assert parent_of(os.getpid()) == os.getppid()
    assert parent_of(1 << 30) == 0
