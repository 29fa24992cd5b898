"""Runs on the machine, by pytest: the sessions of a container, told by each of the sensors."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from exectrail_agent.audit.sensor import AuditSensor
from exectrail_agent.bpf.sensor import BpfSensor
from tests.integration.agent_cases import CASES, Case, Follower, judge

STORY = Path(__file__).with_name("agent_audit_story.py")


@pytest.fixture(scope="module", autouse=True)
def _container() -> Iterator[None]:
    subprocess.run([sys.executable, STORY, "start-container"], check=True)
    yield
    subprocess.run([sys.executable, STORY, "end-container"], check=True)


@pytest.fixture(scope="module", params=["bpf", "audit"])
def watch(request: pytest.FixtureRequest) -> Iterator[Follower]:
    code = Path(os.environ["EXECTRAIL_PREBUILT"], "exec.bpf.o").read_bytes()
    bpf = request.param == "bpf"
    sensor = BpfSensor(folder="/nowhere", code=code) if bpf else AuditSensor()
    try:
        found = Follower(sensor, "cases")
        found.settle()
        yield found
        assert not any(sensor.losses().values())
    finally:
        sensor.close(keep=False)


def enter(options: Sequence[str], command: Sequence[str]) -> list[str]:
    words = ["runc", "exec", *options, "cases", *command]
    # With a terminal runc wants one of its own.
    return ["script", "-qc", shlex.join(words), "/dev/null"] if options else words


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_access(watch: Follower, case: Case) -> None:
    judge(case, watch.run(case, enter), "bpf" if isinstance(watch.sensor, BpfSensor) else "audit")
