"""What the agent costs, and where it begins to lose: the table of docs/performance.md.

Everything runs on this machine's kernel with the bpf sensor. Others may use the machine meanwhile:
counts are of the measurement's own container, and comparisons are pairs that are made in turn.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import agent_rivals
from bench.agent_parts import ARCHIVE, Agent, BenchError, Place, Storm

RATES = (1024, 2048, 4096, 8192)
STEADY = RATES[0]
STORM_SECONDS = 30.0
MEMORY_SECONDS = 60.0
HOUR = 3600.0
PAIRS = 6
_SLICE = 1.5
_OUTSIDE_SECONDS = 20.0
_IDLE_SECONDS = 60.0
_SAMPLE = 10.0
_DAY_SESSIONS = 200
_SESSION = ("sh", "-c", "id; ls -la /")


def measure(folder: Path, *, hour: bool = False, seconds: float = STORM_SECONDS) -> None:
    """Print a line for each bound; with `hour` the memory is watched so long.

    `seconds` is how long each storm lasts.
    """
    if os.geteuid() != 0:
        raise SystemExit("the agent's measurements need root")
    subprocess.run(["make", "agent"], cwd=ARCHIVE.parents[1], check=True, capture_output=True)
    folders = (folder / f"agent-{number}" for number in itertools.count())
    try:
        with Place(folder, f"exectrail-bench-{os.getpid()}") as place:
            _memory(place, folders, HOUR if hour else MEMORY_SECONDS)
            _storms(place, folders, seconds)
            _outside(place, folders)
            _slowdown(place, folders)
            agent_rivals.compare(place, folders, STEADY)
            _bytes(place, folders)
            _idle(folders)
    except BenchError as error:
        raise SystemExit(str(error)) from None


def _storms(place: Place, folders: Iterator[Path], seconds: float) -> None:
    held, broken = 0, 0
    for rate in RATES:
        lost = _storm(place, folders, rate, seconds)
        if lost and not broken:
            broken = rate
        elif not broken:
            held = rate
    _storm(place, folders, RATES[-1], seconds / 3, "/nothing", "same")
    knee = f"between {held} and {broken} a second" if broken else f"beyond {held} a second"
    print(f"storms in a session: the knee is {knee}")


def _storm(place: Place, folders: Iterator[Path], rate: int, seconds: float, *words: str) -> int:
    with Agent(next(folders)) as agent:
        before = agent.cpu
        storm = place.storm(rate, seconds, *words)
        late = agent.settle()
        used = agent.cpu - before
        found = agent.account(place)
    # The storm itself is a program too. What others lose meanwhile is among the lost.
    missing = storm.runs + 1 - found.recorded - found.lost
    proof = f"NOT ACCOUNTED FOR: {missing}" if missing > 0 else "all accounted for"
    causes = "".join(f", {cause} {count}" for cause, count in sorted(found.losses.items()))
    alike = ", identical" if "same" in words else ""
    print(
        f"storm of {rate}/s in a session{alike}: {found.lost} lost of {storm.runs + 1} (bound 0; "
        f"{storm.rate:.0f}/s reached in {storm.seconds:.0f} s, {found.execs['Command']} recorded, "
        f"{found.execs['Throttle']} as counts, {proof}{causes}; agent {used / storm.runs * 1e6:.0f}"
        f" µs each, {late:.1f} s behind)"
    )
    return found.lost + max(0, missing)


def _memory(place: Place, folders: Iterator[Path], seconds: float) -> None:
    with Agent(next(folders)) as agent, _in_session(place, STEADY, seconds):
        begin = time.monotonic()
        seen = [(0.0, *agent.memory)]
        while seen[-1][0] < seconds:
            time.sleep(min(_SAMPLE, max(0.1, begin + seconds - time.monotonic())))
            seen.append((time.monotonic() - begin, *agent.memory))
    # What it needs for its work is there after a third.
    third = next(each for each in seen if each[0] >= seconds / 3)
    growth = (seen[-1][1] - third[1]) / (seen[-1][0] - third[0]) * 60
    shown = " ".join(f"{seen[len(seen) * part // 6][1]:.1f}" for part in range(6))
    print(
        f"memory at {STEADY}/s in a session after {seconds / 60:.1f} min: {seen[-1][1]:.1f} MB "
        f"(bound 40; on the way: {shown}; with the ring counted twice {seen[-1][2]:.1f}; "
        f"growing by {growth:.2f} MB a minute)"
    )


@contextmanager
def _in_session(place: Place, rate: int, seconds: float) -> Iterator[None]:
    """Have a storm go on meanwhile."""
    command = place.inside("/storm", str(int(rate * seconds)), str(rate), "/nothing")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as storm:
        yield
        storm.wait()


def _outside(place: Place, folders: Iterator[Path]) -> None:
    with Agent(next(folders)) as agent:
        agent.settle()
        before = agent.cpu
        storm = place.storm(STEADY, _OUTSIDE_SECONDS, outside=True)
        share = (agent.cpu - before) / storm.seconds * 100
    print(f"storm of {STEADY}/s outside sessions: agent {share:.2f} % of a core (bound 1)")


def _slowdown(place: Place, folders: Iterator[Path]) -> None:
    """Compare storms with an agent and without, in turn; which is first changes with each pair."""
    kinds = (
        ("in a session", "/usr/bin/true", False),
        ("in a session, of programs that do nothing", "/nothing", False),
        ("outside sessions, of programs that do nothing", "/nothing", True),
    )
    pairs: dict[str, list[tuple[Storm, Storm]]] = {kind: [] for kind, _, _ in kinds}

    def storms() -> list[Storm]:
        return [place.storm(STEADY, _SLICE, program, outside=out) for _, program, out in kinds]

    for number in range(PAIRS):
        without = storms() if number % 2 else []
        with Agent(next(folders)) as agent:
            agent.settle()
            tried = storms()
        without = without or storms()
        for (kind, _, _), ours, plain in zip(kinds, tried, without, strict=True):
            pairs[kind].append((ours, plain))
    for kind, made in pairs.items():
        middle = [ours.median / plain.median for ours, plain in made]
        high = [ours.high / plain.high for ours, plain in made]
        plain_median = statistics.median(plain.median for _, plain in made)
        bounds = ("; bound 1.05", "; bound 1.1") if kind == "in a session" else ("", "")
        print(
            f"storm of {STEADY}/s {kind}, with ÷ without agent: p50 {_spread(middle)}{bounds[0]}), "
            f"p99 {_spread(high)}{bounds[1]}); p50 without {plain_median:.0f} µs"
        )


def _spread(ratios: Sequence[float]) -> str:
    low, high = min(ratios), max(ratios)
    return (
        f"{statistics.median(ratios):.3f} (median of {len(ratios)} pairs, {low:.2f} to {high:.2f}"
    )


def _bytes(place: Place, folders: Iterator[Path]) -> None:
    with Agent(next(folders)) as agent:
        subprocess.run(place.inside(*_SESSION), check=True, capture_output=True)
        agent.settle()
        session = _records(agent)
        enter = ["nsenter", "-a", "-t", str(place.init), *_SESSION]
        for _ in range(_DAY_SESSIONS):
            subprocess.run(enter, check=True, capture_output=True)
        agent.settle()
        day = _records(agent)
    plain = sum(map(len, session)) / len(session)
    print(
        f"bytes a record, `id; ls -la /`: {plain:.0f} (bound 700), compressed by zstd "
        f"{_compressed(session):.0f} in one session of {len(session)} records, "
        f"{_compressed(day):.0f} in a log of {len(day)} (bound 100)"
    )


def _records(agent: Agent) -> list[bytes]:
    return [line for line in agent.lines() if b'"traceId"' in line]


def _compressed(lines: Sequence[bytes]) -> float:
    done = subprocess.run(["zstd", "-c"], input=b"".join(lines), capture_output=True, check=True)
    return len(done.stdout) / len(lines)


def _idle(folders: Iterator[Path]) -> None:
    with Agent(next(folders)) as agent:
        agent.settle()
        before, used = agent.wakeups, agent.cpu
        time.sleep(_IDLE_SECONDS)
        woken, used = agent.wakeups - before, agent.cpu - used
    print(
        f"idle: {woken / _IDLE_SECONDS:.2f} wake-ups a second (bound 1), "
        f"{used / _IDLE_SECONDS * 100:.2f} % of a core"
    )
