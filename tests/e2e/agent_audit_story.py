"""Runs on the machine: starts the audit sensor, lets things happen, prints what it told."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

from exectrail_agent.audit.control import AuditControl
from exectrail_agent.audit.sensor import AuditSensor
from exectrail_agent.events import EndEvent, Event, ExecEvent, ExitEvent, SensorError

SESSION = ["unshare", "--mount", "sh", "-c"]


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


def told(event: Event) -> dict[str, object]:
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
        for one in self.sensor.live():
            self.sensor.drop(one.session)
        self.events: list[dict[str, object]] = []

    def read(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            select.select([self.sensor], [], [], 0.2)
            self.events += [told(event) for event in self.sensor.read()]

    def run(self, text: str, seconds: float = 6.0, **environment: str) -> None:
        command = subprocess.Popen([*SESSION, text], env={**os.environ, **environment})
        self.read(seconds)
        command.wait()
        self.read(1.0)


def tell(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")


def main(story: str, argument: str) -> None:
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
        elif story == "during":
            quiet = subprocess.DEVNULL
            other = subprocess.Popen(["sh", "-c", argument], stdout=quiet, stderr=quiet)
            watch.read(15.0)
            other.wait()
            more["later"] = state()
            watch.run("/bin/echo afterwards")
        elif story == "stopped":
            # Nobody reads while the execs happen: what the kernel can't keep is lost.
            watch.run(f"{argument}; sleep 15", 0.5)
            watch.read(12.0)
    finally:
        more["losses"] = dict(watch.sensor.losses())
        more["owner"] = watch.sensor.owner
        watch.sensor.close(keep=False)
    tell({"before": before, "during": during, "after": state(), "told": watch.events, **more})


main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
