"""Whether the agent sees what it should, and who is told."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from exectrail_agent import state
from exectrail_agent.proc import ProcReader

STALE_SECONDS = 30
HEALTHY, DEGRADED, DOWN = 0, 1, 2
"""Exit codes of ``status``."""
_PAST_SECONDS = 600.0
_AT_CAP = "rotated-unshipped"


@dataclass
class Status:
    """The agent's own view, rewritten every few seconds.

    Moments are wall-clock seconds; `lag` is from an exec to its record, in seconds; `fill` is how
    full, from 0 to 1, the kernel's buffer was at most since the last time; `reasons` say in words
    why it is degraded, `notes` what else its user should know.
    """

    version: str = ""
    pid: int = 0
    started: float = 0.0
    written: float = 0.0
    sensor: str = ""
    pinned: bool = False
    restarts: int = 0
    records: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    sessions: int = 0
    containers: int = 0
    lag: float = 0.0
    fill: float = 0.0
    last_record: float = 0.0
    canary: float = 0.0
    canary_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Past:
    """What went wrong in the last ten minutes. Times are seconds of the boot clock."""

    def __init__(self, totals: Mapping[str, int]) -> None:
        """Begin with losses that are known by cause, and are nobody's news."""
        self._totals = Counter(totals)
        self._losses: deque[tuple[float, Counter[str]]] = deque()
        self._jump = (-_PAST_SECONDS, 0)

    def lose(self, totals: Mapping[str, int], now: float) -> None:
        """Note the losses by cause up to now; a smaller total began anew."""
        grown: Counter[str] = Counter()
        for cause, total in totals.items():
            before = self._totals[cause]
            grown[cause] = total - before if total >= before else total
        self._totals = Counter(totals)
        if +grown:
            self._losses.append((now, +grown))

    def jump(self, nanoseconds: int, now: float) -> None:
        """Note that the wall clock was set."""
        self._jump = (now, nanoseconds)

    def reasons(self, now: float) -> Iterator[str]:
        """Yield what to say of it; others know by the first words that it is over."""
        while self._losses and now - self._losses[0][0] >= _PAST_SECONDS:
            self._losses.popleft()
        lost: Counter[str] = sum((grown for _, grown in self._losses), Counter())
        removed = lost.pop(_AT_CAP, 0)
        if lost:
            told = ", ".join(f"{cause} {count}" for cause, count in sorted(lost.items()))
            yield f"in the last ten minutes events were lost: {told}"
        if removed:
            yield (
                f"in the last ten minutes the log was at its cap: {removed} records went that"
                " nobody had shipped"
            )
        at, nanoseconds = self._jump
        if now - at < _PAST_SECONDS:
            yield f"in the last ten minutes the wall clock was set by {nanoseconds / 1e9:+.3f} s"


def write(status: Status, folder: Path) -> None:
    """Replace the status file in one step."""
    state.replace(folder / "status.json", json.dumps(asdict(status), sort_keys=True), 0o644)


def read(folder: Path, now: float) -> tuple[Status, int, str]:
    """Return the status, the exit code for it, and one word for people."""
    try:
        data = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        status = Status(**data)
    except FileNotFoundError:
        return Status(reasons=[f"no agent has run here (no {folder}/status.json)"]), DOWN, "down"
    except (OSError, ValueError, TypeError) as error:
        return Status(reasons=[f"{folder}/status.json can't be read: {error}"]), DOWN, "down"
    # A pid means nothing in the /proc of others; then only its silence tells.
    if proc_is_ours() and b"exectrail" not in ProcReader().arguments(status.pid):
        status.reasons.insert(0, f"the agent (pid {status.pid}) does not run")
        return status, DOWN, "down"
    age = now - status.written
    if age > STALE_SECONDS:
        status.reasons.insert(0, f"the agent has not said anything for {age:.0f} s")
        return status, DOWN, "down"
    if status.reasons:
        return status, DEGRADED, "degraded"
    return status, HEALTHY, "healthy"


def metrics(status: Status) -> str:
    """Return the figures in Prometheus' text format; nothing of a container's is in them."""
    figures: Mapping[str, tuple[str, str, float]] = {
        "up": ("gauge", "1 while the agent sees what it should", float(not status.reasons)),
        "records_total": ("counter", "Records written", status.records),
        "sessions": ("gauge", "Sessions that are open", status.sessions),
        "containers": ("gauge", "Containers that are known", status.containers),
        "lag_seconds": ("gauge", "Seconds from the last exec to its record", status.lag),
        "ring_fill_ratio": ("gauge", "How full the kernel's buffer was at most", status.fill),
        "restarts_total": ("counter", "Starts of the agent in this boot", status.restarts),
        "canary_timestamp_seconds": ("gauge", "When the last self-test passed", status.canary),
        "start_time_seconds": ("gauge", "When the agent started", status.started),
    }
    lines = []
    for name, (kind, text, value) in figures.items():
        full = f"exectrail_agent_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {value:.17g}"]
    full = "exectrail_agent_losses_total"
    lines += [f"# HELP {full} Events that were not recorded", f"# TYPE {full} counter"]
    lines += [f'{full}{{cause="{_label(k)}"}} {v}' for k, v in sorted(status.losses.items())]
    full = "exectrail_agent_info"
    lines += [f"# HELP {full} Version and sensor", f"# TYPE {full} gauge"]
    lines.append(f'{full}{{version="{_label(status.version)}",sensor="{_label(status.sensor)}"}} 1')
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_metrics(status: Status, path: Path) -> None:
    """Replace the metrics file in one step; raise OSError."""
    state.replace(path, metrics(status), 0o644)


def proc_is_ours() -> bool:
    """Say whether /proc shows this process's own pid namespace; else pids would mean others."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False
