"""The role on a node that has no libbpf: it comes from the distribution, or audit does without it.

The tests are steps of one story and need the order in which they stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.vm.machine import Machine, machine
from tests.e2e.fleet import Fleet, build_agent

pytestmark = pytest.mark.vm

SOURCES = "/etc/apt/sources.list /etc/apt/sources.list.d"


@dataclass
class Story:
    machine: Machine
    fleet: Fleet

    def installed(self) -> bool:
        return not self.machine.run("dpkg --status libbpf1", check=False).returncode

    def sensor(self) -> str:
        """What the agent that runs there sees with, as its status says."""
        said = json.loads(self.machine.run("exectrail-agent status --json").stdout)
        return str(said["sensor"])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("libbpf")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with machine("libbpf", "debian12") as one:
        one.run(f"dpkg --purge --force-depends libbpf1; mkdir /root/kept; mv {SOURCES} /root/kept")
        inventory = {"workers": {"hosts": {one.image: one.inventory_variables()}}}
        yield Story(
            one, Fleet(folder, {"all": {"children": inventory}}, exec_agent_file=str(archive))
        )


def test_check_mode_says_that_it_would_be_installed(story: Story) -> None:
    ran = story.fleet.play("exec_agent", "--check", "--diff").good()

    assert "libbpf would be installed from the distribution" in ran.said
    assert not story.installed()


def test_a_node_that_cannot_get_it_is_watched_by_the_other_sensor(story: Story) -> None:
    story.fleet.play("exec_agent").good()

    assert not story.installed()
    assert story.sensor() == "audit"


def test_who_wants_bpf_there_is_told_why_it_cannot_be(story: Story) -> None:
    ran = story.fleet.play("exec_agent", exec_agent_sensor="bpf")

    assert ran.code == 2
    assert "The bpf sensor needs libbpf: " in ran.said
    assert "libbpf1" in ran.said
    assert story.sensor() == "audit"


def test_a_node_that_can_get_it_gets_it_and_uses_it(story: Story) -> None:
    story.fleet.play("exec_agent", exec_agent_state="absent").good()
    story.machine.run("mv /root/kept/* /etc/apt")
    story.fleet.play("exec_agent").good()

    assert story.installed()
    assert story.sensor() == "bpf"


def test_a_second_run_changes_nothing(story: Story) -> None:
    assert story.fleet.play("exec_agent").good().changed == {story.machine.image: 0}
