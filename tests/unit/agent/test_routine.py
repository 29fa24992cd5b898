"""What is told of routine events is what care would have told of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.events import AlikeEvent, Event, ExecEvent, ExitEvent, Task
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.records import NodeIdentity, RecordMaker
from exectrail_agent.sessions import wording
from exectrail_agent.sessions.flood import LIMIT
from exectrail_agent.sessions.tracker import SessionTracker
from tests.unit.agent.world import NODE, SECOND, WEB, Index, clock, end, enter, inside, run

SHELL = inside(WEB, 900)
ENTRY = enter(WEB, 900, "sh")


FORKED = 77
"""A process that has run no program since the shell."""


def watched(node: NodeIdentity = NODE) -> SessionTracker:
    ids = IdSource(milliseconds=lambda: 1_795_132_800_000, random=bytes)
    maker = RecordMaker(node, ids, clock())
    return SessionTracker(maker, Index(WEB), parent_of=lambda pid: 900 if pid == FORKED else 0)


def careful(node: NodeIdentity = NODE) -> SessionTracker:
    """A tracker that takes nothing for routine."""
    one = watched(node)
    one._routine.tell = lambda events, _records: iter(events)  # type: ignore[method-assign]
    return one


class Sensor:
    """Tells alike events as such, as the bpf sensor does."""

    def __init__(self) -> None:
        self.models: dict[str, ExecEvent] = {}

    def tell(self, events: Iterable[Event]) -> list[Event]:
        return [self._tell(event) if isinstance(event, ExecEvent) else event for event in events]

    def _tell(self, event: ExecEvent) -> Event:
        if event.entry or event.unknown or event.argv_cut:
            return event
        task, parent = event.task, event.parent
        alike = replace(
            event,
            task=replace(task, pid=0, start=0, host_pid=0),
            parent=replace(parent, pid=0, start=0, host_pid=0),
            **dict.fromkeys(("time", "argv_size", "above_pid", "above_start"), 0),
            argv=b"",
        )
        model = self.models.setdefault(repr(alike), event)
        if model is event:
            return event
        process = (
            *(event.time, task.start, task.pid, task.host_pid, parent.start),
            *(event.above_start, event.above_pid, parent.pid, parent.host_pid),
        )
        return AlikeEvent(event.session, process, event.argv, model)


def lines(one: SessionTracker, events: Iterable[Event]) -> list[str]:
    records = one.handle(events, 1000.0).records
    return [record.line(number) for number, record in enumerate(records)]


def command(pid: int, *args: bytes | str, above: int = 900, **more: Any) -> ExecEvent:
    """A program below that of the process `above`."""
    executable = more.pop("executable", b"/bin/ls")
    task = replace(inside(WEB, pid, executable), host_pid=pid + 10_000)
    parent = more.pop("parent", inside(WEB, above))
    return run(1, task, parent, *args, above_pid=above, above_start=above * 10, **more)


def over(pid: int, status: int = 0, time: int = 1001 * SECOND) -> ExitEvent:
    return ExitEvent(time, 1, pid, pid * 10, status)


words = st.sampled_from(
    [b"", b"ls", b"./run", b"%s{}", b"\\u0000", b"\xff", b'"', b"\x7f", "é\n".encode(), b"/bin/ls"]
)
kinds = st.fixed_dictionaries(
    {
        "executable": st.sampled_from([b"/bin/ls", b"/bin/busybox", b"/bin/%s", b"/b\x7f"]),
        "filename": st.sampled_from([b"/bin/ls", b"./run", b"/proc/self/fd/3", b""]),
        "cwd": st.sampled_from([b"/", b"/100%", b"/\xff"]),
        "uid": st.integers(0, 1),
        "tty": st.sampled_from([None, (136, 0)]),
        "memfd": st.booleans(),
    }
)


def rarely(draw: st.DrawFn, one: Any, other: Any) -> Any:
    return one if draw(st.integers(0, 9)) == 9 else other


@st.composite
def commands(draw: st.DrawFn, kind: dict[str, Any]) -> ExecEvent:
    more = dict(kind)
    pid = draw(st.integers(901, 930))
    above = 900 if draw(st.booleans()) else draw(st.sampled_from([901, 902, 0]))
    task = Task(
        pid,
        start=pid * 10 + rarely(draw, 1, 0),
        host_pid=draw(st.sampled_from([0, pid, 70])),
        executable=more.pop("executable"),
    )
    event = run(
        1,
        task,
        inside(WEB, rarely(draw, FORKED, above or 900)),
        *draw(st.lists(words, min_size=1, max_size=3)),
        time=1001 * SECOND + rarely(draw, 2 * SECOND, 0),
        above_pid=above,
        above_start=above * 10 + rarely(draw, 1, 0),
        **more,
    )
    argv = event.argv[: rarely(draw, -1, None)]
    return replace(
        event,
        argv=argv,
        argv_size=len(argv),
        argv_cut=rarely(draw, 7, 0),
        unknown=rarely(draw, {"cwd": "missing"}, {}),
    )


exits = st.builds(
    lambda pid, wrong, status, time: ExitEvent(
        1000 * SECOND + time, 1, pid, 0 if wrong == 1 else pid * 10 + wrong, status
    ),
    st.integers(899, 930),
    st.sampled_from([0, 0, 0, 1, 2]),
    st.sampled_from([0, 3 << 8, 9, 0x8B]),
    st.integers(0, 3 * SECOND),
)


@st.composite
def stories(draw: st.DrawFn) -> list[Event]:
    kind, other = draw(kinds), draw(kinds)
    some = st.one_of(commands(kind), commands(kind), commands(other), exits)
    return draw(st.lists(some, min_size=10, max_size=60))


@given(stories())
@example([command(901 + at // 2, "a") if at % 2 else over(900 + at // 2) for at in range(99)])
@example([command(901, "a"), over(901), command(901, "b"), over(901, 9), over(901)])
@example([command(901, "a"), command(902, "a"), command(903, "b", above=902), over(903)])
@example([command(900 + at, "a") for at in range(1, 3 * LIMIT)])
@example([command(900 + at, "a", time=(1001 + at // 30) * SECOND + at) for at in range(1, 50)])
@example([command(901, "a"), command(902, "b"), command(903, "c", parent=inside(WEB, FORKED))])
@example([command(901, "a", above=0, parent=inside(WEB, FORKED)), over(FORKED)])
@example([command(901, "a"), replace(over(901), start=1), over(901)])
@example([command(901, "a"), replace(command(902, "b"), above_start=1)])
@example([command(at, "/bin/sh", "./x"[at % 2 :], filename=b"./x") for at in range(901, 909)])
@example([command(at, f"sh{at}", executable=b"/busybox", filename=b"") for at in (901, 902, 903)])
def test_alike_programs_are_told_as_others(events: list[Event]) -> None:
    story = [ENTRY, *events, end(1)]

    assert lines(watched(), Sensor().tell(story)) == lines(careful(), story)


def test_it_is_routine_that_tells_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    one, sensor = watched(), Sensor()
    one.handle(sensor.tell([ENTRY, command(901, "0"), over(901)]), 1000.0)
    loop = [command(902 + at, str(at)) for at in range(50)]
    ends = [over(902 + at) for at in range(50)]
    monkeypatch.delattr(SessionTracker, "_take")

    assert len(one.handle(sensor.tell([*loop, *ends]), 1000.0).records) == 100


def test_names_that_only_look_like_templates_are_told() -> None:
    node = replace(NODE, name="100%s {} \x7f", cluster_id="%d")
    story = [ENTRY, *(command(901 + at, "%s", str(at), cwd=b"/%%") for at in range(3)), over(902)]

    assert lines(watched(node), Sensor().tell(story)) == lines(careful(node), story)


def test_a_session_has_its_own_words() -> None:
    """Labels that come later are another description of the same container."""
    one, sensor = watched(), Sensor()
    one.handle(sensor.tell([ENTRY, command(901, "first")]), 1000.0)
    session = one._sessions[1]
    told = []
    for number, pod in enumerate(["a", "a", "b", "b"]):
        session.fields = {**session.fields, "k8s.pod.name": pod}
        (record,) = one.handle(sensor.tell([command(910 + number, "x")]), 1000.0).records
        told.append(json.loads("{" + record.body)["k8s.pod.name"])

    assert told == ["a", "a", "b", "b"]


@pytest.mark.parametrize("length", [1, 4000])
def test_what_is_kept_of_many_kinds_is_bounded(
    monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(wording, "_KEPT", 100_000)
    one, sensor = watched(), Sensor()
    one.handle([ENTRY], 1000.0)
    for number in range(1000):
        pid, folder = 2000 + 3 * number, b"/%0*d" % (length, number)
        events = [command(pid, "a", cwd=folder), command(pid + 1, "b", cwd=folder)]
        events.append(command(pid + 2, "c", parent=inside(WEB, pid)))
        one.handle(sensor.tell(events), 1000.0)
    families = one._routine._wording.families

    kept = [each for family in families.values() for each in family.templates.values()]
    texts = sum(len("".join(each.text)) for each in kept)
    assert 0 < texts + 1000 * len(kept) < 100_000
    assert len(families) < 100
