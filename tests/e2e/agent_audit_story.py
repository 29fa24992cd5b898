"""Runs on the machine: starts the audit sensor, lets things happen, prints what it told."""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exectrail_agent.audit import connector, stream
from exectrail_agent.audit.control import AuditControl
from exectrail_agent.audit.sensor import AuditSensor
from exectrail_agent.events import EndEvent, Event, ExecEvent, ExitEvent, SensorError
from tests.integration.agent_cases import CASES, Follower

RULES = 2
MOST_SECONDS = 40.0
SESSION = ["unshare", "--mount", "sh", "-c"]
RUNTIME = os.environ.get("EXECTRAIL_RUNTIME", "runc")
BUNDLE = Path("/run/containerd/io.containerd.runtime.v2.task/default/cases")
NARROW = {"few-records": stream, "few-events": connector}
"""Stories in which something can keep only a little of what happens while nobody reads."""
LONGEST = "/bin" + "/../bin" * 580 + "/true"
"""Some hundred of its records are more than the agent keeps for a disk that takes none."""
CAPABILITIES = ["CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]


def state() -> dict[str, object]:
    control = AuditControl()
    status, rules = control.status(), control.rules()
    control.close()
    return {
        "enabled": status.enabled,
        "pid": status.pid,
        "backlog_limit": status.backlog_limit,
        "backlog_wait_time": status.backlog_wait_time,
        "rate_limit": status.rate_limit,
        "rules": len(rules),
        "ours": len([rule for rule in rules if rule.ours]),
    }


def told(event: Event) -> dict[str, Any]:
    if isinstance(event, ExecEvent):
        return {
            "kind": "entry" if event.entry else "exec",
            "session": event.session,
            "pid": event.task.pid,
            "argv": event.argv.decode("latin1").split("\0")[:-1],
            "size": event.argv_size,
            "cut": event.argv_cut,
            "cwd": event.cwd.decode("latin1"),
            "executable": event.task.executable.decode("latin1"),
            "filename": event.filename.decode("latin1"),
            "parent": event.parent.executable.decode("latin1"),
            "environment": {k.decode(): v.decode() for k, v in event.environment.items()},
            "tty": event.tty,
            "memfd": event.memfd,
            "uid": event.uid,
            "unknown": dict(event.unknown),
            "moved": event.task.mount_namespace != event.parent.mount_namespace,
        }
    if isinstance(event, ExitEvent):
        return {"kind": "exit", "session": event.session, "pid": event.pid, "status": event.status}
    assert isinstance(event, EndEvent)
    return {"kind": "end", "session": event.session}


class Watch:
    """A sensor, with what it told."""

    def __init__(self) -> None:
        self.sensor = AuditSensor()
        self.events: list[dict[str, Any]] = []

    def read_until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + MOST_SECONDS
        while time.monotonic() < end and not done():
            select.select([self.sensor], [], [], 0.2)
            self.events += [told(event) for event in self.sensor.read()]

    def ended(self, text: str) -> bool:
        """Whether the session has ended that ran a text; others on the machine go on."""
        mine = {event["session"] for event in self.events if text in event.get("argv", ())}
        over = {event["session"] for event in self.events if event["kind"] == "end"}
        return bool(mine) and mine <= over

    def run(self, text: str, *, blind: bool = False, **environment: str) -> None:
        """Run a session; see to its end, or only then begin to look."""
        command = subprocess.Popen([*SESSION, text], env={**os.environ, **environment})
        if blind:
            command.wait()
        self.read_until(lambda: command.poll() is not None and self.ended(text))


def start_container() -> None:
    """Start a container with the machine's own programs, where containerd keeps its own."""
    root = Path("/root/cases")
    BUNDLE.mkdir(parents=True)
    subprocess.run([RUNTIME, "spec"], cwd=BUNDLE, check=True)
    config = json.loads((BUNDLE / "config.json").read_text())
    config["root"] = {"path": str(root)}
    for folder in ("proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    for folder in ("usr", "bin", "lib", "lib64"):
        if Path("/", folder).is_symlink():
            (root / folder).symlink_to(f"usr/{folder}")
        else:
            place = {"destination": f"/{folder}", "source": f"/{folder}", "type": "bind"}
            config["mounts"].append({**place, "options": ["rbind", "ro"]})
    config["linux"]["cgroupsPath"] = "/default/cases"
    process = config["process"]
    process.update(terminal=False, args=["/bin/sleep", "600"])
    process["capabilities"] = dict.fromkeys(process["capabilities"], CAPABILITIES)
    (BUNDLE / "config.json").write_text(json.dumps(config))
    quiet = subprocess.DEVNULL
    subprocess.run(
        [
            RUNTIME,
            "run",
            "--detach",
            "--bundle",
            BUNDLE,
            "--pid-file",
            BUNDLE / "init.pid",
            "cases",
        ],
        stdin=quiet,
        stdout=quiet,
        # It would be the container's as long as that runs.
        stderr=quiet,
        check=True,
    )


def end_container() -> None:
    subprocess.run([RUNTIME, "delete", "--force", "cases"], check=True)
    for folder in (BUNDLE, Path("/root/cases")):
        shutil.rmtree(folder)


def enter(options: Sequence[str], command: Sequence[str]) -> list[str]:
    words = [RUNTIME, "exec", *options, "cases", *command]
    # With a terminal runc wants one of its own.
    return ["script", "-qc", shlex.join(words), "/dev/null"] if options else words


def cases() -> dict[str, object]:
    sensor = AuditSensor()
    follower = Follower(sensor, "cases")
    found: dict[str, object] = {}
    try:
        start_container()
        follower.settle()
        started = follower.mine()
        for case in CASES:
            try:
                found[case.name] = follower.run(case, enter)
            except AssertionError as problem:
                found[case.name] = str(problem)
        losses = dict(sensor.losses())
        sensor.close(keep=False)
        return {"started": started, "cases": found, "losses": losses, "returned": returned()}
    finally:
        sensor.close(keep=False)
        end_container()


def returned() -> list[dict[str, object]]:
    """Let a session begin that no sensor sees, and then look."""
    pipe = subprocess.PIPE
    with subprocess.Popen(enter((), ("sh",)), stdin=pipe, stdout=pipe, text=True) as entered:
        assert entered.stdin
        assert entered.stdout
        print("echo begun", file=entered.stdin, flush=True)
        assert entered.stdout.readline() == "begun\n"
        sensor = AuditSensor()
        try:
            follower = Follower(sensor, "cases")
            print("/bin/true remembered", file=entered.stdin, flush=True)
            entered.stdin.close()
            end = time.monotonic() + MOST_SECONDS
            while time.monotonic() < end:
                follower.take()
                found = follower.mine()
                if found and found[-1]["kind"] == "SessionEnd":
                    break
                time.sleep(0.1)
            return found
        finally:
            sensor.close(keep=False)


class Agent:
    """The agent itself, with a configuration and a log of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "run").mkdir(parents=True)
        (home / "agent.conf").write_text(
            f"[agent]\nsensor = audit\n[kubernetes]\npods = off\n[log]\nfolder = {home}/log\n"
            f"[paths]\nruntime = {home}/run\nstate = {home}/state\n"
        )

    def command(self, *words: str) -> list[str]:
        agent = [sys.executable, "-m", "exectrail_agent", *words]
        return [*agent, "--config", str(self.home / "agent.conf")]

    def ask(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            self.command(*words),
            cwd="/root/agent",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(self.command("run"), cwd="/root/agent") as process:
            try:
                self.until(lambda: self.status().get("canary"))
                yield process
            finally:
                process.send_signal(signal.SIGCONT)
                process.terminate()

    def status(self) -> dict[str, Any]:
        path = self.home / "run/status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def records(self) -> list[dict[str, Any]]:
        # The last line may be under way.
        whole, _, _ = (self.home / "log/advaudit.log").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    @staticmethod
    def until(done: Callable[[], Any]) -> None:
        end = time.monotonic() + MOST_SECONDS
        while time.monotonic() < end and not done():
            time.sleep(0.2)


def beside() -> dict[str, object]:
    """Run the agent itself, and a self-test and another agent beside it."""
    agent = Agent(Path("/root/beside"))
    with agent.running() as running:
        found: dict[str, object] = {"before": state()}
        found["self-test"] = agent.ask("self-test")
        found["after"] = state()
        running.send_signal(signal.SIGSTOP)
        (agent.home / "run/status.json").unlink()  # Now nobody knows of it but by its lock.
        found["unknown"] = agent.ask("self-test")
        found["later"] = state()
    found["kinds"] = [record["kind"] for record in agent.records()]
    found["end"] = state()
    return found


def full_disk(number: int) -> dict[str, object]:
    """Run the agent on a disk that is full while somebody runs programs in a container."""
    agent = Agent(Path("/root/full"))
    image, log = agent.home / "disk", agent.home / "log"
    log.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, log], check=True)
    start_container()
    try:
        with agent.running():
            with (log / "ballast").open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1024))
            each = f"i=0; while [ $i -lt {number} ]; do {LONGEST} $i; i=$((i+1)); done"
            subprocess.run(enter((), ("sh", "-c", each)), check=True)
            agent.until(lambda: "No space left on device" in str(agent.status()))
            reasons = agent.status()["reasons"]
            (log / "ballast").unlink()
            agent.until(lambda: sum(accounted(agent.records())) > number)
            # Nor are there more.
            time.sleep(1)
        recorded, lost = accounted(agent.records())
        causes = [one["loss.cause"] for one in agent.records() if one["kind"] == "Loss"]
        numbers = [one["seq"] for one in agent.records()]
        gaps = numbers != list(range(1, len(numbers) + 1))
        counts = {"recorded": recorded, "lost": lost, "gaps": gaps}
        return {"reasons": reasons, "causes": causes, **counts}
    finally:
        end_container()
        subprocess.run(["umount", log], check=True)


def accounted(records: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Give how many execs are recorded, and how many known to be lost."""
    collapsed, lost = (
        sum(one.get(name, 0) for one in records) for name in ("throttle.count", "loss.execs")
    )
    return [one["kind"] for one in records].count("Command") + collapsed, lost


def tell(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")


def main(story: str, argument: str) -> None:
    alone = {"cases": cases, "beside": beside, "full-disk": lambda: full_disk(int(argument))}
    if story in alone:
        tell(alone[story]())
        return
    if story in {"start-container", "end-container"}:
        (start_container if story == "start-container" else end_container)()
        return
    if story in NARROW:
        NARROW[story]._BUFFER_BYTES = 1 << 14
    before = state()
    try:
        watch = Watch()
    except SensorError as problem:
        tell({"problem": str(problem), "before": before, "after": state()})
        return
    during = state()
    more: dict[str, object] = {}
    try:
        if story == "session":
            watch.run(argument, KUBERNETES_EXEC_AUDIT_ID="an-id", ANOTHER="kept")
        elif story == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif story in {"flushed", "succeeded"}:
            quiet = subprocess.DEVNULL
            other = subprocess.Popen(["sh", "-c", argument], stdout=quiet, stderr=quiet)
            watch.read_until(lambda: other.poll() is not None)
            if story == "flushed":
                watch.read_until(lambda: state()["ours"] == RULES)
            else:
                watch.read_until(lambda: state()["pid"] not in {0, during["pid"]})
            more["later"] = state()
            watch.run("/bin/echo afterwards")
        elif story in NARROW:
            # Nobody reads while the execs happen: what the kernel can't keep is lost.
            watch.run(argument, blind=True)
    finally:
        more["losses"] = dict(watch.sensor.losses())
        more["owner"] = watch.sensor.owner
        watch.sensor.close(keep=False)
    tell({"before": before, "during": during, "after": state(), "told": watch.events, **more})


main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
