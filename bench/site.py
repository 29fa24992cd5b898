"""An installation on three masters and two workers: from clean, with nothing to do, verified."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import yaml

from bench.cluster import patient_cluster

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PAIRS = 3
_PHASES = {"preflight": "preflight", "exec_agent": "agents", "audit_policy": "policy"}
Timed = Callable[[Path, list[str | Path]], float]


def measure(folder: Path, timed: Timed) -> None:
    """Print the minutes and both ratios; `timed` runs a command with cold connections."""
    with patient_cluster("bench-site", masters=3, workers=2) as made:
        hosts = made.inventory()
        # Neither side spends a round trip on finding it.
        hosts["all"]["vars"]["ansible_python_interpreter"] = "/usr/bin/python3"  # type: ignore[index]
        inventory = folder / "site.yml"
        inventory.write_text(yaml.safe_dump(hosts))
        site = _play(folder, inventory, "site", "preflight", "audit_policy", "verify", "install")
        seconds, phases = _phases(site)
        shares = ", ".join(f"{name} {100 * part / seconds:.0f} %" for name, part in phases)
        print(f"site.yml on 3 masters and 2 workers, from clean: {seconds / 60:.1f} min ({shares})")
        ping: list[str | Path] = [BIN / "ansible", "all", "-i", inventory, "-m", "ping"]
        preflight = _play(folder, inventory, "preflight", "preflight")
        verify = _play(folder, inventory, "verify", "verify")
        _ratio(folder, timed, "site.yml, nothing to do ÷ preflight, 5 nodes", 4, site, preflight)
        _ratio(folder, timed, "verify ÷ ping, 5 nodes with everything", 3, verify, ping)


def _play(folder: Path, inventory: Path, playbook: str, *roles: str) -> list[str | Path]:
    command: list[str | Path] = [
        BIN / "ansible-playbook",
        ROOT / f"playbooks/{playbook}.yml",
        *("-i", inventory),
    ]
    for role in roles:
        command += ["-e", f"{role}_report_dir={folder / role}"]
    return command


def _ratio(  # noqa: PLR0913, PLR0917  two commands, and how to name and judge them
    folder: Path,
    timed: Timed,
    what: str,
    bound: float,
    ours: list[str | Path],
    theirs: list[str | Path],
) -> None:
    timed(folder, theirs)
    pairs = [(timed(folder, ours), timed(folder, theirs)) for _ in range(PAIRS)]
    ratio = statistics.median(one / other for one, other in pairs)
    shown = " ".join(f"{one:.1f}/{other:.1f}" for one, other in pairs)
    print(f"{what}: {ratio:.2f} (seconds: {shown}; bound {bound})")


def _phases(command: list[str | Path]) -> tuple[float, list[tuple[str, float]]]:
    """Run a playbook; give its seconds, and those of each phase by what its tasks' roles are."""
    spent: Counter[str] = Counter()
    phase, verifies = "rest", False
    started = before = time.monotonic()
    with subprocess.Popen(
        command,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout  # noqa: S101
        for line in running.stdout:
            verifies = line.startswith("PLAY [Verify") or (
                verifies and not line.startswith("PLAY [")
            )
            if task := re.match(r"TASK \[exectrail\.audit\.(\w+) :", line):
                now = time.monotonic()
                spent[phase] += now - before
                before = now
                phase = "verify" if verifies else _PHASES.get(task[1], "rest")
    spent[phase] += time.monotonic() - before
    if running.returncode:
        raise SystemExit(f"the installation has failed: {' '.join(map(str, command))}")
    return time.monotonic() - started, spent.most_common()
