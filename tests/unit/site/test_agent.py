"""What a node needs is decided from what was read of it; each test changes one thing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from exectrail.site.agent import Decision, Node, Wanted, changes, decide

DIGEST = "ab" * 32
RELEASE = f"1.2.0-{DIGEST[:12]}"
FILES = {"configuration": "conf", "unit": "unit", "command": "command"}
WANTED = Wanted(
    state="present",
    python="/usr/bin/python3",
    sensor="auto",
    allow_downgrade=False,
    remove_logs=False,
    version="1.2.0",
    release=RELEASE,
    digest=DIGEST,
    files=dict.fromkeys(("bpf", "audit"), FILES),
)
STATUS = {"pid": 7, "written": 1.0, "started": 1.0, "canary": 5.0, "sensor": "bpf", "reasons": []}
GOOD: dict[str, Any] = {
    "python": [3, 11],
    "bpf": True,
    "libbpf": True,
    "systemd": True,
    "packages": "apt-get",
    "api": [],
    "sensor": "bpf",
    "current": f"/usr/lib/exectrail-agent/{RELEASE}",
    "digest": DIGEST,
    "files": FILES,
    "modes": {"configuration": "0600", "unit": "0644", "command": "0755"},
    "log_modes": {},
    "active": "active",
    "enabled": "enabled",
    "process": "S",
    "age": 3600.0,
    "newer": [],
    "status": STATUS,
    "silent": 2.0,
    "pid": 7,
    "traces": ["/usr/lib/exectrail-agent"],
    "held": ["/var/log/exectrail"],
}
VIRGIN = {
    "sensor": "",
    "current": "",
    "digest": "",
    "files": dict.fromkeys(FILES, ""),
    "modes": {},
    "active": "inactive",
    "enabled": "",
    "process": "",
    "age": 0.0,
    "status": {},
    "silent": 0.0,
    "pid": 0,
    "traces": [],
    "held": [],
}


def decided(wanted: Wanted = WANTED, **more: Any) -> Decision:
    return decide(msgspec.convert(GOOD | more, Node), wanted)


def because(**reasons: Any) -> dict[str, Any]:
    return {**STATUS, **reasons}


def test_what_is_right_needs_nothing() -> None:
    assert decided() == Decision(kind="nothing", work=False, sensor="bpf")


def test_a_virgin_node_gets_the_agent() -> None:
    found = decided(**VIRGIN)

    assert (found.kind, found.work, found.restart, found.refusals) == ("install", True, False, ())


@pytest.mark.parametrize(
    ("change", "reason", "restart"),
    [
        ({"digest": "cd" * 32}, "its program is not the one that was installed", False),
        ({"files": FILES | {"configuration": "other"}}, "its configuration is another", False),
        ({"files": FILES | {"unit": ""}}, "it has no unit", False),
        ({"files": FILES | {"command": ""}}, "it has no command", False),
        ({"modes": GOOD["modes"] | {"configuration": "0644"}}, "configuration has mode", False),
        ({"log_modes": {"/var/log/exectrail": "0755"}}, "/var/log/exectrail has mode 0755", False),
        ({"active": "inactive"}, "its service is inactive", True),
        ({"enabled": "disabled"}, "its service is disabled", True),
        ({"enabled": "masked"}, "its service is masked", True),
        ({"newer": ["/etc/exectrail/agent.conf"]}, "agent.conf is newer than the agent", True),
        ({"process": "T"}, "its process was stopped by a signal", True),
        ({"process": "T", "age": 3.0}, "its process was stopped by a signal", True),
        ({"status": {}}, "it says nothing", True),
        ({"status": because(pid=6)}, "it says nothing", True),
        ({"silent": 31.0}, "it says nothing", True),
        ({"status": because(reasons=["the sensor is blind"])}, "the sensor is blind", True),
        ({"status": because(canary=0.0)}, "its self-test has not passed", True),
        ({"status": because(canary=0.0), "age": 3.0}, "its self-test has not passed", False),
        ({"sensor": "audit"}, "the bpf sensor may work here by now", False),
    ],
)
def test_what_is_wrong_is_repaired(change: dict[str, Any], reason: str, *, restart: bool) -> None:
    found = decided(**change)

    assert (found.kind, found.work, found.restart) == ("repair", True, restart)
    assert reason in "; ".join(found.reasons)


def test_past_losses_are_no_reason() -> None:
    lost = because(reasons=["in the last ten minutes events were lost: ring 3"])

    assert not decided(status=lost).work


def test_an_audit_sensor_is_kept_where_bpf_can_not_work() -> None:
    assert not decided(sensor="audit", libbpf=False).work


@pytest.mark.parametrize(
    ("installed", "allowed", "kind", "refused"),
    [
        ("1.1.0", False, "upgrade", False),
        ("1.2.0rc1", False, "upgrade", False),
        ("1.2.0", False, "upgrade", False),
        ("1.2.0+here", False, "upgrade", False),
        ("1.10.0", False, "downgrade", True),
        ("1.10.0", True, "downgrade", False),
        ("unknown", False, "upgrade", False),
    ],
)
def test_an_older_version_has_to_be_allowed(
    installed: str, kind: str, *, allowed: bool, refused: bool
) -> None:
    wanted = msgspec.structs.replace(WANTED, allow_downgrade=allowed)
    found = decided(wanted, current=f"/usr/lib/exectrail-agent/{installed}-0123456789ab")

    assert found.kind == kind
    assert found.work
    assert bool(found.refusals) is refused


@pytest.mark.parametrize(
    ("change", "sensor", "says"),
    [
        ({"systemd": False}, "auto", "systemd does not run this node"),
        ({"python": [3, 6]}, "auto", "is Python 3.6: install 3.8 or newer"),
        ({"bpf": False}, "bpf", "the bpf sensor needs a kernel from 5.8"),
    ],
)
def test_who_can_not_have_it_is_refused(change: dict[str, Any], sensor: Any, says: str) -> None:
    found = decided(msgspec.structs.replace(WANTED, sensor=sensor), **change)

    assert found.work
    assert says in found.refusals[0]


@pytest.mark.parametrize(
    ("sensor", "change", "expected", "trial"),
    [
        ("auto", {}, "bpf", ""),
        ("auto", {"current": "1.1.0-0"}, "bpf", "auto"),
        ("auto", {"sensor": ""}, "bpf", "auto"),
        ("auto", {"sensor": "", "bpf": False}, "audit", "auto"),
        # A self-test with the audit sensor would disturb the agent that runs.
        ("auto", {"sensor": "audit", "current": "1.1.0-0", "bpf": False}, "audit", ""),
        ("auto", {"sensor": "audit"}, "audit", "bpf"),
        ("audit", {"sensor": "audit", "current": "1.1.0-0"}, "audit", ""),
        ("bpf", {"sensor": "audit"}, "bpf", "bpf"),
        ("audit", {}, "audit", "audit"),
    ],
)
def test_a_sensor_is_tried_unless_it_has_proved_itself(
    sensor: Any, change: dict[str, Any], expected: str, trial: str
) -> None:
    found = decided(msgspec.structs.replace(WANTED, sensor=sensor), **change)

    assert (found.sensor, found.trial) == (expected, trial)


def test_what_changes_is_shown() -> None:
    node = msgspec.convert(GOOD | {"files": FILES | {"unit": "old"}, "current": ""}, Node)

    assert changes(node, WANTED, "bpf") == [("unit", "old", "unit"), ("program", "", RELEASE)]
    gone = msgspec.structs.replace(WANTED, state="absent")
    assert changes(node, gone, "") == [("paths", "/usr/lib/exectrail-agent\n", "")]


@pytest.mark.parametrize(
    ("change", "logs", "work"),
    [
        ({}, False, True),
        ({"traces": []}, False, False),
        ({"traces": []}, True, True),
        ({"traces": [], "held": []}, True, False),
    ],
)
def test_what_is_left_is_removed(change: dict[str, Any], *, logs: bool, work: bool) -> None:
    wanted = msgspec.structs.replace(WANTED, state="absent", remove_logs=logs)

    assert decided(wanted, **change).work is work
