"""How accesses are told apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exectrail_agent.containers.model import Container, Pod, Probe
from exectrail_agent.events import ExecEvent
from exectrail_agent.sessions.crossing import Way, cross
from exectrail_agent.sessions.entry import Entry, IntervalWatch, classify, ids_of
from tests.unit.agent.world import (
    HOST_PID,
    SECOND,
    WEB,
    Index,
    check,
    enter,
    host,
    inside,
    play,
    run,
    tracker,
)

BARE_POD = replace(WEB, probes=(), pod=Pod("shop", "web", "u1"))
DOCKER = replace(WEB, runtime="docker", pod=None, probes=(), cgroup="/docker/" + WEB.id)
SHIM = host(800, b"/usr/bin/containerd-shim-runc-v2")
BASH = host(800, b"/usr/bin/bash", b"/user.slice/session-1.scope")
IN_CGROUP = replace(host(900, b"/bin/sh"), cgroup=WEB.cgroup.encode())
IN_NAMESPACES = replace(inside(WEB, 900), cgroup=b"/user.slice/session-1.scope")
ID = WEB.id.encode()
OTHER = replace(WEB, id="b" * 64, init_pid=501, mount_namespace=1, cgroup="/other")
THIRD = replace(OTHER, id="c" * 64, init_pid=502, mount_namespace=2, cgroup="/third")
NO_TTY: dict[str, Any] = {"tty": None}


def judge(event: ExecEvent, *containers: Container, **options: Any) -> Entry:
    return classify(event, cross(event, Index(*containers)), **options)


@pytest.mark.parametrize(
    ("kind", "event", "container"),
    [
        ("exec", enter(WEB, 900, "sh"), WEB),
        ("exec", enter(WEB, 900, "id", **NO_TTY), WEB),
        ("exec", enter(WEB, 900, "sh", parent=SHIM), WEB),
        ("exec", enter(BARE_POD, 900, "id", **NO_TTY), BARE_POD),
        ("copy", enter(WEB, 900, "tar", "cf", "-", "/etc", **NO_TTY), WEB),
        ("copy", enter(WEB, 900, "tar", "xmf", "-", "-C", "/", **NO_TTY), WEB),
        ("copy", enter(WEB, 900, "tar", "--no-same-owner", "-xmf", "-", **NO_TTY), WEB),
        ("copy", enter(WEB, 900, "sh", "-c", "tar cf - /a | tail -c+9", **NO_TTY), WEB),
        ("exec", enter(WEB, 900, "tar", "cf", "-", "/etc"), WEB),
        ("exec", enter(WEB, 900, "tar", "cf", "/a.tar", "/etc", **NO_TTY), WEB),
        ("probe", enter(WEB, 900, "cat", "/run/ok", **NO_TTY), WEB),
        ("exec", enter(WEB, 900, "cat", "/run/ok"), WEB),
        ("hook", enter(WEB, 900, "sh", "-c", "sleep 5", **NO_TTY), WEB),
        ("runtime-exec", enter(DOCKER, 900, "sh"), DOCKER),
        ("runtime-exec", enter(WEB, 900, "sh", login_uid=1000), WEB),
        ("runtime-exec", run(1, IN_NAMESPACES, host(899), "sh", entry=True), WEB),
        ("nsenter", run(1, IN_NAMESPACES, BASH, "sh", entry=True), WEB),
        ("nsenter", enter(WEB, 900, "sh", parent=host(800, b"/usr/bin/nsenter")), WEB),
        ("nsenter", enter(WEB, 900, "sh", parent=BASH), WEB),
        ("unknown", run(1, IN_CGROUP, BASH, "sh", entry=True), WEB),
        ("exec", enter(WEB, 900, "sh", parent=host(800, b"")), WEB),
    ],
)
def test_ways_in(kind: str, event: ExecEvent, container: Container) -> None:
    entry = judge(event, container)

    assert entry.type == kind
    assert 0 < entry.confidence <= 1
    assert bool(entry.reason) == (entry.confidence < 1)


@pytest.mark.parametrize(
    ("event", "container", "type_", "asked"),
    [
        (enter(WEB, 900, "sh"), WEB, "runtime-exec", True),
        (run(1, IN_CGROUP, BASH, "sh", entry=True), WEB, "runtime-exec", True),
        (enter(WEB, 900, "cat", "/run/ok", **NO_TTY), WEB, "probe", False),
        (enter(DOCKER, 900, "sh"), DOCKER, "runtime-exec", False),
        (enter(WEB, 900, "sh", environment={b"SPO_EXEC_REQUEST_UID": b"1"}), WEB, "exec", False),
    ],
)
def test_a_client_of_the_runtime_that_is_at_work(
    event: ExecEvent,
    container: Container,
    type_: str,
    asked: bool,  # noqa: FBT001
) -> None:
    questions: list[Container] = []
    entry = judge(event, container, client=lambda one: questions.append(one) or "crictl")

    assert entry.type == type_
    assert bool(questions) is asked
    if asked:
        assert (entry.confidence, entry.reason.split()[0]) == (0.8, "crictl")
        assert judge(event, container, client=lambda _: "").type != type_


def start(container: Container) -> Entry:
    event = run(1, inside(container, container.init_pid), SHIM, "sh", entry=True)
    return judge(event, container)


def test_starting_a_container_to_work_in_it_is_an_access() -> None:
    ephemeral = replace(WEB, kind="ephemeral", name="debugger-x7k2p")
    assert start(ephemeral) == Entry("ephemeral-container")
    assert start(replace(WEB, interactive=True)).type == "interactive-container"
    assert start(replace(BARE_POD, name="debugger-x7k2p")).confidence == 0.7
    debug = Pod("default", "node-debugger-n1-abcde", "u2")
    node = replace(WEB, interactive=True, shares_pids=True, pod=debug)
    assert start(node).type == "nsenter"
    assert start(replace(node, interactive=False)) == start(node)
    without = replace(node, interactive=False, shares_pids=False)
    event = run(1, inside(without, 500), SHIM, "sh", entry=True)
    assert play(tracker(without), event).drops == [1]


@pytest.mark.parametrize(
    ("traces", "found", "certainty"),
    [
        ({}, False, 1.0),
        ({"device": 42}, True, 0.9),
        ({"device": 7}, False, 1.0),
        ({"device": 8}, False, 1.0),
        ({"through": b"runc\0--log\0/x/" + OTHER.id.encode() + b"/l\0exec\0" + ID}, True, 0.8),
        ({"through": b"crun\0exec\0" + ID + b"\0" + OTHER.id.encode() + b"\0"}, True, 0.8),
        ({"through": b"runc\0exec\0unknown\0"}, False, 1.0),
    ],
)
def test_what_is_gone_is_put_where_its_traces_lead(
    monkeypatch: pytest.MonkeyPatch,
    traces: dict[str, Any],
    found: bool,  # noqa: FBT001
    certainty: float,
) -> None:
    devices = {1: 7, WEB.init_pid: 42, OTHER.init_pid: 8, THIRD.init_pid: 8}
    monkeypatch.setattr("exectrail_agent.sessions.crossing.root_device", devices.__getitem__)
    event = enter(WEB, 900, "id", **NO_TTY, **traces)
    event = replace(event, task=replace(event.task, cgroup=b"", mount_namespace=0))

    crossing = cross(event, Index(WEB, OTHER, THIRD))

    assert crossing.container == (WEB if found else None)
    assert crossing.certainty == certainty
    entry = classify(event, crossing)
    assert entry.confidence <= certainty
    assert bool(crossing.doubt) is found


def test_a_workload_that_is_gone_has_not_come_from_outside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exectrail_agent.sessions.crossing.root_device", {1: 7, 500: 42}.get)
    event = enter(WEB, 900, "id", parent=inside(WEB, 800), device=42)
    event = replace(event, task=replace(event.task, cgroup=b"", mount_namespace=0))

    assert cross(event, Index(WEB)).way is Way.INSIDE


def test_a_later_program_tells_where_the_first_one_was() -> None:
    first = enter(WEB, 900, "sh")
    first = replace(first, task=replace(first.task, cgroup=b"", mount_namespace=0))
    later = replace(run(1, inside(WEB, 901), inside(WEB, 900), "id"), task=inside(WEB, 901))

    records = check(play(tracker(WEB), first, later).records)

    assert [one["kind"] for one in records] == ["Kubernetes", "Command", "Command"]
    assert records[0]["k8s.container.name"] == "app"
    assert records[0]["entry.confidence"] <= 0.9


def test_a_name_alone_makes_no_ephemeral_container_where_the_pods_are_known() -> None:
    named = replace(WEB, name="debugger-x7k2p")
    event = run(1, inside(named, 500), SHIM, "sh", entry=True)

    assert play(tracker(named), event).drops == [1]


def test_an_ephemeral_container_can_be_entered_once_more() -> None:
    ephemeral = replace(WEB, kind="ephemeral")

    assert judge(enter(ephemeral, 900, "sh"), ephemeral).type == "exec"


@pytest.mark.parametrize("pids", [HOST_PID, 0])
def test_orphans_where_pids_are_the_hosts_are_no_certain_access(pids: int) -> None:
    shared = replace(WEB, shares_pids=True, pid_namespace=pids)

    assert judge(enter(shared, 900, "sh", parent=SHIM), shared).confidence == 0.3
    assert judge(enter(shared, 900, "sh"), shared).type == "exec"


def test_nobody_outside_adopts_orphans_of_a_pod_with_pids_of_its_own() -> None:
    shared = replace(WEB, shares_pids=True)

    assert judge(enter(shared, 900, "sh", parent=SHIM), shared).type == "exec"


def test_a_first_process_that_is_not_known_lowers_the_confidence() -> None:
    early = replace(WEB, init_pid=0)

    assert judge(enter(early, 900, "sh"), early).confidence == 0.4


def test_a_container_that_nobody_described_is_told_by_its_cgroup() -> None:
    nobody = Index(named=[WEB.id])
    docker = Index(named=[DOCKER.id])
    pods, standalone = enter(WEB, 900, "sh"), enter(DOCKER, 900, "sh")

    assert classify(pods, cross(pods, nobody)).type == "exec"
    assert classify(standalone, cross(standalone, docker)).type == "runtime-exec"


def test_nsenter_that_forks_between_two_namespaces_is_seen() -> None:
    parent = replace(
        host(899, b"/usr/bin/nsenter", b"/user.slice"), mount_namespace=WEB.mount_namespace
    )
    shared = replace(WEB, shares_pids=True)

    for container in (WEB, shared):
        event = run(1, IN_NAMESPACES, parent, "sh", entry=True)
        assert judge(event, container).type == "nsenter"


def test_an_audit_id_makes_it_surer_and_is_recorded() -> None:
    environment = {b"KUBERNETES_EXEC_AUDIT_ID": b"1c9f-\x1b[31m"}
    event = enter(WEB, 900, "cat", "/run/ok", environment=environment, **NO_TTY)

    assert judge(event, WEB).type == "exec"
    (access, _) = check(play(tracker(WEB), event).records)
    assert access["audit.id"] == "1c9f-\x1b[31m"
    assert access["entry.confidence"] == 0.95


def test_an_audit_id_of_none_is_none() -> None:
    environment = {b"KUBERNETES_EXEC_AUDIT_ID": b"unknown"}
    event = enter(WEB, 900, "cat", "/run/ok", environment=environment, **NO_TTY)

    assert judge(event, WEB).type == "probe"


def test_spos_id_is_taken_from_the_command_that_carries_it() -> None:
    command = ("env", "SPO_EXEC_REQUEST_UID=77-88", "tar", "cf", "-", "/etc")
    event = enter(WEB, 900, *command, **NO_TTY)

    assert ids_of(event).spo == b"77-88"
    assert judge(event, WEB).type == "copy"


def test_even_intervals_tell_a_probe_where_the_pod_is_not_known() -> None:
    watched = tracker(BARE_POD)
    found = []
    for number, second in enumerate([0, 10, 20, 30.1, 40, 43, 49]):
        time = int((1000 + second) * SECOND)
        event = enter(BARE_POD, 900 + number, "check", session=number + 1, time=time, **NO_TTY)
        found.append(check(play(watched, event).records)[0]["entry.type"])

    assert found == ["exec"] * 3 + ["probe"] * 2 + ["exec"] * 2


def test_what_is_watched_for_intervals_is_bounded() -> None:
    watch = IntervalWatch()
    for number in range(3000):
        watch.regular("c", enter(WEB, 900, str(number)))

    assert len(watch._seen) == 1024


def test_a_probes_command_may_hold_anything() -> None:
    odd = replace(WEB, probes=(Probe("startup", ("caf\u00e9", "\udcff", "")),))
    command = ("caf\u00e9", "")

    assert judge(enter(odd, 900, *command, **NO_TTY), odd).type == "exec"
