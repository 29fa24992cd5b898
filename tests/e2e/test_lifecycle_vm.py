"""Three Debian releases in one inventory: from clean snapshots to verified, and as before again.

The tests are steps of one story and need the order in which they stand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.vm.machine import Machine, machine
from tests.e2e.agents import another
from tests.e2e.fleet import Fleet, build_agent

pytestmark = pytest.mark.vm

SENSORS = {"debian11": "audit", "debian12": "bpf", "debian13": "bpf"}
"""The image of each machine, and what sees there."""
LOGS = ("/var/lib/exectrail-agent", "/var/log/exectrail")
# Files and folders with what tells one from another, links with their targets; known units;
# what is pinned in the kernel. Of what changes by itself, nothing.
STATE = r"""
find / -xdev \( -path /var/log/journal -o -path /root/.ansible -o -path /var/lib/systemd \
    -o -path /var/cache/apt -o -name 'systemd-private-*' -o -name __pycache__ \) -prune \
    -o \( -type f -o -type l \) -printf '%M %U %p %s %T@ %l\n' \
    -o -type d -printf '%M %U %p\n' | sort
find /run/exectrail-agent /sys/fs/bpf
systemctl list-unit-files --no-legend --plain
systemctl list-units --all --no-legend --plain 'exectrail*'
"""
# Kernel audit as its owner would find it: settings, and rules.
AUDIT = """
import sys
sys.path.insert(0, "/root/agent.pyz")
from exectrail_agent.audit.control import AuditControl
control = AuditControl()
status = control.status()
print(status.enabled, status.pid, status.rate_limit, status.backlog_limit, len(control.rules()))
"""

# Somebody enters what is named as a container, and sets the clock there. Behind: ahead of the time,
# what is due by then would begin.
SESSION = """
systemctl stop systemd-timesyncd
group=/sys/fs/cgroup/$(printf %064d 1)
mkdir -p $group
sh -c 'echo $$ > "$0/cgroup.procs"; exec sh -c "id; date -s \\"1 hour ago\\"; id"' $group
rmdir $group
"""


@dataclass
class Story:
    machines: list[Machine]
    fleet: Fleet
    archive: Path
    virgin: dict[str, list[str]]

    def on_each(self, command: str) -> dict[str, str]:
        with ThreadPoolExecutor() as pool:
            said = pool.map(lambda one: one.run(command, check=False).stdout, self.machines)
            return dict(zip((one.image for one in self.machines), said, strict=True))

    def state(self) -> dict[str, list[str]]:
        told = self.on_each(f"{STATE} 2> /dev/null; python3 -BI -c '{AUDIT}'")
        return {name: text.splitlines() for name, text in told.items()}

    def agents(self) -> dict[str, str]:
        """The agent's pid and version on each machine."""
        return self.on_each(
            "systemctl show -P MainPID exectrail-agent; readlink /usr/lib/exectrail-agent/current"
        )

    def expected(self, value: object) -> dict[str, object]:
        return dict.fromkeys(SENSORS, value)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("lifecycle")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with ExitStack() as stack:
        machines = [stack.enter_context(machine(f"life-{name}", name)) for name in SENSORS]
        hosts = {one.image: one.inventory_variables() for one in machines}
        fleet = Fleet(
            folder,
            {"all": {"children": {"workers": {"hosts": hosts}}}},
            exec_agent_file=str(archive),
            install_masters_group="",
            install_waves=["100%"],
        )
        found = Story(machines, fleet, archive, {})
        for one in machines:
            one.put(archive.read_bytes(), "/root/agent.pyz")
        found.virgin = found.state()
        yield found


def test_clean_machines_are_fit_and_become_verified(story: Story) -> None:
    ran = story.fleet.play("site").good()

    # Its kernel is new enough for the bpf sensor: audit is second best there.
    assert {
        host: list(rows) for host, rows in story.fleet.report("preflight").findings.items()
    } == {"debian11": ["node.libbpf"]}
    verified = story.fleet.report("verify")
    assert verified.findings == {}, ran.said
    assert verified.statuses("agent.sees") == story.expected("pass")
    sensors = {
        host["host"]: row["observed"]
        for host in verified.report["hosts"]
        for row in host["results"]
        if row["check"] == "agent.sensor"
    }
    assert sensors == SENSORS


def test_a_second_run_changes_nothing(story: Story) -> None:
    before = story.agents()
    ran = story.fleet.play("site").good()

    assert ran.changed == story.expected(0), ran.said
    assert story.agents() == before


def test_a_clock_that_is_off_by_an_hour_is_named_and_nothing_else(story: Story) -> None:
    one = story.machines[1]
    one.run(SESSION)
    try:
        judged = story.fleet.judge("verify")
        # It exits with 1, as it is degraded.
        told = one.run("exectrail-agent status || true").stdout
    finally:
        one.run("date -s '1 hour' && systemctl start systemd-timesyncd")

    assert judged.code == 2, judged.said
    assert {host: list(rows) for host, rows in judged.findings.items()} == {
        one.image: ["node.clock-offset"]
    }
    assert "degraded\n  because in the last ten minutes the wall clock was set by -36" in told
    log = one.run("cat /var/log/exectrail/advaudit.log").stdout
    records = [json.loads(line) for line in log.splitlines()]
    trace = next(each["traceId"] for each in records if each["kind"] == "Kubernetes")
    session = [each for each in records if each.get("traceId") == trace]
    names = [each["process.name"] for each in session if each["kind"] == "Command"]
    assert names == ["sh", "id", "date", "id"]
    assert session == sorted(session, key=lambda each: each["time.boot"])
    assert re.search(r"-3[56]\d\d\.\d s", judged.findings[one.image]["node.clock-offset"])


def test_the_agents_are_upgraded(story: Story) -> None:
    before = story.agents()
    ran = story.fleet.play("upgrade", exec_agent_file=str(another(story.archive, "next"))).good()

    after = story.agents()
    assert all(ran.changed.values()), ran.said
    assert [name for name in SENSORS if after[name] == before[name]] == []
    told = story.on_each("exectrail-agent status")
    assert {name: text.split("\n")[0] for name, text in told.items()} == story.expected("healthy")


def test_uninstalled_machines_are_as_before_but_for_the_logs(story: Story) -> None:
    story.fleet.play("uninstall").good()

    for name, lines in story.state().items():
        left = [line for line in lines if line not in story.virgin[name]]
        gone = [line for line in story.virgin[name] if line not in lines]
        assert [line for line in left if not any(path in line for path in LOGS)] == [], name
        assert gone == [], name
        assert any(LOGS[1] in line for line in left)
