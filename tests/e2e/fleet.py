"""What tests of an installation share: the commands as a user runs them, and what they say."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
Findings = dict[str, dict[str, str]]
"""Of each host that has any, the checks that do not pass, with what is said of them."""


@dataclass(frozen=True)
class Ran:
    """A playbook that has ended."""

    code: int
    said: str

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks have changed something on each host."""
        rows = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", self.said, re.MULTILINE)
        return {host: int(count) for host, count in rows if host != "localhost"}

    def good(self) -> Ran:
        assert self.code == 0, self.said
        return self


@dataclass(frozen=True)
class Judged:
    """A report, and what the command has said that wrote it."""

    report: dict[str, Any]
    code: int = 0
    said: str = ""

    @property
    def findings(self) -> Findings:
        found = {
            host["host"]: {
                row["check"]: f"{row['status']}: {row['message']} ({row['observed']})"
                for row in host["results"]
                if row["status"] not in {"pass", "skip"}
            }
            for host in self.report["hosts"]
            if host["state"] == "checked"
        }
        return {host: rows for host, rows in found.items() if rows}

    @property
    def unreachable(self) -> list[str]:
        return [host["host"] for host in self.report["hosts"] if host["state"] != "checked"]

    def statuses(self, check: str) -> dict[str, str]:
        """What became of a check on each host."""
        return {
            host["host"]: row["status"]
            for host in self.report["hosts"]
            for row in host["results"]
            if row["check"] == check
        }


class Fleet:
    """An inventory, and a folder for what is said of its nodes."""

    def __init__(self, folder: Path, inventory: dict[str, Any], **settings: Any) -> None:
        self.folder = folder
        self.inventory = inventory
        reports = ("audit_policy", "install", "preflight", "verify")
        self.settings = settings | {
            f"{name}_report_dir": str(folder / "played" / name) for name in reports
        }

    def play(self, name: str, *options: str, **variables: Any) -> Ran:
        """Run a playbook of the project."""
        done = subprocess.run(
            [
                *(str(BIN / "ansible-playbook"), f"playbooks/{name}.yml", "-i", self._hosts()),
                *("-e", json.dumps(self.settings | variables), *options),
            ],
            cwd=ROOT,
            env=_environment(ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        return Ran(done.returncode, done.stdout + done.stderr)

    def judge(self, command: str, *options: str, **environment: str) -> Judged:
        """Run one of the commands that write a report."""
        reports = self.folder / command
        (reports / "report.json").unlink(missing_ok=True)
        done = subprocess.run(
            [
                *(str(BIN / "exectrail"), command, "-i", self._hosts()),
                *("--report-dir", str(reports), *options),
            ],
            cwd=self.folder,
            env=_environment(**environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        said = done.stdout + done.stderr
        assert (reports / "report.json").exists(), said
        return Judged(_read(reports), done.returncode, said)

    def report(self, name: str) -> Judged:
        """Give the report that the last playbook has written of its preflight, or verify."""
        return Judged(_read(self.folder / "played" / name))

    def _hosts(self) -> str:
        path = self.folder / "hosts.yml"
        path.write_text(yaml.safe_dump(self.inventory))
        return str(path)


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def _environment(**more: str) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    return {**own, "ANSIBLE_NOCOLOR": "1", **more}


def build_agent(path: Path) -> Path:
    """Build the agent from its sources."""
    command = [sys.executable, str(ROOT / "packaging/agent.py"), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path
