"""A machine that sleeps while somebody is in a container."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import pytest

from lab.vm.machine import machine
from tests.e2e.fleet import Fleet, build_agent

pytestmark = pytest.mark.vm

# Its own clock wakes the machine.
SESSION = """
group=/sys/fs/cgroup/$(printf %064d 1)
mkdir -p $group
enter='echo $$ > "$0/cgroup.procs"; exec sh -c "id; rtcwake -m mem -s 5; sleep 0.3; uname; :"'
sh -c "$enter" $group
sleep 3
rmdir $group
"""
SLEPT = "import time; print(time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic())"
TOLD = [
    *[("Kubernetes", None), ("Command", "sh"), ("Command", "id"), ("CommandExit", "id")],
    *[("Command", "rtcwake"), ("CommandExit", "rtcwake"), ("Command", "sleep")],
    *[("CommandExit", "sleep"), ("Command", "uname"), ("CommandExit", "uname")],
    *[("CommandExit", "sh"), ("SessionEnd", None)],
]


@dataclass(frozen=True)
class Story:
    slept: float
    status: int
    records: list[dict[str, Any]]

    @property
    def session(self) -> list[dict[str, Any]]:
        (trace,) = {each["traceId"] for each in self.records if "traceId" in each}
        return [each for each in self.records if each.get("traceId") == trace]


@pytest.fixture(
    scope="module", params=[("debian12", "bpf"), ("debian11", "audit")], ids=["bpf", "audit"]
)
def story(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Story:
    system, sensor = request.param
    folder = tmp_path_factory.mktemp("suspend")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with machine(f"sleeps-{sensor}", system) as one:
        hosts = {"workers": {"hosts": {one.image: one.inventory_variables()}}}
        options = {"exec_agent_file": str(archive), "exec_agent_sensor": sensor}
        Fleet(folder, {"all": {"children": hosts}}, **options).play("exec_agent").good()
        one.run(SESSION, timeout=120)
        slept = float(one.run(["python3", "-c", SLEPT]).stdout)
        status = one.run("exectrail-agent status", check=False).returncode
        log = one.run("cat /var/log/exectrail/advaudit.log").stdout
    return Story(slept, status, [json.loads(line) for line in log.splitlines()])


def wall(record: dict[str, Any]) -> float:
    return dt.datetime.fromisoformat(record["time"][:26] + "+00:00").timestamp()


def test_it_was_asleep_and_nothing_is_missing(story: Story) -> None:
    assert story.slept > 2
    assert story.status == 0
    assert [each["seq"] for each in story.records] == list(range(1, len(story.records) + 1))
    assert [each for each in story.records if each["kind"] == "Loss"] == []


def test_the_session_is_told_in_its_order(story: Story) -> None:
    told = [(each["kind"], each.get("process.name")) for each in story.session]
    assert told == TOLD
    boot = [each["time.boot"] for each in story.session]
    assert boot == sorted(boot)


def test_both_clocks_have_gone_on(story: Story) -> None:
    begin, *_, end = story.session
    took = (end["time.boot"] - begin["time.boot"]) / 1e9
    assert took > story.slept
    # What tells the time while the machine sleeps knows whole seconds.
    assert abs(wall(end) - wall(begin) - took) < 2
    (woken,) = [each for each in story.session if "process.duration" in each][1:2]
    assert woken["process.duration"] / 1e9 > story.slept
