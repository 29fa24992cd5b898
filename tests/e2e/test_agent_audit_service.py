"""The agent with the audit sensor: its service ends and begins, its disk is full, or it meets crun.

A machine that has no other beside it: else the kernel's queue runs over, and processes are gone
before anybody could look at them.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from lab.vm.machine import Machine
from tests.e2e.agents import another
from tests.e2e.fleet import Fleet, build_agent
from tests.e2e.rollout import wait
from tests.e2e.test_agent_audit import Told, alone, judge_all, story

__all__ = ["alone"]
pytestmark = pytest.mark.vm

FIRST = 10001
COUNTING = (
    f"i={FIRST}; until [ -e /tmp/enough ]; do echo $i; /bin/sleep 0.5$i; i=$((i+1)); done; exit 7"
)


def ran(records: list[Told]) -> list[int]:
    """Give the numbers of the programs that `COUNTING` runs."""
    programs = [each for each in records if each["kind"] == "Command"]
    return [
        int(each["process.args"][1][3:]) for each in programs if each["process.name"] == "sleep"
    ]


def gaps(numbers: list[int]) -> int:
    assert numbers == sorted({*numbers})
    return sum(after - before > 1 for before, after in pairwise(numbers))


def test_an_exec_goes_on_through_every_end_of_the_service(alone: Machine, tmp_path: Path) -> None:
    archive = build_agent(tmp_path / "exectrail-agent.pyz")
    inventory = {"workers": {"hosts": {alone.image: alone.inventory_variables()}}}
    fleet = Fleet(tmp_path, {"all": {"children": inventory}}, exec_agent_file=str(archive))

    def recorded() -> list[Told]:
        text = alone.run("cat /var/log/exectrail/advaudit.log").stdout
        # The last line may be under way.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def again() -> list[int]:
        """Wait until it records once more; give all that it has."""
        known = len(recorded())
        wait(lambda: len(ran(recorded()[known:])) > 1, 60, "records")
        return ran(recorded())

    story(alone, "start-container")
    try:
        fleet.play("exec_agent").good()
        process = "$(systemctl show -P MainPID exectrail-agent)"
        held = alone.run(
            f"cat /proc/{process}/oom_score_adj"
            " /sys/fs/cgroup/system.slice/exectrail-agent.service/memory.max"
        )
        command = alone.ssh_command(["runc", "exec", "cases", "sh", "-c", shlex.quote(COUNTING)])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            try:
                again()
                alone.run(f"kill -STOP {process}; sleep 2; kill -CONT {process}")
                after_stop = again()
                alone.run(f"kill -KILL {process}")
                after_kill = again()
                alone.run("systemctl stop exectrail-agent; sleep 1")
                alone.run("systemctl start exectrail-agent")
                after_restart = again()
                fleet.play("exec_agent", exec_agent_file=str(another(archive, "next"))).good()
                after_upgrade = again()
                accesses = [one for one in recorded() if one["kind"] == "Kubernetes"]
                absences = [one for one in recorded() if one.get("health.cause") == "unwatched"]
                fleet.play("exec_agent", exec_agent_state="absent").good()
                alone.run("touch /root/cases/tmp/enough")
                said, _ = running.communicate(timeout=30)
            finally:
                running.kill()
    finally:
        alone.run("systemctl stop exectrail-agent", check=False)
        story(alone, "end-container")

    assert running.returncode == 7
    told = [int(line) for line in said.splitlines()]
    assert told == [*range(FIRST, FIRST + len(told))]
    # Only what ran while there was no agent is missing; of that nobody knows, and each says so.
    assert len(absences) == 3
    assert gaps(after_stop) == 0
    assert gaps(after_kill) <= 1
    assert gaps(after_restart) <= 2
    assert gaps(after_upgrade) <= 3
    assert [one.get("recovered", False) for one in accesses] == [False, True, True, True]
    assert {one["container.name"] for one in accesses} == {"cases"}
    assert held.stdout.split() == ["-500", str(96 << 20)]


def test_the_sessions_of_a_container_of_crun(alone: Machine) -> None:
    judge_all(story(alone, "cases", runtime="crun"))


def test_a_full_disk(alone: Machine) -> None:
    number = 1500
    found = story(alone, "full-disk", str(number))

    assert "No space left on device" in "; ".join(found["reasons"])
    # The shell is one more.
    assert found["recorded"] + found["lost"] == number + 1
    assert "disk-full" in found["causes"]
    assert found["lost"] > 0
    assert not found["gaps"]
