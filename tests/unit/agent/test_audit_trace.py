"""Sessions kept in user space, with a made-up node in place of /proc."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.audit.connector import Exec, Exit, Fork
from exectrail_agent.audit.parse import Arguments, Call, Caller, Stamp
from exectrail_agent.audit.trace import PATIENCE_SECONDS, Trace
from exectrail_agent.events import EndEvent, Event, ExecEvent, ExitEvent, Task
from exectrail_agent.proc import Place, ProcReader, Standing

HOST = Place(b"0::/\n", 1, 1)
INSIDE = Place(b"0::/box\n", 2, 2)
MILLISECOND = 1_000_000


class Node(ProcReader):
    """A /proc of a few processes; all but pid 1 are made by `Story`."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.places: dict[int, Place] = {1: HOST}
        self.parents: dict[int, int] = {1: 0}
        self.lingering: set[int] = set()

    def pids(self) -> Iterator[int]:
        return iter(list(self.parents))

    def place(self, pid: int) -> Place | None:
        return self.places.get(pid)

    def standing(self, pid: int) -> Standing | None:
        if pid in self.lingering:
            return Standing(self.parents[pid], 0, 2, dead=True)
        return Standing(self.parents[pid], 0, 1, dead=False) if pid in self.parents else None

    def name(self, pid: int) -> tuple[bytes, bytes]:
        return (b"/bin/p%d" % pid, b"p%d" % pid) if pid in self.parents else (b"", b"")

    def program(self, pid: int) -> tuple[dict[bytes, bytes], bytes] | None:
        if pid not in self.parents:
            return None
        executable, comm = (text.hex().encode() for text in self.name(pid))
        return {b"exe": executable, b"comm": comm, b"uid": b"7"}, b"p\0now\0"

    def audit_ids(self, pid: int) -> Mapping[bytes, bytes] | None:
        return {b"SPO_EXEC_REQUEST_UID": b"u"} if pid in self.parents else None


class Story:
    """Lets processes live; the connector tells of it at once, audit when it is asked to."""

    def __init__(self, *, everything: bool = False, cause: str = "exec-gap") -> None:
        self.node = Node()
        self.now = 0.0
        self.records: list[tuple[str, int, int, int]] = []
        self.runtimes: set[int] = set()
        self._parents: dict[int, int] = {}
        self._time = count(MILLISECOND, MILLISECOND)
        self._serial = count(1)
        self.trace = Trace(
            self.node, lambda: next(self._serial) + 100, lambda: cause, everything=everything
        )

    def fork(self, parent: int, child: int, *, waited_for_by: int = 0) -> None:
        self.node.parents[child] = waited_for_by or parent
        self.node.places[child] = self.node.places[parent]
        self.trace.proc(Fork(next(self._time), waited_for_by or parent, child), self.now)

    def cross(self, pid: int, place: Place = INSIDE) -> None:
        self.node.places[pid] = place
        self.records.append(("setns", pid, next(self._serial), next(self._time)))
        self._parents[pid] = self.node.parents[pid]

    def exec(self, pid: int, *, seen: bool = True) -> None:
        time = next(self._time)
        self.records.append(("execve", pid, next(self._serial), time))
        hidden = None if seen else self.node.places.pop(pid)
        self.trace.proc(Exec(time, pid), self.now)
        if hidden:
            self.node.places[pid] = hidden

    def exit(self, pid: int, status: int = 0) -> None:
        if pid not in self.node.lingering:
            self.node.parents.pop(pid)
            self.node.places.pop(pid, None)
        self.trace.proc(Exit(next(self._time), pid, status), self.now)

    def audit(self) -> list[Event]:
        for name, pid, serial, time in self.records:
            caller = Caller(pid, self._parents.get(pid, 0), pid in self.runtimes)
            if self.trace.wants(name, caller, serial, time, self.now):
                arguments = Arguments()
                arguments.add(b'argc=1 a0="s%d"' % serial)
                told = {b"exe": b'"/bin/p%d"' % pid, b"comm": b'"p"', b"tty": b"(none)"}
                told.update(dict.fromkeys((b"uid", b"gid", b"auid", b"ses"), b"0"))
                stamp = Stamp(time, serial)
                self.trace.call(
                    Call(stamp, 0.0, name, pid, told, arguments, b"/", b"/f", 42, complete=True)
                )
        self.records.clear()
        return self.trace.take(self.now)

    def late(self) -> list[Event]:
        self.now += PATIENCE_SECONDS + 1
        return self.trace.take(self.now)


def kinds(events: list[Event]) -> list[tuple[str, int]]:
    names: Mapping[type, Callable[[Event], tuple[str, int]]] = {
        ExecEvent: lambda one: ("entry" if one.entry else "exec", one.task.pid),  # type: ignore[union-attr]
        ExitEvent: lambda one: ("exit", one.pid),  # type: ignore[union-attr]
        EndEvent: lambda _: ("end", 0),
    }
    return [names[type(one)](one) for one in events]


def entered(story: Story, pid: int = 10) -> int:
    """Let a process go into the container and run a program there."""
    story.fork(1, pid)
    story.cross(pid)
    story.exec(pid)
    (entry,) = story.audit()
    assert isinstance(entry, ExecEvent)
    return entry.session


def test_a_workloads_own_execs_are_not_told() -> None:
    story = Story()
    for pid in (10, 11):
        story.fork(1, pid)
        story.exec(pid)
        story.exec(pid)
        story.exit(pid)

    assert story.audit() == []
    assert story.late() == []
    assert not story.trace.lost


def test_a_session_from_its_entry_to_its_end() -> None:
    story = Story()
    entered(story)
    story.fork(10, 11)
    story.exec(11)
    story.fork(11, 12)
    story.fork(12, 13)  # A daemon: its parents are gone before it runs anything.
    story.exit(12)
    story.exit(11, 256)
    story.exec(13)
    story.exit(10, 9)

    assert kinds(story.audit()) == [("exec", 11), ("exit", 11), ("exec", 13), ("exit", 10)]
    story.exit(13)
    (last, end) = story.audit()
    assert kinds([last, end]) == [("exit", 13), ("end", 0)]
    assert not story.trace.lost


def test_an_entry_tells_where_it_came_from() -> None:
    story = Story()
    story.fork(1, 10)
    story.cross(10)
    story.exec(10)

    (entry,) = story.audit()

    assert isinstance(entry, ExecEvent)
    assert (entry.task.cgroup, entry.task.mount_namespace) == (b"/box", 2)
    assert (entry.parent.pid, entry.parent.cgroup, entry.parent.executable) == (1, b"/", b"/bin/p1")
    assert entry.environment == {b"SPO_EXEC_REQUEST_UID": b"u"}
    assert not entry.unknown


def test_the_program_that_crosses_is_not_the_entry_nor_are_its_records() -> None:
    story = Story()
    story.fork(1, 10)
    story.exec(10)
    serial = story.records[-1][2]
    story.cross(10)
    story.exec(10)

    (entry,) = story.audit()

    assert isinstance(entry, ExecEvent)
    assert entry.argv != b"s%d\0" % serial


@pytest.mark.parametrize("forks", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
def test_who_is_seen_inside_only_because_that_was_read_late_is_no_entry(
    forks: bool,  # noqa: FBT001
    at_once: bool,  # noqa: FBT001
) -> None:
    """As nsenter: it goes in after its own start, before anybody has looked where it is."""
    story, last = Story(), 11 if forks else 10
    story.fork(1, 10)
    story.node.places[10] = INSIDE
    story.exec(10)
    story.cross(10)
    if not at_once:
        assert story.audit() == []
    if forks:
        story.fork(10, 11)
    story.exec(last)
    serial = story.records[-1][2]

    (entry,) = story.audit()

    assert isinstance(entry, ExecEvent)
    assert (entry.entry, entry.task.pid, entry.argv) == (True, last, b"s%d\0" % serial)
    assert (entry.outer, entry.task.cgroup) == (0, b"/box")
    for pid in {10, last}:
        story.exit(pid)
    assert kinds(story.audit()) == [("exit", last), ("end", 0)]
    assert not story.trace.lost


def test_who_is_seen_on_its_way_into_several_namespaces_enters_once() -> None:
    story = Story()
    story.fork(1, 10)
    story.node.places[10] = replace(INSIDE, pid_namespace=1)
    story.exec(10)
    story.cross(10, replace(INSIDE, pid_namespace=1))
    story.fork(10, 11)
    story.node.places[11] = INSIDE
    story.exec(11)

    (entry,) = story.audit()

    assert isinstance(entry, ExecEvent)
    assert (entry.entry, entry.task.pid, entry.outer) == (True, 11, 0)


def test_an_access_that_was_gone_too_soon_has_what_tells_its_container() -> None:
    story = Story()
    story.fork(1, 9)
    story.exec(9)
    runtime = story.records[-1]
    story.fork(9, 10)
    story.cross(10)
    story.exit(9)
    story.exec(10, seen=False)
    story.exit(10)
    story.runtimes.add(runtime[1])

    entry = story.audit()[0]

    assert isinstance(entry, ExecEvent)
    assert entry.through == b"s%d\0" % runtime[2]
    assert entry.parent.executable == b"/bin/p9"
    assert entry.device == 42
    assert not entry.task.cgroup


def test_an_entry_that_was_gone_too_soon_is_told_if_a_crossing_was_seen() -> None:
    story = Story()
    story.fork(1, 10)
    story.cross(10)
    story.exec(10, seen=False)
    story.exit(10)

    told = story.audit()

    assert kinds(told) == [("entry", 10), ("exit", 10), ("end", 0)]
    assert isinstance(told[0], ExecEvent)
    assert {"task.cgroup", "task.mount_namespace"} <= {*told[0].unknown}


def test_who_is_born_inside_by_another_is_seen_too() -> None:
    """As runc does it: a helper goes in and makes the process that its own parent waits for."""
    story = Story()
    story.fork(1, 9)
    story.fork(9, 10)
    story.cross(10)
    story.audit()
    story.fork(10, 11, waited_for_by=9)
    story.exit(10)
    story.exec(11, seen=False)
    story.exit(11)

    told = story.audit()

    assert kinds(told) == [("entry", 11), ("exit", 11), ("end", 0)]
    assert isinstance(told[0], ExecEvent)
    assert told[0].task.cgroup == b"/box"


@pytest.mark.parametrize("seen", [False, True])
def test_the_program_that_crosses_may_be_gone_before_anybody_has_looked(seen: bool) -> None:  # noqa: FBT001
    story = Story()
    story.fork(1, 10)
    story.exec(10, seen=False)
    story.cross(10)
    story.exec(10, seen=seen)
    serial = story.records[-1][2]

    (entry,) = story.audit()

    assert isinstance(entry, ExecEvent)
    assert (entry.entry, entry.argv) == (True, b"s%d\0" % serial)
    assert not story.trace.lost


def test_who_runs_several_programs_too_fast_to_be_seen_enters_nothing() -> None:
    story = Story()
    story.fork(1, 10)
    story.exec(10, seen=False)
    story.fork(10, 11)
    story.exec(11, seen=False)
    story.exec(11)
    story.exec(10)

    assert story.audit() == []
    assert story.late() == []
    assert not story.trace.lost


@pytest.mark.parametrize("seen", [False, True])
def test_who_made_it_may_be_gone_when_audit_tells_that_it_went_in(seen: bool) -> None:  # noqa: FBT001
    story = Story()
    story.runtimes.add(9)
    story.fork(1, 9)
    story.exec(9)
    story.fork(9, 10)
    story.cross(10)
    story.fork(10, 11, waited_for_by=9)
    story.exit(10)
    if seen:  # While the runtime prepares it there is time to look.
        assert story.audit() == []
    story.exec(11, seen=False)
    story.exit(11)

    told = story.audit()

    assert kinds(told) == [("entry", 11), ("exit", 11), ("end", 0)]
    assert isinstance(told[0], ExecEvent)
    assert bool(told[0].task.cgroup) is seen
    assert bool(told[0].through) is not seen


def test_what_was_gone_too_soon_without_a_crossing_is_none() -> None:
    story = Story()
    story.fork(1, 10)
    story.exec(10, seen=False)
    story.exit(10)

    assert story.audit() == []
    assert not story.trace.lost


def test_the_kernels_own_helpers_have_no_records_and_are_no_loss() -> None:
    story = Story()
    for pid, parent in ((2, 1), (3, 2)):
        story.node.parents[pid] = parent
    story.fork(1, 10, waited_for_by=3)
    story.exec(10, seen=False)
    story.records.clear()
    story.exit(10)

    assert story.late() == []
    assert not story.trace.lost


def test_a_dropped_session_is_told_no_more() -> None:
    story = Story()
    session = entered(story)
    story.fork(10, 11)
    story.exec(11)
    story.trace.drop(session)
    story.fork(10, 12)
    story.exec(12)
    story.exit(10)

    assert story.audit() == []
    assert not story.trace.lost


def test_a_session_within_a_session() -> None:
    story = Story()
    outer = entered(story)
    story.fork(10, 11)
    story.cross(11, replace(INSIDE, mount_namespace=3))
    story.exec(11)
    (inner,) = story.audit()
    assert isinstance(inner, ExecEvent)
    assert (inner.entry, inner.outer) == (True, outer)
    story.exit(10)
    assert kinds(story.audit()) == [("exit", 10)]
    story.exit(11)
    assert [(type(one), one.session) for one in story.audit()] == [
        (ExitEvent, inner.session),
        (EndEvent, inner.session),
        (EndEvent, outer),
    ]


def test_whose_parent_is_gone_came_from_where_it_was_itself() -> None:
    story = Story()
    entered(story)
    story.fork(10, 11)
    story.fork(11, 12)
    story.exit(11)
    story.audit()
    story.cross(12, replace(INSIDE, mount_namespace=3))
    story.exec(12)

    inner = story.audit()[0]

    assert isinstance(inner, ExecEvent)
    assert (inner.parent.executable, inner.parent.cgroup) == (b"", b"/box")
    assert inner.parent.mount_namespace == INSIDE.mount_namespace


def test_a_leader_that_goes_before_its_threads_is_no_exit_yet() -> None:
    story = Story()
    entered(story)
    story.node.lingering.add(10)
    story.exit(10)
    assert story.audit() == []

    story.node.lingering.clear()
    del story.node.parents[10]
    assert kinds(story.audit()) == [("exit", 10), ("end", 0)]


def test_a_pid_that_comes_again_at_once_is_another_process() -> None:
    story = Story()
    entered(story)
    story.fork(10, 11)
    story.exec(11)
    told = story.audit()
    # The next one is there before this one's end is told.
    story.trace.proc(Exit(next(story._time), 11, 256), story.now)
    story.fork(10, 11)
    story.exec(11)
    story.exit(11, 512)

    told += story.audit()
    assert [one.status for one in told if isinstance(one, ExitEvent)] == [256, 512]
    assert kinds(told).count(("exec", 11)) == 2


@pytest.mark.parametrize(
    ("threads", "dead", "over"),
    [(1, True, True), (2, True, False), (0, True, False), (1, False, False)],
)
def test_a_process_is_over_when_its_last_thread_is(threads: int, dead: bool, over: bool) -> None:  # noqa: FBT001
    assert Standing(1, 0, threads, dead).over is over


def test_an_exec_by_a_thread_ends_nothing() -> None:
    story = Story()
    entered(story)
    story.node.lingering.add(10)
    story.exit(10)
    story.node.lingering.clear()
    story.exec(10)

    assert kinds(story.audit()) == [("exec", 10)]


def test_an_exec_by_a_thread_of_a_process_that_is_gone_by_now_is_told() -> None:
    story = Story()
    entered(story)
    del story.node.parents[10], story.node.places[10]
    story.trace.proc(Exit(next(story._time), 10, 0), story.now)
    story.exec(10)
    story.trace.proc(Exit(next(story._time), 10, 256), story.now)

    told = story.audit()

    assert kinds(told) == [("exec", 10), ("exit", 10), ("end", 0)]
    assert [one.status for one in told if isinstance(one, ExitEvent)] == [256]
    assert not story.trace.lost


def test_an_exec_without_records_is_lost_and_counted_by_cause() -> None:
    story = Story(cause="exec-backlog")
    entered(story)
    story.fork(10, 11)
    story.exec(11)
    story.records.clear()
    story.exit(11)
    story.exit(10)
    assert story.audit() == []

    assert kinds(story.late()) == [("exit", 10), ("end", 0)]
    assert story.trace.lost == {"exec-backlog": 1}


def test_an_entry_without_records_is_told_with_what_there_is() -> None:
    story = Story()
    story.fork(1, 10)
    story.cross(10)
    story.exec(10)
    story.records.clear()

    (entry,) = story.late()

    assert isinstance(entry, ExecEvent)
    assert entry.entry
    assert entry.task.executable == b"/bin/p10"
    assert (entry.argv, entry.uid) == (b"p\0now\0", 7)
    assert {"argv", "cwd", "gid", "tty"} <= {*entry.unknown}
    assert "uid" not in entry.unknown
    assert not story.trace.lost


def test_a_record_is_not_taken_for_that_of_an_earlier_exec() -> None:
    story = Story()
    entered(story)
    story.exec(10)
    story.records.clear()
    for _ in range(100):
        story.exec(10)
    serials = [serial for _, _, serial, _ in story.records]

    told = [one.argv for one in story.audit() if isinstance(one, ExecEvent)]

    assert told[-1] == b"s%d\0" % serials[-1]
    assert len(told) + sum(story.trace.lost.values()) <= 101


def test_processes_that_the_connector_did_not_tell_of_are_found() -> None:
    story = Story()
    entered(story)
    del story.node.parents[10]
    del story.node.places[10]
    story.node.parents[20], story.node.places[20] = 1, INSIDE
    story.trace.resync()

    assert kinds(story.audit()) == [("end", 0)]
    assert story.trace.lost == {"exit-status": 1}
    story.records.append(("execve", 20, 999, 10**9))
    assert story.audit() == []
    assert kinds(story.late()) == [("entry", 20)]


def test_a_session_from_before_is_followed() -> None:
    story = Story()
    for pid, parent, place in ((5, 1, INSIDE), (6, 5, INSIDE), (7, 1, HOST)):
        story.node.parents[pid], story.node.places[pid] = parent, place
    story.trace.resync()

    number, none, gone = story.trace.adopt([[Task(5), Task(6)], [Task(5)], [Task(99)]])

    assert (none, gone) == (0, 0)
    (live,) = story.trace.live()
    assert live.session == number
    assert [task.pid for task in live.tasks] == [5, 6]
    story.fork(6, 8)
    story.exec(8)
    story.exit(5)
    assert kinds(story.audit()) == [("exec", 8), ("exit", 5)]


def test_everything_is_told_if_asked_for() -> None:
    story = Story(everything=True)
    story.fork(1, 10)
    story.exec(10)
    story.exit(10)

    (only,) = story.audit()
    assert isinstance(only, ExecEvent)
    assert (only.session, only.entry) == (0, False)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(2, 9), st.integers(1, 9)), max_size=60))
def test_every_exec_of_a_session_is_told_or_lost(  # noqa: C901  one branch for each thing that can happen
    steps: list[tuple[int, int, int]],
) -> None:
    story = Story()
    session, execs, ended = entered(story), 0, 0
    members, told = {10}, 0
    for what, pid, other in steps:
        alive = story.node.parents
        if what == 0 and pid not in alive and (other in alive or other == 1):
            parent = 10 if other == 1 and 10 in alive else other
            story.fork(parent, pid)
            if parent in members:
                members.add(pid)
        elif what in {1, 2} and pid in alive:
            story.exec(pid)
            if pid in members:
                execs += 1
                if what == 1:
                    story.records.pop()
        elif what == 3 and pid in alive:
            story.exit(pid)
            members.discard(pid)
        elif what == 4 and 10 in alive:
            story.exit(10)
            members.discard(10)
        elif what == 5:
            events = story.audit()
            told += sum(isinstance(one, ExecEvent) for one in events)
            ended += sum(isinstance(one, EndEvent) for one in events)
    for events in (story.audit(), story.late()):
        assert {one.session for one in events} <= {session}
        told += sum(isinstance(one, ExecEvent) for one in events)
        ended += sum(isinstance(one, EndEvent) for one in events)

    assert told + sum(story.trace.lost.values()) == execs
    assert ended == (not members)
