"""The same storm, told by auditd with a rule for execve and by bpftrace's execsnoop.

Both are unpacked from the distribution's packages, not installed. auditd is left out where somebody
else uses the kernel's audit system: it has one owner.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.agent_parts import Agent, BenchError, Place, cpu

_SECONDS = 12.0
_HEADERS = 2
_PACKAGES = ("auditd", "libauparse0", "bpftrace", "libbpfcc")
_CONF = """\
log_file = {folder}/audit.log
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 1000
num_logs = 2
priority_boost = 4
plugin_dir = {folder}/plugins
space_left = 75
space_left_action = IGNORE
admin_space_left = 50
admin_space_left_action = IGNORE
"""
_WITH_TRACEFS = (
    'test -e /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"'
)
_RULE = ("always,exit", "-F", "arch=b64", "-S", "execve,execveat")


def compare(place: Place, folders: Iterator[Path], rate: int) -> None:
    """Print the agent's CPU time for a recorded exec, and its ratio to that of the others."""
    with Agent(next(folders)) as agent:
        agent.settle()
        before = agent.cpu
        place.storm(rate, _SECONDS)
        agent.settle()
        used = agent.cpu - before
        # Others' too: they have been paid for.
        ours = used / sum(b'"kind":"Command"' in line for line in agent.lines())
    folder = next(folders)
    folder.mkdir()
    for name, run in (("auditd", _auditd), ("bpftrace's execsnoop", _execsnoop)):
        title = f"agent's CPU time for an exec ÷ that of {name}"
        try:
            theirs = run(_unpack(folder), folder, lambda: place.storm(rate, _SECONDS))
        except (BenchError, OSError) as error:
            print(f"{title}: not measured: {error}")
            continue
        print(
            f"{title}: {ours / theirs.each:.2f} (µs: {ours * 1e6:.0f}/{theirs.each * 1e6:.0f}; "
            f"{theirs.recorded} execs told; bound 0.5)"
        )


@dataclass(frozen=True)
class Told:
    """Seconds of a CPU that a tool used, and how many execs it told of."""

    seconds: float
    recorded: int

    @property
    def each(self) -> float:
        """Seconds for an exec."""
        if not self.recorded:
            raise BenchError("it told of none")
        return self.seconds / self.recorded


def _unpack(folder: Path) -> Path:
    root = folder / "packages"
    if not root.exists():
        root.mkdir()
        command = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *_PACKAGES]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"apt-get can't download {', '.join(_PACKAGES)}")
        for package in root.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, root], check=True)
    return root


def _environment(root: Path) -> dict[str, str]:
    places = [*root.glob("usr/lib/*-linux-gnu"), *root.glob("lib/*-linux-gnu")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, places))}


def _auditd(root: Path, folder: Path, storm: Callable[[], object]) -> Told:
    """Count the kernel's own thread that hands the events over too."""
    (folder / "plugins").mkdir(mode=0o750)
    conf = folder / "auditd.conf"
    conf.write_text(_CONF.format(folder=folder))
    conf.chmod(0o640)
    with _audit_of_our_own(root):
        command = [str(_program(root, "auditd")), "-n", "-c", str(folder)]
        with subprocess.Popen(
            command, env=_environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as daemon:
            try:
                time.sleep(1)
                if daemon.poll() is not None:
                    raise BenchError(f"auditd ends with {daemon.returncode}")
                _control(root, ("-b", "8192"))
                _control(root, ("-a", *_RULE))
                helper = _kernel_thread("kauditd")
                before = cpu(daemon.pid) + cpu(helper)
                storm()
                _quiet(daemon.pid)
                used = cpu(daemon.pid) + cpu(helper) - before
            finally:
                with contextlib.suppress(BenchError):
                    _control(root, ("-d", *_RULE))
                daemon.terminate()
                daemon.wait(30)
    with (folder / "audit.log").open("rb") as log:
        return Told(used, sum(line.startswith(b"type=EXECVE") for line in log))


@contextmanager
def _audit_of_our_own(root: Path) -> Iterator[None]:
    """Lend the kernel's audit system, if nobody has it, and give it back as it was."""
    status = dict(
        line.split(" ", 1) for line in _control(root, ("-s",)).splitlines() if " " in line
    )
    if status.get("pid", "0") != "0" or _control(root, ("-l",)) != "No rules":
        raise BenchError("somebody else uses the kernel's audit system")
    try:
        yield
    finally:
        _control(root, ("-b", status["backlog_limit"]))
        _control(root, ("-e", status["enabled"]))


def _control(root: Path, words: tuple[str, ...]) -> str:
    command = [str(_program(root, "auditctl")), *words]
    done = subprocess.run(
        command, env=_environment(root), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchError(f"auditctl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _execsnoop(root: Path, folder: Path, storm: Callable[[], object]) -> Told:
    told = folder / "execsnoop"
    script = root / "usr/sbin/execsnoop.bt"
    with (
        told.open("wb") as out,
        subprocess.Popen(
            ["unshare", "-m", "sh", "-c", _WITH_TRACEFS, "sh", _program(root, "bpftrace"), script],
            env=_environment(root),
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as tracer,
    ):
        try:
            end = time.monotonic() + 60
            while not told.stat().st_size or b"TIME(ms)" not in told.read_bytes():
                if tracer.poll() is not None or time.monotonic() > end:
                    raise BenchError(
                        told.read_text(errors="replace").strip() or "it does not start"
                    )
                time.sleep(0.1)
            before = cpu(tracer.pid)
            storm()
            _quiet(tracer.pid)
            used = cpu(tracer.pid) - before
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(60)
    with told.open("rb") as lines:
        return Told(used, sum(1 for _ in lines) - _HEADERS)


def _program(root: Path, name: str) -> Path:
    for folder in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (root / folder / name).exists():
            return root / folder / name
    raise BenchError(f"its package has no {name}")


def _kernel_thread(name: str) -> int:
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if path.read_text().strip() == name:
                return int(path.parent.name)
    raise BenchError(f"this kernel has no {name}")


def _quiet(pid: int) -> None:
    """Wait until a process has worked off what waits; others' execs keep it busy a little."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        before = cpu(pid)
        time.sleep(0.5)
        if cpu(pid) - before < 0.02:  # noqa: PLR2004 - 4 % of a core
            return
