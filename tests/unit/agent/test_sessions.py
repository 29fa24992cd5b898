"""What the tracker makes of a sensor's events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from exectrail_agent.containers.model import Container
from exectrail_agent.events import ExitEvent, LiveSession
from exectrail_agent.sessions import flood as floods
from exectrail_agent.sessions import returning, workloads
from exectrail_agent.sessions import tracker as sessions
from exectrail_agent.sessions.tracker import SessionTracker
from tests.unit.agent.world import (
    RUNC,
    SECOND,
    WEB,
    Index,
    check,
    end,
    enter,
    host,
    inside,
    kinds,
    leave,
    play,
    run,
    tracker,
)

SHELL = inside(WEB, 900)
LS = inside(WEB, 901, b"/bin/ls")


def session_of_ls(number: int = 1) -> list[Any]:
    return [
        enter(WEB, 900, "sh", session=number),
        run(number, LS, SHELL, "ls", "-la", "/"),
        leave(number, LS, 2 << 8),
        leave(number, SHELL, 9),
        end(number),
    ]


def test_a_session_is_told_from_the_access_to_its_end() -> None:
    records = check(play(tracker(WEB), *session_of_ls()).records)

    assert [record["kind"] for record in records] == [
        "Kubernetes",
        "Command",
        "Command",
        "CommandExit",
        "CommandExit",
        "SessionEnd",
    ]
    access, shell, command, command_exit, shell_exit, last = records
    assert {record["traceId"] for record in records} == {access["traceId"]}
    assert access["k8s.pod.labels"] == {"app": "web"}
    assert access["kubeObject.operation.kind"] == "PodExec"
    assert (shell["parentEventId"], command["parentEventId"]) == (
        access["eventId"],
        shell["eventId"],
    )
    assert command["process.args"] == ["ls", "-la", "/"]
    assert command["process.parentname"] == "sh"
    assert command["k8s.pod.name"] == "web-7d9c5b6f4-abcde"
    assert (command_exit["eventId"], command_exit["exit.code"]) == (command["eventId"], 2)
    assert (shell_exit["eventId"], shell_exit["exit.signal"]) == (shell["eventId"], 9)
    assert (last["eventId"], last["session.commands"]) == (access["eventId"], 2)
    assert last["session.duration"] == 1002 * SECOND - access["time.boot"]


@pytest.mark.parametrize(
    ("task", "parent"),
    [
        (inside(WEB, 500, b"/app"), host(499, b"/usr/bin/containerd-shim-runc-v2")),
        (inside(WEB, 700), inside(WEB, 500)),
        (
            replace(inside(WEB, 700), cgroup=WEB.cgroup.encode() + b"/system.slice/a"),
            inside(WEB, 1),
        ),
        (host(700, b"/usr/bin/kubelet", b"/system.slice/kubelet.service"), host(1, b"/sbin/init")),
    ],
    ids=["first process", "child", "service of a systemd inside", "service of the host"],
)
def test_what_is_no_access_is_dropped_and_said_no_more_of(task: Any, parent: Any) -> None:
    watched = tracker(WEB)

    outcome = play(watched, run(7, task, parent, entry=True), run(7, task, parent))

    assert (outcome.records, outcome.drops, outcome.dismissed) == ([], [7], 2)


@pytest.mark.parametrize("file", [RUNC, b"/", b"/memfd:runc_cloned:/proc/self/exe (deleted)"])
def test_the_runtimes_own_stages_are_no_commands(file: bytes) -> None:
    stage = replace(host(900, file), cgroup=WEB.cgroup.encode())
    watched = tracker(WEB)
    first = run(1, stage, host(899), "runc", "init", entry=True)
    # The bpf sensor opens an inner session where a process of one moves on.
    second = run(2, inside(WEB, 900), host(899), "sh", entry=True, outer=1)

    outcome = play(watched, first, second, leave(1, host(900)), end(2), end(1))

    assert kinds(outcome.records) == ["Kubernetes", "Command", "SessionEnd"]
    assert (outcome.drops, outcome.dismissed) == ([], 1)
    assert watched.open_sessions == 0


def test_a_start_by_way_of_a_stage_is_no_access() -> None:
    stage = replace(host(499, b"/"), cgroup=WEB.cgroup.encode())
    conmon = host(498, b"/usr/bin/conmon")
    first = run(1, stage, host(497), "runc", "init", entry=True)
    second = run(2, inside(WEB, 500), conmon, "app", entry=True, outer=1)

    outcome = play(tracker(WEB), first, second, end(2), end(1))

    assert (outcome.records, outcome.drops, outcome.dismissed) == ([], [2], 2)


def test_a_stage_may_go_on_in_the_same_session() -> None:
    stage = replace(host(900), cgroup=WEB.cgroup.encode())
    first = run(1, stage, host(899), "runc", "init", entry=True)

    outcome = play(tracker(WEB), first, run(1, inside(WEB, 900), host(899), "sh"), end(1))

    assert kinds(outcome.records) == ["Kubernetes", "Command", "SessionEnd"]


@pytest.mark.parametrize("executable", [RUNC, b"/memfd:runc_cloned:/proc/self/exe (deleted)"])
def test_a_command_that_calls_itself_as_the_runtime_is_recorded(executable: bytes) -> None:
    event = enter(WEB, 900, "runc", "init", executable=executable)

    assert kinds(play(tracker(WEB), event).records) == ["Kubernetes", "Command"]


def test_moving_inside_a_session_stays_in_it() -> None:
    moved = replace(inside(WEB, 901), mount_namespace=4026539999)
    watched = tracker(WEB)

    outcome = play(
        watched,
        enter(WEB, 900, "sh"),
        run(2, moved, SHELL, "sh", "-c", "id", entry=True, outer=1),
        run(2, replace(moved, pid=902, start=9020), moved, "id"),
        end(2),
        end(1),
    )

    records = check(outcome.records)
    assert [record["kind"] for record in records] == [
        "Kubernetes",
        *["Command"] * 3,
        "SessionEnd",
    ]
    assert len({record["traceId"] for record in records}) == 1
    assert records[3]["parentEventId"] == records[2]["eventId"]
    assert outcome.drops == []


def test_what_moved_inside_a_session_is_forgotten_also_if_its_end_was_lost() -> None:
    watched = tracker(WEB)
    play(watched, enter(WEB, 900, "sh"))
    for number in (2, 3):
        moved = replace(inside(WEB, 900 + number), mount_namespace=4026539999)
        play(watched, run(number, moved, SHELL, "sh", entry=True, outer=1))

    live = [LiveSession(1, [SHELL]), LiveSession(3, [inside(WEB, 903)])]
    watched.recover(live, 1000.0)
    assert {*watched._inner} == {2, 3}
    assert watched.tick(1002.0).records == []

    assert watched._inner == {3: 1}


def test_from_one_container_into_another_is_an_access_of_its_own() -> None:
    other = replace(WEB, id="b" * 64, cgroup="/kubepods/b", init_pid=600, mount_namespace=77)
    intruder = replace(inside(WEB, 901), mount_namespace=77, pid_namespace=other.pid_namespace)

    outcome = play(
        tracker(WEB, other),
        enter(WEB, 900, "sh"),
        run(2, intruder, SHELL, "sh", entry=True, outer=1),
    )

    records = check(outcome.records)
    assert [record["kind"] for record in records] == ["Kubernetes", "Command"] * 2
    assert records[2]["entry.type"] == "nsenter"
    assert records[2]["traceId"] != records[0]["traceId"]


def test_an_orphan_that_its_pods_pause_process_adopts_is_no_access() -> None:
    pause = replace(WEB, id="c" * 64, kind="sandbox", cgroup="/kubepods/c", init_pid=400)
    shared = replace(WEB, shares_pids=True)
    pause = replace(pause, mount_namespace=88)
    event = run(1, inside(shared, 900), inside(pause, 400, b"/pause"), entry=True)

    assert play(tracker(shared, pause), event).drops == [1]


def test_parents_that_only_forked_are_passed_over() -> None:
    parents = {950: 949, 949: 900}
    watched = tracker(WEB, parent_of=lambda pid: parents.get(pid, 0))
    subshell = inside(WEB, 950)

    records = check(
        play(
            watched,
            enter(WEB, 900, "sh"),
            run(1, inside(WEB, 951), subshell, "id"),
            run(1, inside(WEB, 952), subshell, "id"),
            run(1, inside(WEB, 953), inside(WEB, 20), "id"),
        ).records
    )

    access, shell, *others = records
    assert [record["parentEventId"] for record in others] == [
        shell["eventId"],
        shell["eventId"],
        access["eventId"],
    ]


def test_who_stands_above_need_not_be_looked_for_where_the_sensor_knows() -> None:
    subshell = inside(WEB, 950)
    above = {"above_pid": 900, "above_start": 9000}
    records = check(
        play(
            tracker(WEB),
            enter(WEB, 900, "sh"),
            run(1, inside(WEB, 951), subshell, "id", **above),
            run(1, inside(WEB, 952), subshell, "id", **above | {"above_start": 9001}),
            leave(1, SHELL),
            run(1, inside(WEB, 953), subshell, "id", **above),
        ).records
    )

    access, shell, first, another, _, late = records
    assert (first["parentEventId"], first["process.parentname"]) == (shell["eventId"], "sh")
    assert another["parentEventId"] == late["parentEventId"] == access["eventId"]


def test_an_exec_in_place_follows_from_what_the_process_ran_before() -> None:
    records = check(
        play(tracker(WEB), enter(WEB, 900, "sh"), run(1, SHELL, host(899), "bash")).records
    )

    assert records[2]["parentEventId"] == records[1]["eventId"]


def test_a_pid_that_is_used_again_is_another_process() -> None:
    again = replace(LS, start=LS.start + 5)

    records = check(
        play(
            tracker(WEB),
            enter(WEB, 900, "sh"),
            run(1, LS, SHELL, "ls"),
            run(1, again, SHELL, "id"),
            leave(1, LS),
            leave(1, again),
        ).records
    )

    assert records[3]["parentEventId"] == records[1]["eventId"]
    assert records[4]["process.unseen"]
    assert records[5]["eventId"] == records[3]["eventId"]


def test_two_sessions_in_one_container_stay_apart() -> None:
    other = inside(WEB, 910)
    events = [
        enter(WEB, 900, "sh", session=1),
        enter(WEB, 910, "sh", session=2),
        run(1, LS, SHELL, "ls"),
        run(2, inside(WEB, 911), other, "id"),
        end(1),
        end(2),
    ]

    records = check(play(tracker(WEB), *events).records)

    traces = [record["traceId"] for record in records]
    assert traces == [traces[0]] * 2 + [traces[2]] * 2 + [traces[0], traces[2]] * 2
    assert traces[0] != traces[2]


class TestUnknownContainer:
    def test_is_waited_for(self) -> None:
        index = Index(named=[WEB.id])
        watched = tracker(index=index)
        assert play(watched, *session_of_ls()[:3]).records == []
        assert watched.next_due() == 1002.0

        index.containers.append(WEB)
        records = check(watched.tick(1001.0).records)

        assert [record["kind"] for record in records] == [
            "Kubernetes",
            "Command",
            "Command",
            "CommandExit",
        ]
        assert records[0]["k8s.pod.name"] == "web-7d9c5b6f4-abcde"

    def test_is_recorded_in_the_end(self) -> None:
        watched = tracker(index=Index(named=[WEB.id]))
        play(watched, *session_of_ls())

        assert watched.tick(1001.9).records == []
        records = check(watched.tick(1002.0).records)

        assert len(records) == 6
        assert records[0]["container.unresolved"]
        assert records[0]["container.id"] == WEB.id
        assert records[0]["entry.confidence"] < 1
        assert not any(field.startswith("k8s.") for record in records for field in record)

    def test_turns_out_to_have_started(self) -> None:
        index = Index(replace(WEB, init_pid=0))
        watched = tracker(index=index)
        play(watched, run(1, inside(WEB, 500), host(499, b"/usr/bin/conmon"), entry=True))

        index.containers[:] = [WEB]

        assert watched.tick(1000.5).drops == [1]

    def test_never_holds_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sessions, "_WAITING", 100 << 10)
        watched = tracker(index=Index(named=[WEB.id]))
        many = [run(1, inside(WEB, pid), SHELL, str(pid)) for pid in range(1000, 1150)]

        outcome = play(watched, enter(WEB, 900, "sh"), *many)

        assert kinds(outcome.records).count("Command") == 151
        assert watched._waiting == 0

    @pytest.mark.parametrize(("letter", "kept"), [("x", 90), ("\1", 14)])
    def test_never_holds_too_much_text(self, letter: str, kept: int) -> None:
        """Nor what becomes too much in records, where a control character takes six."""
        watched = tracker(index=Index(named=[WEB.id]))
        many = [
            run(1, inside(WEB, pid), SHELL, f"{pid}" + letter * 32_000) for pid in range(1000, 1300)
        ]

        few = play(watched, enter(WEB, 900, "sh"), *many[:kept])
        more = play(watched, *many[kept : 2 * kept])
        rest = play(watched, *many[2 * kept :])

        assert few.records == []
        assert kinds(more.records + rest.records).count("Command") == 301
        assert more.records

    def test_is_written_before_the_agent_stops(self) -> None:
        watched = tracker(index=Index(named=[WEB.id]))
        play(watched, *session_of_ls())

        assert len(watched.flush(1000.1).records) == 6


def test_an_exec_of_which_nothing_is_known_is_recorded() -> None:
    nowhere = replace(inside(WEB, 900), cgroup=b"", mount_namespace=0, pid_namespace=0)
    watched = tracker(WEB)
    play(watched, run(1, nowhere, host(899, b""), entry=True, unknown={"cgroup": "it was gone"}))

    records = check(watched.tick(1003.0).records)

    assert records[0]["container.unresolved"]
    assert records[1]["unknown"] == ["cgroup: it was gone"]


def test_a_session_whose_entry_was_lost_is_recovered() -> None:
    records = check(play(tracker(WEB), run(5, LS, SHELL, "ls"), end(5)).records)

    assert [record["kind"] for record in records] == ["Kubernetes", "Command", "SessionEnd"]
    assert records[0]["recovered"]
    assert records[0]["entry.type"] == "unknown"


def test_a_flood_is_collapsed_and_counted() -> None:
    watched = tracker(WEB)
    flood = [
        run(1, inside(WEB, pid), SHELL, "true", time=1000 * SECOND + pid * 1000)
        for pid in range(1000, 1500)
    ]
    child = run(1, inside(WEB, 2000), inside(WEB, 1499), "id", time=1000 * SECOND + 1_600_000)
    gone = [leave(1, event.task) for event in flood]
    later = run(1, inside(WEB, 2001), SHELL, "true", time=1002 * SECOND)

    outcome = play(watched, enter(WEB, 900, "sh"), *flood, child, *gone, later, end(1))

    records = check(outcome.records)
    commands = [record for record in records if record["kind"] == "Command"]
    (collapsed,) = [record for record in records if record["kind"] == "Throttle"]
    assert len(commands) == 1 + 20 + 1 + 1
    assert collapsed["throttle.count"] == 480
    assert collapsed["process.args"] == ["true"]
    assert collapsed["throttle.toBoot"] == flood[-1].time
    assert collapsed["parentEventId"] == commands[0]["eventId"]
    assert commands[21]["parentEventId"] == collapsed["eventId"]
    assert [record["kind"] for record in records].count("CommandExit") == 20
    assert records[-1]["session.commands"] == 503


def test_a_flood_is_told_of_without_a_further_event() -> None:
    watched = tracker(WEB)
    many = [run(1, inside(WEB, pid), SHELL, "true") for pid in range(1000, 1030)]
    play(watched, enter(WEB, 900, "sh"), *many)

    due = watched.next_due()

    assert due is not None
    assert 1000 < due < 1001.1
    assert kinds(watched.tick(due).records) == ["Throttle"]
    assert watched.next_due() is None


def test_of_a_flood_of_long_arguments_little_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floods, "_KEPT", 100_000)
    watched = tracker(WEB)
    begun = 1000 * SECOND
    play(watched, enter(WEB, 900, "sh"))
    records = []
    for at in range(10 * 25):
        words = "x" * 30_000, str(at // 25)
        event = run(1, inside(WEB, 1000 + at), SHELL, "true", *words, time=begun + at)
        records += play(watched, event).records
        kept = watched._sessions[1].flood._collapsed.values()
        assert sum(len(one.first.argv) for one in kept) < 150_000
    records += watched.tick(1001.5).records

    told = check(records)
    counts = [one["throttle.count"] for one in told if one["kind"] == "Throttle"]
    assert len(counts) == 10
    assert kinds(records).count("Command") + sum(counts) == 250
    assert watched.next_due() is None


def probe(session: int, pid: int, time: int = 0) -> list[Any]:
    task = inside(WEB, pid, b"/bin/cat")
    entry = enter(
        WEB,
        pid,
        "cat",
        "/run/ok",
        session=session,
        tty=None,
        time=time,
        executable=b"/bin/cat",
    )
    return [entry, leave(session, task, 1 << 8 if session == 2 else 0), end(session)]


def test_probes_are_counted_by_the_hour() -> None:
    watched = tracker(WEB)
    outcome = play(watched, *probe(1, 900), *probe(2, 901), *probe(3, 902))
    assert outcome.records == []
    assert watched.tick(4599.9).records == []

    (record,) = check(watched.tick(4600.1).records)

    assert record["throttle.reason"] == "probe"
    assert record["throttle.probe"] == "liveness"
    assert record["process.args"] == ["cat", "/run/ok"]
    assert [record[f"throttle.{name}"] for name in ("count", "runs", "failures")] == [3, 3, 1]


def test_probes_are_recorded_in_full_if_asked_for() -> None:
    records = check(play(tracker(WEB, probes="full"), *probe(1, 900)).records)

    assert [record["kind"] for record in records] == [
        "Kubernetes",
        "Command",
        "CommandExit",
        "SessionEnd",
    ]
    assert records[0]["entry.type"] == "probe"


class TestEverything:
    def test_records_what_workloads_run(self) -> None:
        worker = inside(WEB, 700, b"/app/worker")
        started = run(3, inside(WEB, 500, b"/app"), host(499, b"/bin/conmon"), entry=True)
        watched = tracker(WEB, everything=True)

        outcome = play(
            watched,
            started,
            run(0, worker, inside(WEB, 500), "worker"),
            run(0, host(9, b"/bin/ls"), host(8)),
        )

        records = check(outcome.records)
        assert [record["kind"] for record in records] == ["Command", "Command"]
        assert "traceId" not in records[1]
        assert records[1]["parentEventId"] == records[0]["eventId"]
        assert records[1]["k8s.pod.name"] == "web-7d9c5b6f4-abcde"
        assert outcome.dismissed == 1

    def test_collapses_their_floods(self) -> None:
        many = [run(0, inside(WEB, pid), inside(WEB, 500), "true") for pid in range(1000, 1100)]
        watched = tracker(WEB, everything=True)

        outcome = play(watched, *many)
        rest = check(watched.tick(1002.0).records)

        assert kinds(outcome.records) == ["Command"] * 20
        assert rest[0]["throttle.count"] == 80

    def test_remembers_who_starts_programs_longer_than_these(self) -> None:
        shell = inside(WEB, 700)
        watched = tracker(WEB, everything=True)
        first = run(0, shell, inside(WEB, 500), "sh")
        many = [run(0, inside(WEB, pid), shell, str(pid)) for pid in range(1000, 1600)]

        above, *below = check(play(watched, first, *many).records)

        assert {record["parentEventId"] for record in below} == {above["eventId"]}
        (kept,) = watched._workloads._sessions.values()
        assert len(kept.processes) == 256

    def test_remembers_no_more_of_many_containers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workloads, "_EACH", 30)
        monkeypatch.setattr(workloads, "_ALL", 100)
        many = [
            replace(WEB, id=f"{at:064x}", cgroup=f"/pod/{at:064x}", mount_namespace=at)
            for at in range(1, 11)
        ]
        watched = tracker(*many, everything=True)
        for at in range(400):
            task = inside(many[at // 40], 1000 + at)
            play(watched, run(0, task, host(1), str(at)))
        play(watched, run(0, inside(many[7], 2000), inside(many[7], 1319), "last"))

        found = watched._workloads._sessions
        assert list(found) == [many[at].id for at in (6, 8, 9, 7)]
        assert [len(one.processes) for one in found.values()] == [30] * 4


class TestRestart:
    def restarted(
        self, old: SessionTracker, *containers: Container, comm: bytes = b""
    ) -> SessionTracker:
        new = tracker(*containers, comm_of=lambda _pid: comm)
        assert new.restore(json.loads(json.dumps(old.snapshot())))
        return new

    def test_goes_on_with_the_session(self) -> None:
        old = tracker(WEB)
        before = check(play(old, enter(WEB, 900, "sh")).records)
        new = self.restarted(old, WEB)

        new.recover([LiveSession(1, [SHELL])], 1000.0)
        after = check(play(new, *session_of_ls()[1:]).records)

        assert {record["traceId"] for record in after} == {before[0]["traceId"]}
        assert after[0]["parentEventId"] == before[1]["eventId"]
        assert after[-1]["session.commands"] == 2
        assert "recovered" not in after[-1]

    @pytest.mark.parametrize(
        ("name", "comm", "same"),
        [
            ("sh", b"sh", True),
            ("sh", b"", True),
            ("sh", b"bash", False),
            ("bash", b"bas", False),
            ("eighteen-bytes-long", b"eighteen-bytes-", True),
            ("ééééééééé", "ééééééééé".encode()[:15], True),
        ],
    )
    def test_knows_a_process_by_what_it_runs(self, name: str, comm: bytes, *, same: bool) -> None:
        old = tracker(WEB)
        entry = enter(WEB, 900, name, filename=b"/bin/" + name.encode())
        access, before = check(play(old, entry).records)
        new = self.restarted(old, WEB, comm=comm)

        ls = run(1, LS, SHELL, "ls", above_pid=900, above_start=9000)
        command, gone = check(play(new, ls, leave(1, SHELL)).records)

        if same:
            assert command["parentEventId"] == gone["eventId"] == before["eventId"]
            assert command["process.parentname"] == gone["process.name"] == name
        else:
            assert command["parentEventId"] == access["eventId"]
            assert gone["process.unseen"]
            assert gone["eventId"] not in {access["eventId"], before["eventId"]}
            assert not {"process.parentname", "process.name"} & {*gone}
            assert "process.parentname" not in command

    def test_leaves_no_more_than_the_next_one_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(returning, "_ROOM", 60_000)
        old = tracker(WEB)
        for number in (1, 2, 3):
            name = b"/" + b"\x01" * 255 if number < 3 else b"/bin/sleep"
            play(old, enter(WEB, number * 100, "sh", session=number))
            for pid in range(number * 1000, number * 1000 + 100):
                play(old, run(number, inside(WEB, pid), SHELL, str(pid), filename=name))
        saved = old.snapshot()

        assert len(json.dumps(saved)) < 2 * 60_000
        kept = {one["number"]: [each[0] for each in one["processes"]] for one in saved["sessions"]}
        assert kept == {
            1: [*range(1088, 1100)],
            2: [*range(2088, 2100)],
            3: [300, *range(3000, 3100)],
        }

    def test_leaves_out_a_session_that_there_is_no_room_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(returning, "_ROOM", 2_000)
        long = replace(WEB.probes[0], command=("cat", "x" * 5000))
        old = tracker(replace(WEB, probes=(long,)))
        other = enter(WEB, 910, *long.command, session=2, tty=None, executable=b"/bin/cat")
        play(old, enter(WEB, 900, "sh"), other, enter(WEB, 920, "sh", session=3))

        assert [one["number"] for one in old.snapshot()["sessions"]] == [1, 3]

    def test_ends_what_ended_meanwhile(self) -> None:
        old = tracker(WEB)
        play(old, enter(WEB, 900, "sh"))
        new = self.restarted(old, WEB)

        assert new.recover([], 1000.0).records == []
        (record,) = check(new.tick(1002.0).records)

        assert record["session.endUnseen"]

    def test_takes_an_end_that_waited_in_the_sensor(self) -> None:
        old = tracker(WEB)
        play(old, enter(WEB, 900, "sh"))
        new = self.restarted(old, WEB)
        new.recover([], 1000.0)

        assert kinds(play(new, end(1)).records) == ["SessionEnd"]
        assert new.tick(1003.0).records == []

    def test_recovers_what_nobody_knows(self) -> None:
        new = tracker(WEB)

        assert new.recover([LiveSession(1, [LS, SHELL])], 1000.0).records == []
        records = check([*new.tick(1002.0).records, *play(new, run(1, LS, SHELL, "ls")).records])

        assert records[0]["recovered"]
        assert records[0]["k8s.pod.name"] == "web-7d9c5b6f4-abcde"
        assert records[1]["traceId"] == records[0]["traceId"]

    def test_finds_the_entry_in_the_sensor(self) -> None:
        new = tracker(WEB)
        new.recover([LiveSession(1, [SHELL])], 1000.0)

        records = check(play(new, enter(WEB, 900, "sh")).records)

        assert "recovered" not in records[0]
        assert new.tick(1003.0).records == []

    @pytest.mark.parametrize("task", [inside(WEB, 500), host(30)], ids=["container", "host"])
    def test_lets_go_of_what_is_no_access(self, task: Any) -> None:
        new = tracker(WEB)
        new.recover([LiveSession(1, [task])], 1000.0)

        assert new.tick(1002.0).drops == [1]

    def test_keeps_what_somebody_began_by_starting_it_though_nobody_says_what_it_is(self) -> None:
        index = Index(replace(WEB, interactive=True))
        index.uncertain = {WEB.id}
        new = tracker(index=index)
        new.recover([LiveSession(1, [inside(WEB, 500)])], 1000.0)

        assert kinds(new.tick(1002.0).records) == ["Kubernetes"]

    def test_remembers_what_was_dropped(self) -> None:
        old = tracker(WEB)
        play(old, run(1, inside(WEB, 500), host(499), entry=True))
        new = self.restarted(old, WEB)

        assert new.recover([LiveSession(1, [SHELL])], 1000.0).drops == [1]
        assert play(new, run(1, LS, SHELL)).dismissed == 1

    def test_tells_of_what_was_found_at_once(self) -> None:
        new = tracker(WEB)

        records = check(new.adopt([[host(30)], [SHELL]], [0, 1], 1000.0).records)
        records += check([*play(new, run(1, LS, SHELL, "ls"), end(1)).records])

        assert [record["kind"] for record in records] == ["Kubernetes", "Command", "SessionEnd"]
        assert records[0]["recovered"]
        assert len({record["traceId"] for record in records}) == 1

    @pytest.mark.parametrize(
        "saved",
        [
            {},
            {"boot": "another"},
            {"boot": "3f2a91c0-7b1e-4c55-9d2b-6a1f0e8d7c6b"},
            {
                "boot": "3f2a91c0-7b1e-4c55-9d2b-6a1f0e8d7c6b",
                "sessions": [{"number": "x"}],
                "inner": 3,
                "dropped": None,
            },
        ],
    )
    def test_does_without_a_state_that_is_none(self, saved: dict[str, Any]) -> None:
        assert not tracker(WEB).restore(saved)


def test_exits_of_what_nobody_saw_are_told() -> None:
    stray = ExitEvent(1001 * SECOND, 1, 4242, 42420, 0)

    records = check(play(tracker(WEB), enter(WEB, 900, "sh"), stray).records)

    assert records[2]["process.unseen"]


class TestAnAccessToAPodThatIsNotDescribedYet:
    def held(self) -> tuple[SessionTracker, Index]:
        index = Index(replace(WEB, probes=(), pod=replace(WEB.pod, labels=None)))
        index.uncertain = {WEB.id}
        watched = tracker(index=index, probes="full")
        assert watched.handle([enter(WEB, 900, "cat", "/run/ok", tty=None)], 10.0).records == []
        return watched, index

    def test_waits_for_labels_and_probes(self) -> None:
        watched, index = self.held()
        assert watched.tick(11.9).records == []
        index.containers, index.uncertain = [WEB], set()

        (access, _) = check(watched.tick(11.9).records)
        assert (access["k8s.pod.labels"], access["entry.type"]) == ({"app": "web"}, "probe")

    def test_is_told_without_them_if_nobody_answers(self) -> None:
        watched, _ = self.held()

        (access, _) = check(watched.tick(12.0).records)
        assert "k8s.pod.labels" not in access
        assert access["entry.type"] == "exec"


class TestAStartOfAKindThatIsNotKnownYet:
    """kubectl debug's containers are started before anybody has said what they are."""

    def begun(self, container: Container = WEB) -> tuple[SessionTracker, Index]:
        index = Index(container)
        index.uncertain = {WEB.id}
        watched = tracker(index=index)
        outcome = watched.handle([run(1, inside(WEB, 500), host(499), "sh", entry=True)], 10.0)
        assert (outcome.records, outcome.drops) == ([], [])
        return watched, index

    def test_becomes_an_access_when_it_is_ephemeral(self) -> None:
        watched, index = self.begun()
        index.containers = [replace(WEB, kind="ephemeral")]
        index.uncertain = set()

        assert kinds(watched.tick(10.5).records) == ["Kubernetes", "Command"]

    def test_with_a_terminal_is_not_taken_for_another_that_has_one(self) -> None:
        watched, index = self.begun(replace(WEB, interactive=True))
        index.containers = [replace(WEB, kind="ephemeral", interactive=True)]
        index.uncertain = set()

        (access, _) = check(watched.tick(10.5).records)
        assert (access["entry.type"], access["entry.confidence"]) == ("ephemeral-container", 1)

    def test_with_a_terminal_is_an_access_also_when_nobody_says(self) -> None:
        watched, _ = self.begun(replace(WEB, interactive=True))

        assert watched.tick(11.9).records == []
        (access, _) = check(watched.tick(12.0).records)
        assert (access["entry.type"], access["entry.confidence"]) == ("interactive-container", 0.6)

    @pytest.mark.parametrize("certain", [True, False])
    def test_is_the_containers_own_when_it_is_another_or_nobody_says(
        self, *, certain: bool
    ) -> None:
        watched, index = self.begun()
        index.uncertain = set() if certain else {WEB.id}
        outcome = watched.tick(10.5 if certain else 12.5)

        assert (outcome.records, outcome.drops, outcome.dismissed) == ([], [1], 1)
