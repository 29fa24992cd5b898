"""The recipe for CI: a fresh virtual machine is installed and proven, and its exit code gates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from junitparser import JUnitXml

from tests.e2e import checkout
from tests.e2e.checkout import Checkout
from tests.e2e.patience import ATTEMPTS, gave_up

pytestmark = pytest.mark.vm

RECIPE = ".github/verify-vm.sh"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    made = checkout.copy(tmp_path_factory.mktemp("ci") / "exectrail")
    try:
        yield made
    finally:
        down = [sys.executable, "-m", "lab", "vm", "down"]
        subprocess.run(down, cwd=made.folder, check=False)


def machines(reader: Checkout) -> str:
    return reader.run(".venv/bin/python", "-m", "lab", "vm", "list", timeout=30).said


def statuses(path: Path) -> dict[str, str]:
    """Of each case of a JUnit file, its verdict."""
    return {
        str(case.name): type(case.result[0]).__name__ if case.result else "passed"
        for suite in JUnitXml.fromfile(str(path))
        for case in suite
    }


def test_a_machine_is_installed_proven_and_ended(reader: Checkout) -> None:
    for _attempt in range(ATTEMPTS):
        # Each attempt is on a machine of its own.
        ended = reader.run(RECIPE, timeout=400)
        if not gave_up(ended.said):
            break

    assert ended.code == 0, ended.said
    found = statuses(reader.folder / "reports/verify/junit.xml")
    assert found["agent.sees"] == found["agent.log"] == "passed"
    assert {found[check] for check in found if check.startswith("audit.")} == {"Skipped"}
    assert machines(reader) == ""


def test_a_machine_that_is_unfit_fails_the_job_and_is_ended(reader: Checkout) -> None:
    ended = reader.run(RECIPE, "--fault", "no-python", timeout=400)

    assert ended.code == 2, ended.said
    assert "node.python" in ended.said
    assert machines(reader) == ""
