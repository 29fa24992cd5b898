"""Containers, processes and sessions to test with, and what each line of the log must be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from exectrail_agent.clock import Clock
from exectrail_agent.containers.model import Container, Pod, Probe
from exectrail_agent.events import UNSET_LOGIN_UID, EndEvent, ExecEvent, ExitEvent, Task
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.records import NodeIdentity, Record, RecordMaker
from exectrail_agent.sessions.narrator import Outcome
from exectrail_agent.sessions.tracker import SessionTracker

SCHEMAS = Path(__file__).parents[3] / "docs/reference/records"
NODE = NodeIdentity("c1", "node-1", "10.0.0.7", "3f2a91c0-7b1e-4c55-9d2b-6a1f0e8d7c6b")
HOST_MOUNT, HOST_PID = 4026531841, 4026531836
RUNC = b"/usr/sbin/runc"
SECOND = 1_000_000_000

WEB = Container(
    id="a" * 64,
    runtime="containerd",
    name="app",
    image="shop/web:1.4",
    cgroup="/kubepods/burstable/pod1/" + "a" * 64,
    init_pid=500,
    mount_namespace=4026532100,
    pid_namespace=4026532101,
    pod=Pod("shop", "web-7d9c5b6f4-abcde", "0b6e8a1c-1111-4222-8333-944455556666", {"app": "web"}),
    probes=(Probe("liveness", ("cat", "/run/ok")), Probe("preStop", ("sh", "-c", "sleep 5"))),
)


@cache
def validator(kind: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{kind.lower()}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def check_line(line: str) -> dict[str, Any]:
    """Return a line's record, which its kind's schema allows."""
    assert line.endswith("\n")
    assert all(0x20 <= byte < 0x7F for byte in line[:-1].encode())
    record: dict[str, Any] = json.loads(line)
    validator(record["kind"]).validate(record)
    return record


def check(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [check_line(record.line(at + 1)) for at, record in enumerate(records)]


class Index:
    """A container index that knows what the test says."""

    def __init__(self, *containers: Container, named: Iterable[str] = ()) -> None:
        self.containers = list(containers)
        self.named = list(named)
        self.uncertain: set[str] = set()
        self.clients: dict[str, str] = {}

    def by_cgroup(self, path: bytes) -> Container | None:
        text = path.decode(errors="replace")
        return next(
            (one for one in self.containers if one.cgroup and text.startswith(one.cgroup)), None
        )

    def by_namespaces(self, mount: int, pid: int) -> Container | None:
        return next(
            (
                one
                for one in self.containers
                if one.mount_namespace == mount and (one.shares_pids or one.pid_namespace == pid)
            ),
            None,
        )

    def looks_contained(self, path: bytes) -> str | None:
        text = path.decode(errors="replace")
        known = [*self.named, *(one.id for one in self.containers)]
        return next((one for one in known if one and one in text), None)

    def is_kind_certain(self, container: Container) -> bool:
        return container.id not in self.uncertain

    def client(self, container: Container) -> str:
        return self.clients.get(container.id, "")

    def all(self) -> list[Container]:
        return self.containers


def clock() -> Clock:
    """A clock that was right when the machine started on 2026-11-20, and stands still."""
    return Clock(boot_time=lambda: 1000 * SECOND, wall_time=lambda: 1_795_132_800 * SECOND)


def maker(time: Clock | None = None) -> RecordMaker:
    return RecordMaker(NODE, IdSource(), time or clock())


def tracker(
    *containers: Container,
    index: Index | None = None,
    time: Clock | None = None,
    **options: Any,
) -> SessionTracker:
    options.setdefault("parent_of", lambda _pid: 0)
    options.setdefault("comm_of", lambda _pid: b"")
    return SessionTracker(maker(time), index or Index(*containers), **options)


def host(pid: int, executable: bytes = RUNC, cgroup: bytes = b"/system.slice/x.service") -> Task:
    return Task(
        pid,
        pid * 10,
        cgroup=cgroup,
        mount_namespace=HOST_MOUNT,
        pid_namespace=HOST_PID,
        executable=executable,
    )


def inside(container: Container, pid: int, executable: bytes = b"/bin/sh") -> Task:
    return Task(
        pid,
        pid * 10,
        cgroup=container.cgroup.encode(),
        mount_namespace=container.mount_namespace,
        pid_namespace=container.pid_namespace,
        executable=executable,
    )


def run(
    session: int,
    task: Task,
    parent: Task,
    *args: bytes | str,
    time: int = 0,
    entry: bool = False,
    **more: Any,
) -> ExecEvent:
    """An exec; what is not of an entry tells no cgroups, as the bpf sensor does."""
    words = [arg.encode() if isinstance(arg, str) else arg for arg in args or ("sh",)]
    argv = b"".join(word + b"\0" for word in words)
    if not entry and session:
        task, parent = replace(task, cgroup=b""), replace(parent, cgroup=b"", executable=b"")
    more.setdefault("cwd", b"/")
    more.setdefault("login_uid", UNSET_LOGIN_UID)
    more.setdefault("filename", task.executable)
    return ExecEvent(
        time or 1000 * SECOND + task.pid,
        session,
        entry,
        task,
        parent,
        argv,
        len(argv),
        **more,
    )


def enter(
    container: Container, pid: int = 900, *args: str, session: int = 1, **more: Any
) -> ExecEvent:
    """What kubectl exec leaves: the runtime's child runs a program in the container."""
    parent = more.pop("parent", host(pid - 1))
    executable = more.pop("executable", b"/bin/sh")
    more.setdefault("tty", (136, 0))
    return run(session, inside(container, pid, executable), parent, *args, entry=True, **more)


def leave(session: int, task: Task, status: int = 0, time: int = 0) -> ExitEvent:
    return ExitEvent(time or 1001 * SECOND, session, task.pid, task.start, status)


def end(session: int, time: int = 0) -> EndEvent:
    return EndEvent(time or 1002 * SECOND, session)


def play(one: SessionTracker, *events: Any, now: float = 1000.0) -> Outcome:
    """Handle events in turn and return what followed from all of them."""
    return one.handle(events, now)


def kinds(records: Iterable[Record]) -> list[str]:
    return [record.kind for record in records]
