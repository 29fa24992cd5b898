"""The command ``exectrail-agent``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exectrail_agent import __version__, config, health
from exectrail_agent.agent import Agent
from exectrail_agent.assembly import LOG
from exectrail_agent.audit.sensor import AuditSensor
from exectrail_agent.bpf.pins import remove_pins
from exectrail_agent.bpf.sensor import BpfSensor
from exectrail_agent.canary import Canary, CanaryError
from exectrail_agent.config import Config, ConfigError
from exectrail_agent.events import Sensor, SensorError
from exectrail_agent.log.escape import visible
from exectrail_agent.log.rotation import LogError
from exectrail_agent.notify import Notifier
from exectrail_agent.tree import render

EXIT_UNAVAILABLE = 69
"""What sysexits.h calls EX_UNAVAILABLE."""
_MEGABYTE = 1024 * 1024
_PROOF_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code. Each error is one line on standard error."""
    asked = _parser().parse_args(arguments)
    try:
        code: int = asked.function(asked)
    except ConfigError as error:
        print(f"exectrail-agent: {error}", file=sys.stderr)
        return config.EXIT_CONFIG
    except (SensorError, LogError) as error:
        print(f"exectrail-agent: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="exectrail-agent", description="Records what people do inside a node's containers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(function=function)
        added.add_argument(
            "--config",
            type=Path,
            default=config.DEFAULT_PATH,
            metavar="FILE",
            help="default: %(default)s",
        )
        return added

    run = command("run", _run, "Record until told to stop.")
    run.add_argument(
        "--unpin", action="store_true", help="leave nothing in the kernel when it stops"
    )
    command("self-test", _self_test, "Prove that a sensor sees, beside a running agent.")
    status = command(
        "status", _status, "Say whether the agent is healthy (0), degraded (1) or down (2)."
    )
    status.add_argument("--json", action="store_true", help="all of it, for programs")
    tail = command("tail", _tail, "Show the newest records.")
    tail.add_argument("-f", "--follow", action="store_true", help="and those that come")
    tail.add_argument("-n", "--lines", type=int, default=20, help="default: %(default)s")
    tail.add_argument("--tree", action="store_true", help="whole sessions, as trees")
    command("unpin", _unpin, "Remove what a stopped agent has left in the kernel.")
    command("config-check", _config_check, "Check the configuration and its folders.")
    return parser


def _run(asked: argparse.Namespace) -> int:
    # Who asks for a self-test before anybody can answer must not end the agent by it.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    settings = config.load(asked.config)
    config.check_folders(settings)
    sensor = open_sensor(settings)
    try:
        agent = Agent(settings, sensor, Notifier())
    except BaseException:
        sensor.close(keep=True)
        raise
    try:
        agent.run()
    finally:
        agent.close(keep=not asked.unpin)
    return 0


def open_sensor(settings: Config, *, pins: str | None = None) -> Sensor:
    """Open the sensor that the configuration asks for; raise SensorError."""
    wanted = settings.get("agent", "sensor")
    everything = settings.get("agent", "record") == "all"
    reasons = []
    if wanted in {"auto", "bpf"}:
        try:
            return BpfSensor(
                folder=pins or str(settings.get("bpf", "pins")),
                ring_size=_power_of_two(settings.get("bpf", "ring_mb") * _MEGABYTE),
                everything=everything,
            )
        except SensorError as error:
            reasons.append(f"bpf: {error}")
    if wanted in {"auto", "audit"}:
        try:
            found = settings.get("paths", "runtime") / "audit-found.json"
            return AuditSensor(everything=everything, found=str(found))
        except SensorError as error:
            reasons.append(f"audit: {error}")
    raise SensorError("no sensor works here. " + "; ".join(reasons))


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _self_test(asked: argparse.Namespace) -> int:
    settings = config.load(asked.config)
    status, code, _ = health.read(settings.get("paths", "runtime"), time.time())
    if code != health.DOWN and status.sensor == "audit":
        return _ask_for_proof(settings, status.pid)
    sensor = open_sensor(settings, pins=f"{settings.get('bpf', 'pins')}-self-test")
    canary = Canary()
    try:
        canary.start(time.monotonic())
        deadline = time.monotonic() + _PROOF_SECONDS
        while time.monotonic() < deadline:
            now = time.monotonic()
            if any(canary.take(event, now) for event in sensor.read()):
                print(
                    f"{sensor.name}: a program of our own was seen after {canary.seen_after:.3f} s"
                )
                return 0
            time.sleep(0.05)
    except (CanaryError, OSError) as error:
        raise SensorError(f"no self-test can be made: {error}") from error
    finally:
        canary.close()
        sensor.close(keep=False)
    raise SensorError(f"{sensor.name}: a program of our own was not seen")


def _ask_for_proof(settings: Config, pid: int) -> int:
    """Let the agent that runs prove it: there is one kernel audit, and that is in its use."""
    since = time.time()
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError as error:
        raise SensorError(f"the running agent can't be asked: {error.strerror}") from error
    deadline = time.monotonic() + _PROOF_SECONDS
    while time.monotonic() < deadline:
        status, _, _ = health.read(settings.get("paths", "runtime"), time.time())
        if status.canary > since:
            print(f"{status.sensor}: the running agent (pid {pid}) saw a program of its own")
            return 0
        time.sleep(0.05)
    raise SensorError(f"audit: the running agent (pid {pid}) did not see a program of its own")


def _status(asked: argparse.Namespace) -> int:
    settings = config.load(asked.config)
    status, code, word = health.read(settings.get("paths", "runtime"), time.time())
    if asked.json:
        print(json.dumps({"state": word, **asdict(status)}, indent=2, sort_keys=True))
        return code
    print(word + "".join(f"\n  because {visible(reason)}" for reason in status.reasons))
    if status.version:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.started))
        print(
            f"  version {visible(status.version)}, sensor {visible(status.sensor)}, since {since}"
        )
        print(
            f"  {status.records} records, {status.sessions} open sessions, "
            f"{status.containers} containers, {sum(status.losses.values())} events lost"
        )
        print("  self-test " + (_ago(status.canary) if status.canary else "not passed yet"))
    for note in status.notes:
        print(f"  note: {visible(note)}")
    return code


def _ago(moment: float) -> str:
    return f"passed {max(0, round(time.time() - moment))} s ago"


def _tail(asked: argparse.Namespace) -> int:
    settings = config.load(asked.config)
    path = Path(settings.get("log", "folder")) / LOG
    try:
        while _shown_to_its_end(path, asked):
            pass
    except OSError as error:
        raise LogError(f"{path} can't be read: {error.strerror}") from error
    return 0


def _shown_to_its_end(path: Path, asked: argparse.Namespace) -> bool:
    """Show a file as asked; say whether another has taken its place meanwhile."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        if asked.tree:
            print(render(_records(stream)), end="")
            return False
        for line in deque(stream, max(0, asked.lines)):
            _show(line)
        while asked.follow:
            line = stream.readline()
            if line:
                _show(line)
            elif _rotated(path, stream.fileno()):
                return True
            else:
                sys.stdout.flush()
                time.sleep(0.5)
    return False


def _rotated(path: Path, descriptor: int) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    return (now.st_dev, now.st_ino) != (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _show(line: str) -> None:
    print(visible(line.rstrip("\n")))


def _unpin(asked: argparse.Namespace) -> int:
    remove_pins(str(config.load(asked.config).get("bpf", "pins")))
    return 0


def _config_check(asked: argparse.Namespace) -> int:
    settings = config.load(asked.config)
    config.check_folders(settings)
    for section, name, value in settings.values:
        print(f"[{section}] {name} = {value if value is not None else ''}")
    return 0
