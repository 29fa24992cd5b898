"""The checks of an installed agent, of the canary pod, the kubelet and the clock."""

from __future__ import annotations

from typing import Any

import pytest

from exectrail.compliance.checks.agent import PAST
from tests.unit.compliance.installed import UNREADABLE, installed, told

ASKED = 1_000_000.0


FILE = {"mode": "0600", "owner": [0, 0], "size": 1, "name": "advaudit.log.1"}


def lost(age: float, **causes: int) -> dict[str, Any]:
    told_causes = {name.replace("_", "-"): count for name, count in causes.items()}
    return {"clock.now": ASKED, "agent.losses": {"causes": told_causes, "newest": ASKED - age}}


AUDITED = {"agent.status/sensor": "audit"}
FIT_FOR_BPF = {"kernel.lockdown": "none"}


WANTED = {"mark": "m-1", "namespace": "default", "pod": "p", "container": "c", "problem": ""}
ENTERED = {
    "namespace": "default",
    "pod": "p",
    "container": "c",
    "command": "true m-1",
    "entry": "exec",
}


@pytest.mark.parametrize(
    ("wanted", "found", "status", "says"),
    [
        (WANTED, ENTERED, "pass", "exec into default/p, c"),
        ({"mark": "m-1"}, ENTERED, "pass", "exec into default/p, c"),
        ({**WANTED, "problem": "ErrImageNeverPull"}, None, "fail", "ErrImageNeverPull"),
        (WANTED, None, "fail", "has not recorded the exec into p"),
        (WANTED, {**ENTERED, "namespace": "other"}, "fail", "namespace other instead of default"),
        (WANTED, {**ENTERED, "pod": ""}, "fail", "pod none instead of p"),
        (WANTED, {**ENTERED, "container": "d"}, "fail", "container d instead of c"),
        (WANTED, {**ENTERED, "entry": "nsenter"}, "fail", "entry nsenter instead of exec"),
        (WANTED, {**ENTERED, "command": "true"}, "fail", "another command"),
        (WANTED, UNREADABLE, "error", "agent.canary: x"),
        ("m-1", ENTERED, "error", "not a canary pod"),
        (None, ENTERED, "skip", "not asked for"),
        ({}, ENTERED, "skip", "not asked for"),
    ],
)
def test_canary(wanted: Any, found: Any, status: str, says: str) -> None:
    node = installed(changes={"agent.canary": found}, variables={"canary": wanted})
    told("cluster.canary", node, status, says)


def test_nobody_asks_for_the_canary_of_an_agent_that_does_not_record() -> None:
    node = installed(changes={"agent.self_test/recorded": False}, variables={"canary": WANTED})
    told("cluster.canary", node, "skip", "before agent.log passes")


UNIT = {"load": "loaded", "enabled": "enabled", "active": "active", "sub": "running"}


CASES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "agent.installed": [
        ({}, "pass", "loaded"),
        ({"agent.unit/load": "not-found"}, "fail", "not-found"),
        ({"agent.unit/load": "masked"}, "fail", "masked"),
        ({"agent.unit": None}, "fail", "no systemd"),
        ({"agent.unit": UNREADABLE}, "error", "agent.unit: x"),
        ({"agent.unit": ...}, "error", "not collected"),
        ({"agent.unit/load": 3}, "error", "not of the expected form"),
    ],
    "agent.active": [
        ({}, "pass", "active (running), process"),
        ({"agent.unit/active": "inactive", "agent.unit/sub": "dead"}, "fail", "inactive (dead)"),
        ({"agent.unit/active": "activating", "agent.unit/sub": "auto-restart"}, "fail", "auto-re"),
        ({"agent.unit/sub": "stop-sigterm"}, "fail", "stop-sigterm"),
        ({"agent.process": None}, "fail", "no process"),
        ({"agent.process/state": "T"}, "fail", "stopped by a signal"),
        ({"agent.process/state": "t"}, "fail", "stopped by a debugger"),
        ({"agent.process/state": "Z"}, "fail", "dead"),
        ({"agent.process/state": "X"}, "fail", "dead"),
        ({"agent.process/state": "D"}, "pass", "process"),
        ({"agent.unit/restarts": 1, "agent.process/age": 9.99}, "fail", "1 restarts, the last"),
        ({"agent.unit/restarts": 1, "agent.process/age": 10.0}, "pass", ""),
        ({"agent.unit/restarts": 0, "agent.process/age": 0.1}, "pass", ""),
        ({"agent.unit/enabled": "disabled"}, "warn", "disabled"),
        ({"agent.process": UNREADABLE}, "error", "agent.process: x"),
        ({"agent.unit/load": "not-found"}, "skip", "before agent.installed passes"),
    ],
    "agent.sees": [
        ({}, "pass", "seen after 0.0 s"),
        ({"agent.self_test/asked": ASKED, "agent.self_test/seen": ASKED + 1.25}, "pass", "1.2 s"),
        (
            {"agent.self_test/asked": ASKED, "agent.self_test/seen": ASKED - 3},
            "pass",
            "after 0.0 s",
        ),
        ({"agent.self_test/seen": None}, "fail", "blind"),
        ({"agent.self_test/problem": "it does not listen"}, "fail", "it does not listen"),
        ({"agent.self_test": None}, "error", "was not asked"),
        ({"agent.self_test": UNREADABLE}, "error", "agent.self_test: x"),
        ({"agent.unit/enabled": "disabled"}, "pass", ""),
        ({"agent.process/state": "T"}, "skip", "before agent.active passes"),
    ],
    "agent.log": [
        ({}, "pass", "0.0 of 1000 MB in /var/log/exectrail"),
        ({"agent.self_test/recorded": False}, "fail", "not in /var/log/exectrail/advaudit.log"),
        ({"agent.self_test/recorded": None}, "fail", "no record"),
        (
            {"agent.self_test/recorded": False, "agent.status/reasons": ["a: No space left"]},
            "fail",
            "The agent says: a: No space left.",
        ),
        ({"agent.log": None}, "fail", "no folder"),
        ({"agent.log/folder/mode": "0755"}, "fail", "/var/log/exectrail has mode 0755"),
        ({"agent.log/folder/owner": [0, 4]}, "fail", "owner 0:4"),
        ({"agent.log/files/0/mode": "0640"}, "fail", "advaudit.log has mode 0640"),
        ({"agent.log/files": [FILE, {**FILE, "owner": [1, 0]}]}, "fail", "owner 1:0"),
        ({"agent.log/held": 1_000_000_000}, "pass", "1000.0 of 1000 MB"),
        ({"agent.log/held": 1_000_000_001}, "fail", "larger than it may be"),
        ({"agent.log/held": 10**14}, "fail", "100000000.0 of 1000 MB"),
        ({"agent.log/held": 6_000_000, "agent.config/max_files": 3}, "pass", "of 300 MB"),
        (
            {
                "agent.log/held": 6_000_001,
                "agent.config/max_files": 3,
                "agent.config/max_size_mb": 2,
            },
            "fail",
            "6.0 of 6 MB",
        ),
        ({"agent.log": UNREADABLE}, "error", "agent.log: x"),
        ({"agent.config": UNREADABLE}, "error", "agent.config: x"),
        ({"agent.self_test/seen": None}, "skip", "before agent.sees passes"),
    ],
    "agent.healthy": [
        ({}, "pass", "healthy"),
        ({"agent.status/reasons": ["/proc is of another namespace"]}, "fail", "/proc is of"),
        ({"agent.status/reasons": [f"{PAST}events were lost: x 1"]}, "pass", ""),
        ({"agent.status/reasons": [f"{PAST}events", "pods: no"]}, "fail", "degraded: pods"),
        ({"agent.status": None}, "error", "has not written its status"),
        ({"agent.status": UNREADABLE}, "error", "agent.status: x"),
        ({"agent.self_test/recorded": False}, "skip", "before agent.log passes"),
    ],
    "agent.losses": [
        ({}, "pass", "none"),
        (lost(3600, ring_full=7, audit_records=1), "warn", "audit-records 1, ring-full 7"),
        (lost(60, ring_full=7), "warn", "ring-full 7"),
        (lost(59.9, ring_full=7), "fail", "is losing what happens: ring-full 7"),
        (lost(1, ring_full=7, agent_killed=1), "fail", "is losing"),
        (lost(1, rotated_unshipped=7), "warn", "rotated-unshipped 7"),
        (lost(1, agent_killed=7, torn_line=1), "warn", "not any more"),
        (
            lost(1, agent_killed=7, torn_line=1, file_removed=1, rotated_unshipped=1),
            "warn",
            "not any more",
        ),
        ({"agent.losses": {"causes": {"x": 1}, "newest": None}}, "error", "without a time"),
        ({"agent.losses": UNREADABLE}, "error", "agent.losses: x"),
        ({**lost(1, ring_full=7), "clock.now": UNREADABLE}, "error", "clock.now: x"),
        ({"agent.self_test/recorded": False}, "skip", "before agent.log passes"),
    ],
    "agent.program": [
        ({}, "pass", "0.1.0-"),
        ({"agent.program": None}, "fail", "There is no program"),
        ({"agent.program/sha256": "0" * 64}, "fail", "not the program that was installed"),
        ({"agent.program/folder": "0.1.0"}, "fail", "not the program"),
        ({"agent.program/folder": "0.1.0-"}, "fail", "not the program"),
        (
            {"agent.status/started": ASKED, "agent.program/written": ASKED + 5},
            "fail",
            "started 5 s before",
        ),
        ({"agent.status/started": ASKED, "agent.program/written": ASKED}, "pass", ""),
        # That agent is not the one that runs, or none does.
        (
            {
                "agent.status/pid": 1,
                "agent.status/started": ASKED,
                "agent.program/written": ASKED + 5,
            },
            "pass",
            "",
        ),
        ({"agent.status": None}, "pass", ""),
        ({"agent.process": None}, "pass", ""),
        ({"agent.program": UNREADABLE}, "error", "agent.program: x"),
        ({"agent.status": UNREADABLE}, "error", "agent.status: x"),
        ({"agent.unit": None}, "skip", "before agent.installed passes"),
    ],
    "agent.sensor": [
        ({}, "pass", "bpf"),
        ({"kernel.btf": False}, "pass", "bpf"),
        ({**AUDITED, **FIT_FOR_BPF}, "warn", "though the bpf sensor could run"),
        ({**AUDITED, **FIT_FOR_BPF, "libbpf": None}, "pass", "as this node needs it"),
        ({**AUDITED, "kernel.release": "4.18.0"}, "pass", "audit"),
        ({**AUDITED, "kernel.lockdown": UNREADABLE}, "error", "kernel.lockdown: x"),
        ({"agent.status/sensor": ""}, "fail", "not known: ''"),
        ({"agent.status": None}, "error", "has not written"),
        ({"agent.status": UNREADABLE}, "error", "agent.status: x"),
        ({"agent.process/state": "T"}, "skip", "before agent.active passes"),
    ],
    "node.kubelet": [
        ({}, "pass", "active (running)"),
        (
            {"kubelet.unit": {**UNIT, "active": "inactive", "sub": "dead"}},
            "fail",
            "inactive (dead)",
        ),
        ({"kubelet.unit/load": "not-found"}, "pass", "a process"),
        ({"kubelet.unit/load": "not-found", "kubelet/running": False}, "fail", "no process"),
        ({"kubelet.unit": None}, "pass", "a process"),
        ({"kubelet.unit": None, "kubelet/running": False}, "fail", "no process"),
        ({"kubelet": None}, "skip", "no kubelet"),
        ({"kubelet": UNREADABLE}, "error", "kubelet: x"),
        ({"kubelet.unit": UNREADABLE}, "error", "kubelet.unit: x"),
    ],
}


@pytest.mark.parametrize(
    ("check", "changes", "status", "says"),
    [(check, *row) for check, rows in CASES.items() for row in rows],
)
def test_the_check_of_one_change(
    check: str, changes: dict[str, Any], status: str, says: str
) -> None:
    told(check, installed(changes=changes), status, says)


@pytest.mark.parametrize(
    ("now", "status", "says"),
    [
        (ASKED, "pass", "within 0.0 s"),
        (ASKED + 5, "pass", "within 0.0 s"),
        (ASKED + 40, "pass", "within 30.0 s"),
        (ASKED + 40.1, "fail", "+30.1 s"),
        (ASKED - 30, "pass", "within 30.0 s"),
        (ASKED - 30.1, "fail", "-30.1 s"),
        (ASKED + 3610, "fail", "by +3600 s"),
        (ASKED - 3600, "fail", "by -3600 s"),
        (UNREADABLE, "error", "clock.now: x"),
        (-1, "error", "not of the expected form"),
    ],
)
def test_clock_offset(now: Any, status: str, says: str) -> None:
    variables = {"asked": ASKED, "answered": str(ASKED + 10)}
    told(
        "node.clock-offset",
        installed(changes={"clock.now": now}, variables=variables),
        status,
        says,
    )


@pytest.mark.parametrize(
    ("asked", "answered", "status"),
    [
        (None, ASKED, "skip"),
        (ASKED, None, "skip"),
        ("soon", ASKED, "error"),
        (ASKED, "nan", "error"),
        (ASKED, float("inf"), "error"),
        ([], {}, "error"),
    ],
)
def test_the_controllers_clock_must_be_known(asked: Any, answered: Any, status: str) -> None:
    told("node.clock-offset", installed(variables={"asked": asked, "answered": answered}), status)
