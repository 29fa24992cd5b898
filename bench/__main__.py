"""Measures what docs/performance.md quotes: ``make bench``; one part: ``python -m bench agent``.

Speed is given as ratios against a named alternative of the same run, because machines differ.
Connections are cold in every run: each gets a folder of its own for ssh's shared connections.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import agent, audit_policy, site
from lab.sshd import fleet

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NODES = 50
PAIRS = 3
SAVED_NODES = 5000


def main() -> None:
    """Run the measurements and print one line each."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure how fast it is.")
    parts = ("preflight", "policy", "agent", "site")
    parser.add_argument("part", nargs="?", choices=parts, help="measure this alone")
    parser.add_argument("--hour", action="store_true", help="watch the agent's memory for an hour")
    parser.add_argument("--seconds", type=float, default=agent.STORM_SECONDS, help="of a storm")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        folder = Path(temporary)
        if chosen.part in {None, "agent"}:
            agent.measure(folder, hour=chosen.hour, seconds=chosen.seconds)
        if chosen.part in {None, "preflight"}:
            with fleet(folder / "sshd", NODES) as machines:
                inventory = machines.inventory(folder / "hosts.yml")
                _live(folder, inventory)
            _saved(folder)
        if chosen.part in {None, "policy"}:
            audit_policy.measure(folder, _timed)
        if chosen.part in {None, "site"}:
            site.measure(folder, _timed)


def _live(folder: Path, inventory: Path) -> None:
    preflight = [
        *(BIN / "ansible-playbook", ROOT / "playbooks/preflight.yml", "-i", inventory),
        *("-e", f"preflight_report_dir={folder / 'reports'}"),
    ]
    ping = [BIN / "ansible", "all", "-i", inventory, "-m", "ansible.builtin.ping"]
    tasks = [BIN / "ansible-playbook", ROOT / "bench/task_per_check.yml", "-i", inventory]
    _timed(folder, ping)
    pairs = [(_timed(folder, preflight), _timed(folder, ping)) for _ in range(PAIRS)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    shown = " ".join(f"{ours:.1f}/{theirs:.1f}" for ours, theirs in pairs)
    print(f"preflight ÷ ping, {NODES} nodes: {ratio:.2f} (seconds: {shown}; bound 1.5)")
    verify = [
        *(BIN / "ansible-playbook", ROOT / "playbooks/verify.yml", "-i", inventory),
        *("-e", f"verify_report_dir={folder / 'verify'}"),
    ]
    verified = statistics.median(_timed(folder, verify) for _ in range(PAIRS))
    pinged = statistics.median(theirs for _, theirs in pairs)
    print(
        f"verify ÷ ping, {NODES} nodes without an agent: {verified / pinged:.2f} "
        f"(seconds: {verified:.1f}/{pinged:.1f}; bound 3)"
    )
    status = _timed(folder, [BIN / "exectrail", "status", "-i", inventory])
    print(f"status of {NODES} nodes: {status:.1f} s (bound 5)")
    ours = statistics.median(ours for ours, _ in pairs)
    theirs = _timed(folder, tasks)
    print(
        f"preflight ÷ one task per check, {NODES} nodes: {ours / theirs:.3f} "
        f"(seconds: {ours:.1f}/{theirs:.1f}; bound 0.1)"
    )


def _timed(folder: Path, command: list[str | Path]) -> float:
    """Run with cold connections; an unfit node is no error here, an unreachable one is."""
    with tempfile.TemporaryDirectory(prefix="cp-", dir=folder) as control:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
        }
        started = time.monotonic()
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - started
        for shared in Path(control).iterdir():
            subprocess.run(
                ["ssh", "-o", f"ControlPath={shared}", "-O", "exit", "any"],
                capture_output=True,
                check=False,
            )
    said = done.stdout
    shown = "as they should be" in said and "unreachable" not in said
    if "unreachable=0" not in said and "SUCCESS" not in said and not shown:
        raise SystemExit(f"{command[0]} did not reach its nodes:\n{said}{done.stderr}")
    return seconds


def _saved(folder: Path) -> None:
    template = json.loads(next((folder / "reports/evidence").glob("*.json")).read_text())
    saved = folder / "saved"
    saved.mkdir()
    names = [f"node-{number:04}" for number in range(1, SAVED_NODES + 1)]
    for name in names:
        (saved / f"{name}.json").write_text(json.dumps({**template, "host": name}))
    before = time.monotonic()
    subprocess.run(
        [
            *(BIN / "exectrail", "evaluate", "--report-dir", folder / "out"),
            *sorted(saved.iterdir()),
        ],
        capture_output=True,
        check=False,
    )
    seconds = time.monotonic() - before
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"evaluate and render {SAVED_NODES} saved nodes: {seconds:.1f} s (bound 5), "
        f"{peak:.0f} MB (bound 500)"
    )


if __name__ == "__main__":
    main()
