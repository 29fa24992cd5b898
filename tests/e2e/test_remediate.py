"""Repairs on a machine with faults that have one, and one that is not named.

It belongs to the virtual-machine tests, whose clocks bear no neighbours. The tests are steps of one
story and need the order in which they stand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from lab.vm.machine import Machine, machine
from tests.e2e.patience import ATTEMPTS, gave_up

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
NAMED = ("node.resolv-conf", "node.automatic-upgrades", "node.clock")
FAULTS = ("resolv-conf-file", "upgrades-config", "clock-unsynchronised", "cpfs-fstab")
# A time server on the machine itself: none need be reachable from inside.
TIME_SERVER = r"""
import socket, struct, time
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 123))
while True:
    asked, client = server.recvfrom(512)
    now = time.time() + 2208988800
    stamp = struct.pack("!II", int(now), int(now % 1 * 2**32))
    head = struct.pack("!BBbbII4s", 0x24, 1, 0, -20, 0, 0, b"LAB\0")
    server.sendto(head + stamp + asked[40:48] + stamp + stamp, client)
"""
SEEN = r"""
cd /etc
find . -xdev -type f -printf '%p %m %U %G %T@\n' -o -printf '%p %y %m %U %G %l\n' | sort
find . -xdev -type f -exec sha256sum {} + | sort
systemctl show -p UnitFileState,ActiveState apt-daily-upgrade.timer systemd-timesyncd.service
"""


@dataclass(frozen=True)
class Ran:
    code: int
    said: str

    @property
    def changed(self) -> int:
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.said))

    def became(self, check: str) -> str:
        found = re.search(rf"^\S+  {check}  ([a-z ]+): ", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]


class Story:
    """A machine, and what a user does with it."""

    def __init__(self, made: Machine, folder: Path) -> None:
        self.machine = made
        self.folder = folder
        self.inventory = folder / "hosts.yml"
        hosts = {made.name: made.inventory_variables()}
        self.inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        made.run("mkdir -p /etc/systemd/timesyncd.conf.d")
        made.put(b"[Time]\nNTP=127.0.0.1\n", "/etc/systemd/timesyncd.conf.d/lab.conf")
        made.put(TIME_SERVER.encode(), "/root/time.py")
        made.run("systemd-run --quiet --unit=time python3 /root/time.py")
        self.broken = self.seen()

    def seen(self) -> str:
        """Everything in /etc, the times of files too, and the units that repairs are about."""
        return self.machine.run(SEEN).stdout

    def play(self, name: str, *options: str) -> Ran:
        report = f"{name}_report_dir={self.folder / name}"
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *(f"playbooks/{name}.yml", "-i", str(self.inventory), "-e", report, *options),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        return Ran(done.returncode, done.stdout + done.stderr)

    def remediate(self, *options: str) -> Ran:
        return self.play("remediate", "-e", f"remediate={','.join(NAMED)}", *options)

    def statuses(self) -> dict[str, str]:
        for _attempt in range(ATTEMPTS):
            self.play("preflight")
            said = (self.folder / "preflight" / "report.json").read_text()
            if not gave_up(said):
                break
        return {row["check"]: row["status"] for row in json.loads(said)["hosts"][0]["results"]}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with machine("remediate", faults=FAULTS) as made:
        yield Story(made, tmp_path_factory.mktemp("remediate"))


def test_check_mode_shows_what_would_change_and_changes_nothing(story: Story) -> None:
    ran = story.remediate("--check", "--diff")

    assert ran.code == 0, ran.said
    assert {ran.became(check) for check in NAMED} == {"would be repaired"}
    for line in (
        "--- before: /etc/resolv.conf",
        "-nameserver 10.0.2.3",
        "+link to ../run/systemd/resolve/stub-resolv.conf",
        '+APT::Periodic::Unattended-Upgrade "0";',
        "--- before: apt-daily-upgrade.timer",
        "--- before: systemd-timesyncd.service",
    ):
        assert line in ran.said.splitlines(), ran.said
    assert story.seen() == story.broken
    assert story.machine.run("test ! -e /var/lib/exectrail", check=False).returncode == 0


def test_what_is_named_is_repaired_and_nothing_else(story: Story) -> None:
    ran = story.remediate()

    assert {ran.became(check) for check in NAMED} == {"repaired"}, ran.said
    assert ran.code == 0
    found = {check: status for check, status in story.statuses().items() if status == "fail"}
    assert found == {"node.cpfs-volumes": "fail"}


def test_a_second_run_changes_nothing(story: Story) -> None:
    before = story.seen()

    ran = story.remediate("-e", "remediate_waivers=")

    assert (ran.code, ran.changed) == (0, 0), ran.said
    assert {ran.became(check) for check in NAMED} == {"nothing to do"}
    assert story.seen() == before


def test_undo_puts_everything_back(story: Story) -> None:
    ran = story.remediate("-e", "remediate_undo=true")

    assert {ran.became(check) for check in NAMED} == {"undone"}, ran.said
    assert story.seen() == story.broken
    found = story.statuses()
    assert {check: found[check] for check in NAMED} == {
        "node.resolv-conf": "fail",
        "node.automatic-upgrades": "fail",
        # A clock that goes right is not put wrong.
        "node.clock": "pass",
    }


def test_what_has_no_repair_fails_and_says_who_has_to_do_it(story: Story) -> None:
    ran = story.play("remediate", "-e", "remediate=node.cpfs-volumes")

    assert ran.code == 2
    assert ran.became("node.cpfs-volumes") == "not without you"
    assert "It is for whoever runs the storage to do" in ran.said
    assert story.seen() == story.broken
