"""Sessions that began while nobody looked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from exectrail_agent.containers.model import Container
from exectrail_agent.proc import Place, ProcReader, Standing
from exectrail_agent.sessions.unseen import find
from tests.unit.agent.world import HOST_MOUNT, HOST_PID, WEB, Index

Where = tuple[str, int, int]
INSIDE = (WEB.cgroup, WEB.mount_namespace, WEB.pid_namespace)
OUTSIDE = ("/system.slice/containerd.service", HOST_MOUNT, HOST_PID)
BESIDE = ("/user.slice", WEB.mount_namespace, WEB.pid_namespace)


class Proc(ProcReader):
    """A /proc of systemd, a shim, and a container with two processes."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.there: dict[int, tuple[int, Where, bytes]] = {}
        self.dead: set[int] = set()
        for pid, parent, where in ((1, 0, OUTSIDE), (400, 1, OUTSIDE), (500, 400, INSIDE)):
            self.add(pid, parent, where)
        self.add(501, 500, INSIDE)

    def add(self, pid: int, parent: int, where: Where, executable: bytes = b"/bin/sh") -> None:
        self.there[pid] = parent, where, executable

    def pids(self) -> Iterator[int]:
        # One of them is gone by the time that it is looked at.
        return iter([*self.there, 77])

    def standing(self, pid: int) -> Standing | None:
        if pid not in self.there:
            return None
        return Standing(self.there[pid][0], pid, 1, dead=pid in self.dead)

    def place(self, pid: int) -> Place | None:
        if pid not in self.there:
            return None
        cgroup, mount, pids = self.there[pid][1]
        return Place(f"4:pids:{cgroup}\n0::/\n".encode(), mount, pids)

    def name(self, pid: int) -> tuple[bytes, bytes]:
        return self.there[pid][2], b"sh"


def sessions(proc: Proc, *containers: Container) -> list[list[int]]:
    found = find(Index(*(containers or (WEB,))), proc)
    return [[task.pid for task in tasks] for tasks in found]


def test_a_container_alone_is_no_session() -> None:
    assert sessions(Proc()) == []


def test_what_came_from_outside_is_one_session_each() -> None:
    proc = Proc()
    proc.add(901, 900, INSIDE)
    proc.add(900, 400, INSIDE)
    proc.add(910, 400, INSIDE)
    proc.add(920, 1, BESIDE)

    assert sessions(proc) == [[900, 901], [910], [920]]


def test_what_is_going_or_a_runtime_on_its_way_is_none() -> None:
    proc = Proc()
    proc.add(900, 400, INSIDE, b"/usr/bin/runc")
    proc.add(910, 400, INSIDE)
    proc.dead.add(910)

    assert sessions(proc) == []


def test_a_service_within_a_container_is_its_own() -> None:
    proc = Proc()
    proc.add(510, 500, (f"{WEB.cgroup}/system.slice/cron.service", *INSIDE[1:]))
    proc.add(511, 510, (f"{WEB.cgroup}/system.slice/cron.service", 4026539999, INSIDE[2]))

    assert sessions(proc) == []


def test_a_container_that_is_entered_by_starting_it_is_a_session() -> None:
    assert sessions(Proc(), replace(WEB, interactive=True)) == [[500, 501]]


def test_a_container_whose_first_process_is_unknown_is_passed_over() -> None:
    assert sessions(Proc(), replace(WEB, init_pid=0)) == []


def test_an_orphan_that_its_pods_first_process_adopted_is_the_containers() -> None:
    proc = Proc()
    pause = replace(WEB, id="b" * 64, kind="sandbox", cgroup="/kubepods/pause", init_pid=490)
    proc.add(490, 400, ("/kubepods/pause", 4026530001, WEB.pid_namespace))
    proc.add(505, 490, INSIDE)

    assert sessions(proc, WEB, pause) == []
