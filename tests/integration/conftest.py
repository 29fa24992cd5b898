"""Real ssh to this machine, and the command line as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.sshd import Fleet, fleet

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str
    reports: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.reports / "report.json").read_text())

    def states(self) -> dict[str, str]:
        return {host["host"]: host["state"] for host in self.report["hosts"]}


class Exectrail:
    """Runs ``exectrail`` in an empty folder, as somebody who has just installed it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
            # No shared connections: their sockets would outlive the test.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ConnectTimeout=30",
        }

    def command(self, *arguments: str | Path) -> list[str]:
        return [str(BIN / "exectrail"), *map(str, arguments)]

    def __call__(self, *arguments: str | Path, prefix: Sequence[str] = ()) -> Ran:
        done = subprocess.run(
            [*prefix, *self.command(*arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout, done.stderr, self.reports)

    def preflight(self, inventory: Path, *arguments: str | Path) -> Ran:
        return self("preflight", "-i", inventory, "--report-dir", self.reports, *arguments)


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three loopback addresses with ssh for root."""
    with fleet(tmp_path_factory.mktemp("sshd"), 3) as made:
        yield made


@pytest.fixture
def exectrail(tmp_path: Path) -> Exectrail:
    return Exectrail(tmp_path)


@pytest.fixture
def inventory(machines: Fleet, tmp_path: Path) -> Path:
    return machines.inventory(tmp_path / "hosts.yml")
