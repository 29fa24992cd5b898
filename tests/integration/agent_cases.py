"""Sessions that every sensor must tell alike, and what it may not know of them.

Podman's containers on this machine and runc's on a virtual one run them, where there is only the
standard library.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from exectrail_agent.clock import Clock
from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.events import Sensor
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.records import NodeIdentity, RecordMaker
from exectrail_agent.proc import ProcReader
from exectrail_agent.sessions import unseen
from exectrail_agent.sessions.narrator import Outcome
from exectrail_agent.sessions.tracker import SessionTracker

NODE = NodeIdentity("c1", "node-1", "10.0.0.7", "3f2a91c0-7b1e-4c55-9d2b-6a1f0e8d7c6b")
SECONDS = 60
ROUNDS, MANY = 256, 8
TRACE = re.compile(r'"traceId":"([0-9A-Z]{26})"')

UNKNOWN: Mapping[str, set[str]] = {
    # A parent that ends at that very moment has no file any more: runtimes do that.
    "bpf": {"parent.executable"},
    # Read from /proc a moment after the exec; the shortest-lived programs are gone by then.
    "audit": {
        "environment",
        "parent.executable",
        "task.cgroup",
        "task.mount_namespace",
        "task.pid_namespace",
    },
}
"""The fields (`unknown`) that a sensor may leave out where it loses nothing."""

SAME_PID = """
import ctypes, os, struct
def born(inner, outer):
    ids = (ctypes.c_int * 2)(inner, outer)
    asked = struct.pack("=11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(ids), 2, 0)
    return ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(asked), len(asked))
def free():
    for outer in range(32750, 32000, -1):
        pid = born(4999, outer)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            os.waitpid(pid, 0)
            return outer
outer = free()
for number in range(4):
    pid = -1
    while pid < 0:  # Somebody else on the machine may have it for a moment.
        pid = born(4999, outer)
    if pid == 0:
        os.execv("/bin/true", ["true", f"run={number}"])
    os.wait()
"""
THREAD = """
import os, threading, time
threading.Thread(target=os.execv, args=("/bin/true", ["true", "by-thread"])).start()
time.sleep(9)
"""
MEMORY = """
import os
file = os.memfd_create("in-memory")
os.write(file, open("/bin/true", "rb").read())
os.execve(file, ["true", "fileless"], {})
"""
OPENED = """
import os
os.execve(os.open("/usr/bin/id", os.O_RDONLY), ["who", "-u"], {})
"""
NO_ARGUMENTS = """
import ctypes
ctypes.CDLL(None).execve(b"/usr/bin/id", (ctypes.c_char_p * 1)(), None)
"""


@dataclass(frozen=True)
class Case:
    """Something to run in a container.

    - `way`: ``exec``, ``terminal``, or the options of nsenter.
    - `commands`: the command lines to be recorded, in any order, besides the first one.
    - `exits`: exit codes by program name. `entry`: the type of the access.
    - `told`: fields of the last command's record; None for one that it must not have.
    """

    name: str
    first: Sequence[str]
    commands: Sequence[str] = ()
    way: str = "exec"
    exits: Mapping[str, int] = field(default_factory=dict)
    entry: str = "runtime-exec"
    told: Mapping[str, Any] = field(default_factory=dict)


def shell(name: str, script: str, *commands: str, **more: Any) -> Case:
    return Case(name, ("/bin/sh", "-c", script), commands, **more)


def python(name: str, script: str, *commands: str, **more: Any) -> Case:
    return Case(name, ("/usr/bin/python3", "-c", script), commands, **more)


ID = {"process.name": "id", "process.executable": "/usr/bin/id"}
CASES = (
    shell(
        "a tree",
        "id; (true; /bin/false); unshare -m /bin/echo hi; setsid /bin/sleep 0.2 & exit 3",
        *("id", "/bin/false", "unshare -m /bin/echo hi", "/bin/echo hi"),
        *("setsid /bin/sleep 0.2", "/bin/sleep 0.2"),
        exits={"sh": 3, "false": 1},
    ),
    Case("a terminal", ("/bin/sleep", "0.4"), way="terminal"),
    *(
        Case(f"nsenter {options}", ("/bin/sleep", "0.4"), way=options, entry="nsenter")
        for options in ("-m", "-m -p", "-m -F", "-a")
    ),
    shell(
        "a daemon",
        "setsid sh -c 'sleep 0.3; (sleep 0.2; /bin/echo late) &' & /bin/true; exit 0",
        *("setsid sh -c sleep 0.3; (sleep 0.2; /bin/echo late) &", "/bin/true"),
        *("sh -c sleep 0.3; (sleep 0.2; /bin/echo late) &", "sleep 0.3", "sleep 0.2"),
        "/bin/echo late",
    ),
    shell(
        "another name and a script",
        "printf '#!/bin/sh\\n/bin/true $1\\n' >/tmp/s; chmod 755 /tmp/s; /tmp/s x;"
        " bash -c 'exec -a other /bin/true y'; :",
        *("chmod 755 /tmp/s", "/bin/sh /tmp/s x", "/bin/true x"),
        *("bash -c exec -a other /bin/true y", "other y"),
    ),
    shell(
        "another root",
        "sleep 0.4; chroot / /bin/true there; :",
        "sleep 0.4",
        "chroot / /bin/true there",
        "/bin/true there",
    ),
    python("a thread", THREAD, "true by-thread"),
    python("no file", MEMORY, "true fileless", told={"process.memfd": True}),
    python("an open file", OPENED, "who -u", told={**ID, "process.memfd": None}),
    python("no arguments", NO_ARGUMENTS, "", told={**ID, "process.args": [""]}),
    python("the same pid again", SAME_PID, *(f"true run={number}" for number in range(4))),
)


class Follower:
    """Follows one container's sessions; others on the machine are passed over."""

    def __init__(self, sensor: Sensor, name: str) -> None:
        self.sensor = sensor
        self.index = ContainerIndex()
        self.name = name
        self._tracker = SessionTracker(RecordMaker(NODE, IdSource(), Clock()), self.index)
        self._found: list[dict[str, Any]] = []
        self._traces: set[str] = set()
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._follow(self._tracker.recover(sensor.live(), now))
        found = unseen.find(self.index, ProcReader())
        self._follow(self._tracker.adopt(found, sensor.adopt(found), now))

    def _follow(self, outcome: Outcome) -> None:
        for one in outcome.records:
            # Others' may be thousands a second: who is slow with them misses what is its own.
            trace = TRACE.search(one.body)
            if one.kind == "Kubernetes" or (trace and trace[1] in self._traces):
                record = json.loads(one.line(len(self._found) + 1))
                if one.kind == "Kubernetes" and record.get("container.name") == self.name:
                    self._traces.add(record["traceId"])
                if record["traceId"] in self._traces:
                    self._found.append(record)
        for number in outcome.drops:
            self.sensor.drop(number)

    def take(self) -> None:
        for _ in range(ROUNDS):
            events = self.sensor.read()
            self.index.refresh()
            now = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._follow(self._tracker.handle(events, now))
            if len(events) < MANY:
                break
        self._follow(self._tracker.tick(now))

    def settle(self) -> None:
        """Follow for as long as it takes to know a container that has just been started."""
        for _ in range(20):
            self.take()
            time.sleep(0.02)

    @property
    def init(self) -> int:
        """Return the container's first process."""
        (found,) = [one for one in self.index.all() if one.name == self.name]
        return found.init_pid

    def mine(self) -> list[dict[str, Any]]:
        return list(self._found)

    def session(self, command: Sequence[str]) -> list[dict[str, Any]]:
        """Run a command; return the records of what it made, when that has ended."""
        # Storms that went on before may have left no room for it.
        self.take()
        known = len(self.mine())
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as running:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                self.take()
                found = self.mine()
                begun = [one["traceId"] for one in found[known:] if one["kind"] == "Kubernetes"]
                ended = [one["traceId"] for one in found[known:] if one["kind"] == "SessionEnd"]
                if running.poll() is not None and begun and {*begun} <= {*ended}:
                    return [one for one in found if one["traceId"] in begun]
                time.sleep(0.02)
            running.kill()
        told = f"{self.mine()[known:]}; {self.sensor.losses()}"
        raise AssertionError(f"no session ended within {SECONDS} s: {told}")

    def run(
        self, case: Case, enter: Callable[[Sequence[str], Sequence[str]], Sequence[str]]
    ) -> list[dict[str, Any]]:
        """Run a case; `enter` gives what runs a command in the container, with options."""
        if case.way in {"exec", "terminal"}:
            options = ("-t",) if case.way == "terminal" else ()
            return self.session(enter(options, case.first))
        return self.session(["nsenter", "-t", str(self.init), *case.way.split(), *case.first])


def commands(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return [record["process.cmdline"] for record in records if record["kind"] == "Command"]


def judge(case: Case, found: Sequence[Mapping[str, Any]], sensor: str) -> None:
    """Assert that the records of a case are those that they must be."""
    assert [each["kind"] for each in found].count("Kubernetes") == 1, found
    assert found[0]["entry.type"] == case.entry
    assert found[0]["entry.tty"] is (case.way == "terminal")
    if case.way == "terminal":
        assert found[1]["process.tty"].startswith("pts/")
    assert len({record["traceId"] for record in found}) == 1
    assert sorted(commands(found)) == sorted([" ".join(case.first), *case.commands])
    last = [record for record in found if record["kind"] == "Command"][-1]
    assert {name: last.get(name) for name in case.told} == case.told
    assert found[-1]["kind"] == "SessionEnd"
    exits = [record for record in found if record["kind"] == "CommandExit"]
    codes = {
        each["process.name"]: each.get("exit.code") for each in exits if "process.name" in each
    }
    assert codes.items() >= case.exits.items()
    assert not any("process.unseen" in record for record in found)
    ran = {record["eventId"] for record in found if record["kind"] == "Command"}
    ended = [each["eventId"] for each in exits]
    assert len(ended) == len({*ended})
    assert ran.issuperset(ended)
    if case.name == "the same pid again":
        again = [each for each in found if each.get("process.args", [""])[-1].startswith("run=")]
        assert len({each["process.pid"] for each in again}) == 1
        assert {each["eventId"] for each in again} < {*ended}
    for record in found:
        lacking = {each.partition(":")[0] for each in record.get("unknown", ())}
        assert lacking <= UNKNOWN[sensor], record
