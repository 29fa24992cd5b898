"""Accesses to a real container, by the bpf sensor, the container index and the tracker together.

The audit sensor runs the same cases on a virtual machine: here everybody would be audited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from exectrail_agent.bpf.sensor import BpfSensor
from tests.integration.agent_cases import CASES, Case, Follower, commands, judge
from tests.integration.test_agent_bpf import calm, code
from tests.integration.test_agent_containers import Podman, needs_podman
from tests.unit.agent.world import validator

__all__ = ["calm", "code"]
pytestmark = [
    needs_podman,
    pytest.mark.usefixtures("calm"),
    pytest.mark.skipif(
        not Path("/sys/kernel/btf/vmlinux").exists(), reason="needs a kernel with BTF"
    ),
]


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory, code: bytes) -> Iterator[Follower]:
    podman = Podman(tmp_path_factory.mktemp("sessions") / "root")
    name, _ = podman.create("sessions", "--privileged")
    sensor = BpfSensor(folder=f"{tmp_path_factory.mktemp('pins')}/unpinned", code=code)
    found = Follower(sensor, name)
    try:
        podman("start", name)
        found.settle()
        yield found
    finally:
        sensor.close(keep=False)
        found.index.close()
        podman.close()


def enter(watch: Follower, options: Sequence[str], command: Sequence[str]) -> list[str]:
    podman = ["podman", "--runtime", "runc", "exec", "--privileged"]
    return [*podman, *options, watch.name, *command]


def test_starting_a_container_is_no_access(watch: Follower) -> None:
    assert watch.mine() == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_access(watch: Follower, case: Case) -> None:
    found = watch.run(case, partial(enter, watch))

    judge(case, found, "bpf")
    for record in found:
        validator(record["kind"]).validate(record)


def test_a_flood_is_counted_whole(watch: Follower) -> None:
    script = "i=0; while [ $i -lt 200 ]; do /bin/true; i=$((i+1)); done"

    found = watch.session(enter(watch, (), ("/bin/sh", "-c", script)))

    counted = sum(record.get("throttle.count", 0) for record in found)
    assert counted > 0
    assert len(commands(found)) + counted == found[-1]["session.commands"] == 201
