"""The roll-out of the audit policy on a cluster of one master.

What it costs in availability is compared with a plain restart of the API server, what a run that
changes nothing costs with a ping.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from bench.cluster import patient_cluster
from lab.cluster.layout import Cluster, Node
from tests.e2e.rollout import MANIFEST, Ambush, ready, replace

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
RESTARTS = 3
QUIET_RUNS = 5
_PAUSE = 0.05
_LASTING = 3.0
_LIMIT = 180.0
_TOUCHED = "    exectrail-bench/touched: "
_ADVERTISED = "    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint:"
Timed = Callable[[Path, list[str | Path]], float]


def measure(folder: Path, timed: Timed) -> None:
    """Print both ratios; `timed` runs a command with cold connections."""
    with patient_cluster("bench-audit", workers=0) as made:
        (master,) = made.masters
        hosts = made.inventory()
        # Neither side spends a round trip on finding it.
        hosts["all"]["vars"]["ansible_python_interpreter"] = "/usr/bin/python3"  # type: ignore[index]
        inventory = folder / "cluster.yml"
        inventory.write_text(yaml.safe_dump(hosts))
        play: list[str | Path] = [
            *(BIN / "ansible-playbook", ROOT / "playbooks/audit_policy.yml", "-i", inventory),
            *("-e", f"audit_policy_report_dir={folder / 'audit-policy'}"),
        ]
        _availability(made, master, play)
        ping: list[str | Path] = [BIN / "ansible", "masters", "-i", inventory, "-m", "ping"]
        _quiet(folder, [*play, *_age(RESTARTS)], ping, timed)


def _availability(made: Cluster, master: Node, play: list[str | Path]) -> None:
    plain, ours = [], []
    for position in range(1, RESTARTS + 1):
        with Prober(made, master) as prober:
            _touch(made, master, position)
            prober.await_restart()
        plain.append(prober.silent)
        with Prober(made, master) as prober:
            # Another value each time, so that there is something to change.
            _run([*play, *_age(position)])
            prober.await_restart()
        ours.append(prober.silent)
    ratio = statistics.median(ours) / statistics.median(plain)
    shown = " ".join(f"{one:.1f}/{other:.1f}" for one, other in zip(ours, plain, strict=True))
    print(
        f"API server without an answer, roll-out ÷ plain restart: {ratio:.2f} "
        f"(seconds: {shown}; bound 1.1)"
    )


def _quiet(folder: Path, play: list[str | Path], ping: list[str | Path], timed: Timed) -> None:
    timed(folder, ping)
    pairs = [(timed(folder, play), timed(folder, ping)) for _ in range(QUIET_RUNS)]
    ratio = statistics.median(one for one, _ in pairs) / statistics.median(two for _, two in pairs)
    shown = " ".join(f"{ours:.1f}/{theirs:.1f}" for ours, theirs in pairs)
    print(f"audit policy, nothing to change ÷ ping: {ratio:.2f} (seconds: {shown}; bound 1.5)")


def _age(days: int) -> list[str | Path]:
    return ["-e", f"audit_policy_log_maxage={days}"]


def _run(command: list[str | Path]) -> None:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the roll-out has failed:\n{done.stdout}{done.stderr}")


def _touch(made: Cluster, master: Node, position: int) -> None:
    """Change an annotation of the API server's pod, which makes the kubelet restart it."""
    manifest = made.root(master) / MANIFEST
    text = re.sub(rf"^{_TOUCHED}.*\n", "", manifest.read_text(), flags=re.MULTILINE)
    replace(manifest, text.replace(_ADVERTISED, f'{_TOUCHED}"{position}"\n{_ADVERTISED}', 1))


class Prober(Ambush):
    """Asks an API server 20 times a second whether it is ready, while the block runs."""

    def __init__(self, made: Cluster, master: Node) -> None:
        """Prepare for one master."""
        super().__init__()
        self._made, self._master = made, master
        self._since = time.monotonic()
        """When the last change from answering to silence, or back, was seen."""
        self._answers = True
        self.silent = 0.0
        """Seconds for which there was no good answer."""

    def await_restart(self) -> None:
        """Return when it has been away and is back for some seconds."""
        deadline = time.monotonic() + _LIMIT
        while not (self.silent and self._answers and time.monotonic() - self._since > _LASTING):
            if time.monotonic() > deadline:
                raise SystemExit(f"no restart of the API server within {_LIMIT:.0f} s")
            time.sleep(_PAUSE)

    def _lurk(self) -> None:
        before = time.monotonic()
        while not self._over.wait(_PAUSE):
            answers = ready(self._made, self._master)
            now = time.monotonic()
            if not answers:
                self.silent += now - before
            if answers != self._answers:
                self._answers, self._since = answers, now
            before = now
