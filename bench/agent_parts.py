"""What the agent's measurements are made with: a container, storms of programs, a running agent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "build/exectrail-agent.pyz"
PYTHON = "/usr/bin/python3"
"""The distribution's, as on a node."""

_STORM = ROOT / "tests/integration/exec_storm.c"
_NOTHING = 'void _start(void) { __asm__ volatile("syscall" : : "a"(231), "D"(0)); }\n'
"""A program that only ends, so that the machine can run many of them: x86-64's exit_group(0)."""

_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
_QUIET_SECONDS = 2.0
_QUIET_CPU = 0.02
_PATIENCE = 300.0


class BenchError(Exception):
    """Something can't be measured here."""


@dataclass(frozen=True)
class Storm:
    """What a storm says of itself: times of one run in microseconds."""

    runs: int
    seconds: float
    median: float
    high: float

    @property
    def rate(self) -> float:
        """Runs a second that were reached."""
        return self.runs / self.seconds


class Place:
    """A container without an image, with the storm and its program in it, and the same outside."""

    def __init__(self, folder: Path, name: str) -> None:
        """Build the programs; the container comes with ``with``."""
        self.name = name
        self._root = folder / "root"
        for each in ("usr", "proc", "sys", "dev", "etc", "tmp", "run"):
            (self._root / each).mkdir(parents=True)
        for each in ("bin", "lib", "lib64"):
            (self._root / each).symlink_to(f"usr/{each}")
        source = folder / "nothing.c"
        source.write_text(_NOTHING)
        _run("clang", "-O2", "-o", self._root / "storm", _STORM)
        _run("clang", "-O2", "-static", "-nostdlib", "-o", self._root / "nothing", source)

    def __enter__(self) -> Self:
        """Start it."""
        made = ["--name", self.name, "--network", "none", *_LIMITS]
        self._podman("rm", "-f", "-i", "-t", "0", self.name)
        shared = ["-v", "/usr:/usr:ro", "--rootfs", str(self._root)]
        self._podman("create", *made, *shared, "/usr/bin/sleep", "7200")
        self._podman("start", self.name)
        self.init = int(self._podman("inspect", "-f", "{{.State.Pid}}", self.name))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it, and whatever runs in it."""
        self._podman("rm", "-f", "-i", "-t", "0", self.name)

    def inside(self, *command: str) -> list[str]:
        """Return how a command is run in the container through the runtime: an access."""
        return ["podman", "--runtime", "runc", "exec", self.name, *command]

    def storm(self, rate: int, seconds: float, *words: str, outside: bool = False) -> Storm:
        """Run a program `rate` times a second; `words` are the program, and ``same``."""
        program, *more = words or ("/nothing",)
        if outside:
            program = str(self._root) + program
        command = [str(int(rate * seconds)), str(rate), program, *more]
        if outside:
            said = _run(self._root / "storm", *command)
        else:
            said = _run(*self.inside("/storm", *command))
        runs, took, median, high = said.split()
        return Storm(int(runs), float(took), float(median), float(high))

    @staticmethod
    def _podman(*words: str | Path) -> str:
        return _run("podman", "--runtime", "runc", *words)


@dataclass
class Account:
    """What a log says of a container's execs, by how they are accounted for, and of losses."""

    execs: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)

    @property
    def recorded(self) -> int:
        """Execs that the log tells of, also where it only counts them."""
        return self.execs["Command"] + self.execs["Throttle"]

    @property
    def lost(self) -> int:
        """Execs that Loss records tell of."""
        return self.execs["Loss"]


class Agent:
    """The agent as it was built, as a service runs it: default options, but folders of its own."""

    def __init__(self, folder: Path) -> None:
        """Prepare; it starts with ``with`` and leaves nothing behind."""
        self._folder = folder
        self._log = folder / "log"
        self._bpf = folder / "bpf"
        self._conf = folder / "agent.conf"

    def __enter__(self) -> Self:
        """Start it, and return when it has proved that it sees."""
        self._bpf.mkdir(parents=True)
        _run("mount", "-t", "bpf", "bpf", self._bpf)
        self._conf.write_text(
            f"[agent]\nsensor = bpf\n[bpf]\npins = {self._bpf}/exectrail\n"
            f"[paths]\nruntime = {self._folder}/run\nstate = {self._folder}/state\n"
            f"[log]\nfolder = {self._log}\n[kubernetes]\npods = off\n"
        )
        command = [PYTHON, "-I", str(ARCHIVE), "run", "--unpin", "--config", str(self._conf)]
        with (self._folder / "stderr").open("w") as stderr:
            self._process = subprocess.Popen(command, stderr=stderr)
        end = time.monotonic() + _PATIENCE
        while not self.status.get("canary"):
            if self._process.poll() is not None or time.monotonic() > end:
                self._stop()
                raise BenchError((self._folder / "stderr").read_text() or "the agent is late")
            time.sleep(0.05)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self._stop()

    def _stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _run("umount", self._bpf)
        shutil.rmtree(self._log, ignore_errors=True)

    @property
    def status(self) -> dict[str, object]:
        """What it last said of itself."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, object] = json.loads((self._folder / "run/status.json").read_text())
            return found
        return {}

    @property
    def cpu(self) -> float:
        """Seconds of a CPU that it has used."""
        return cpu(self._process.pid)

    @property
    def memory(self) -> tuple[float, float]:
        """MB of memory, each page counted once however often it is mapped, and as `ps` says it.

        The ring is mapped twice, so that a record at its end can be read in one piece.
        """
        text = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        own, shown = (
            re.search(rf"^{name}: +(\d+) kB", text, re.MULTILINE) for name in ("Pss", "Rss")
        )
        return (int(own[1]) / 1024, int(shown[1]) / 1024) if own and shown else (0.0, 0.0)

    @property
    def wakeups(self) -> int:
        """How often its threads have gone to sleep."""
        folder = Path(f"/proc/{self._process.pid}/task")
        texts = [(each / "status").read_text() for each in folder.iterdir()]
        return sum(int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for text in texts)

    def settle(self) -> float:
        """Wait until it has had nothing to do for a while; return the seconds that it took."""
        begin = busy = time.monotonic()
        used = self.cpu
        while time.monotonic() - busy < _QUIET_SECONDS:
            time.sleep(_QUIET_SECONDS / 20)
            state = (
                Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            )
            # One that waits for its turn or for the disk uses no CPU time either.
            if state != "S" or self.cpu - used > _QUIET_CPU:
                busy, used = time.monotonic(), self.cpu
            if busy - begin > _PATIENCE:
                raise BenchError(f"the agent has not caught up within {_PATIENCE:.0f} s")
        return busy - begin

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of its log, the oldest first."""
        names = sorted(self._log.glob("advaudit.log.[0-9]*"), key=lambda one: -int(one.suffix[1:]))
        for path in (*names, self._log / "advaudit.log"):
            with path.open("rb") as file:
                yield from file

    def account(self, place: Place) -> Account:
        """Return what the log says of the sessions in a container, and of losses."""
        found = Account()
        mine = f'"container.name":"{place.name}"'.encode()
        traces: set[bytes] = set()
        for line in self.lines():
            kind = _KIND.search(line)[1].decode()  # type: ignore[index]
            trace = _TRACE.search(line)
            if kind == "Kubernetes" and mine in line and trace:
                traces.add(trace[1])
            if trace and trace[1] in traces:
                if kind == "Command":
                    found.execs[kind] += 1
                elif kind == "Throttle":
                    found.execs[kind] += int(json.loads(line)["throttle.count"])
            elif kind == "Loss":
                told = json.loads(line)
                found.execs[kind] += int(told.get("loss.execs", 0))
                found.losses[told["loss.cause"]] += int(told["loss.count"])
        return found


_KIND = re.compile(rb'"kind":"(\w+)"')
_TRACE = re.compile(rb'"traceId":"(\w+)"')


def cpu(pid: int) -> float:
    """Return the seconds of a CPU that a process's threads have used; 0 if it is gone."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - names only
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e9


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(map(str, command))
        raise BenchError(f"{words}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout.strip()
