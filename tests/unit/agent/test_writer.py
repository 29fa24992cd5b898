"""The log on the disk: its numbers, its files, and what it says of what is not in it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exectrail_agent.log import writer as writer_module
from exectrail_agent.log.contents import execs_in
from exectrail_agent.log.ledger import Ledger
from exectrail_agent.log.loss import LossAccountant
from exectrail_agent.log.records import Lost, Record
from exectrail_agent.log.rotation import LogError
from exectrail_agent.log.writer import RecordWriter
from tests.unit.agent.world import (
    NODE,
    SECOND,
    WEB,
    Index,
    check_line,
    end,
    enter,
    host,
    inside,
    leave,
    maker,
    run,
    tracker,
)

MAKER = maker()
SHELL = inside(WEB, 900)


def commands(count: int, argument: str = "x") -> list[Record]:
    """Command records as the tracker makes them, each for another argument."""
    watched = tracker(WEB)
    watched.handle([enter(WEB, 900, "sh")], 1000.0)
    runs = (
        run(1, inside(WEB, 1000 + number), SHELL, argument, str(number)) for number in range(count)
    )
    return watched.handle(runs, 1000.0).records


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of the log and the files set aside, the oldest first."""
    older = sorted(path.parent.glob(f"{path.name}.[0-9]*"), key=lambda file: -int(file.suffix[1:]))
    return [
        check_line(line)
        for file in [*older, path]
        if file.exists()
        for line in file.read_text().splitlines(keepends=True)
    ]


def accounted(records: list[dict[str, Any]]) -> int:
    """Return how many execs a log accounts for: the equation of the reference."""
    return sum(
        1
        if record["kind"] == "Command"
        else record.get("throttle.count", 0) + record.get("loss.execs", 0)
        for record in records
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "advaudit.log"


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, code: int) -> Iterator[None]:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        yield


def test_numbers_have_no_gap_over_restarts(path: Path) -> None:
    for _ in range(3):
        log = RecordWriter(path, MAKER)
        log.append(commands(5))
        log.close()

    assert [record["seq"] for record in read(path)] == list(range(1, 16))


def test_only_root_can_read_it(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o644)

    RecordWriter(path, MAKER).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_second_agent_is_told(path: Path) -> None:
    first = RecordWriter(path, MAKER)

    with pytest.raises(LogError, match="another agent writes to"):
        RecordWriter(path, MAKER)

    first.close()
    RecordWriter(path, MAKER).close()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(LogError):
        RecordWriter(path, MAKER)

    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("rest", [b'{"seq":4,"kind":"Comm', b"\0" * 5000, b'{"seq"\0\0'])
def test_a_torn_end_is_repaired_and_told_of(path: Path, rest: bytes) -> None:
    log = RecordWriter(path, MAKER)
    log.append(commands(3))
    log.close()
    with path.open("ab") as file:
        file.write(rest)

    log = RecordWriter(path, MAKER)
    log.append(commands(1))
    log.close()

    records = read(path)
    assert [record["seq"] for record in records] == [1, 2, 3, 4, 5]
    assert (records[3]["kind"], records[3]["loss.cause"]) == ("Loss", "torn-line")


def test_the_log_never_grows_beyond_its_cap(path: Path) -> None:
    log = RecordWriter(path, MAKER, max_bytes=8192, max_files=3)
    for record in commands(200):
        log.append([record])
    log.close()

    files = sorted(file.name for file in path.parent.glob("advaudit.log*"))
    assert files == [
        "advaudit.log",
        "advaudit.log.1",
        "advaudit.log.2",
        "advaudit.log.index",
        "advaudit.log.lock",
    ]
    assert all(file.stat().st_size <= 8192 for file in path.parent.iterdir())
    records = read(path)
    numbers = [record["seq"] for record in records]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    last = [record for record in records if record["kind"] == "Loss"][-1]
    assert last["loss.cause"] == "rotated-unshipped"
    assert last["loss.lastSeq"] == numbers[0] - 1
    assert accounted(records) == 200


def test_a_restart_knows_what_the_older_files_hold(path: Path) -> None:
    everything = commands(120)
    for at in range(0, 120, 10):
        log = RecordWriter(path, MAKER, max_bytes=8192, max_files=3)
        log.append(everything[at : at + 10])
        log.close()

    assert accounted(read(path)) == 120


def test_what_was_shipped_is_not_lost(path: Path) -> None:
    log = RecordWriter(path, MAKER, max_bytes=8192, max_files=2)
    shipped = path.with_name("advaudit.log.shipped")
    for at, record in enumerate(commands(100)):
        log.append([record])
        if at < 60:
            shipped.write_text(f"{log.seq}\n")
    log.close()

    losses = [record for record in read(path) if record["kind"] == "Loss"]
    assert log.lost["rotated-unshipped"] > 0
    assert all(record["loss.firstSeq"] > 60 for record in losses)


@pytest.mark.parametrize(
    ("code", "cause"),
    [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only"), (errno.EIO, "write-error")],
)
def test_a_disk_that_fails_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cause: str
) -> None:
    monkeypatch.setattr(writer_module, "_BACKLOG", 20_000)
    log = RecordWriter(path, MAKER)
    everything = commands(100)
    log.append(everything[:10])
    with failing(monkeypatch, code):
        for record in everything[10:90]:
            log.append([record])
        assert log.problem
        assert log.backlog
    log.append(everything[90:])
    log.close()

    records = read(path)
    (loss,) = [record for record in records if record["kind"] == "Loss"]
    assert loss["loss.cause"] == cause
    assert 0 < loss["loss.count"] == loss["loss.execs"] == log.lost[cause] < 80
    assert loss["loss.toBoot"] == everything[89].time
    assert accounted(records) == 100
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert log.problem is None


def test_a_loss_that_can_not_be_written_is_not_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_BACKLOG", 1)
    log = RecordWriter(path, MAKER)
    with failing(monkeypatch, errno.ENOSPC):
        for at in range(5):
            log.append([MAKER.loss(Lost("exec", 7, "events", at, at + 1, 7))])
    log.close()

    records = read(path)
    assert sum(record["loss.count"] for record in records) == 35
    assert {record["loss.cause"] for record in records} == {"exec"}


def test_half_a_line_is_taken_back(path: Path) -> None:
    """The kernel stops a write in the middle of a line, as on a full disk."""
    everything = commands(40)
    log = RecordWriter(path, MAKER)
    log.append(everything[:10])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5000, hard))
    try:
        log.append(everything[10:])
        assert log.problem
        assert len(read(path)) == log.seq < 40
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.tick()
    log.close()

    assert [record["seq"] for record in read(path)] == list(range(1, 41))


def test_a_record_larger_than_a_file_is_a_loss(path: Path) -> None:
    log = RecordWriter(path, MAKER, max_bytes=4096, max_files=2)
    log.append([*commands(1, "y" * 5000), *commands(1)])
    log.close()

    kinds = [record.get("loss.cause", record["kind"]) for record in read(path)]
    assert kinds == ["Command", "too-large"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 0)])
def test_a_file_that_somebody_removes_or_empties_is_told_of(
    path: Path, harm: Callable[[Path], None]
) -> None:
    """Emptied by logrotate's `copytruncate`, say."""
    log = RecordWriter(path, MAKER)
    log.append(commands(4))
    harm(path)
    log.append(commands(2))
    log.close()

    records = read(path)
    assert records[0]["loss.cause"] == "file-removed"
    assert [record["seq"] for record in records] == [5, 6, 7]
    assert accounted(records) == 6


def test_a_file_of_which_somebody_leaves_a_part_is_gone_on_with(path: Path) -> None:
    log = RecordWriter(path, MAKER)
    log.append(commands(4))
    os.truncate(path, path.stat().st_size - 10)
    log.append(commands(2))
    log.close()

    records = read(path)
    assert [record["kind"] for record in records] == [*["Command"] * 3, "Loss", *["Command"] * 2]
    assert (records[3]["loss.firstSeq"], records[3]["loss.lastSeq"]) == (4, 4)
    assert accounted(records) == 6


def test_a_file_that_somebody_moves_is_left_to_them(path: Path, tmp_path: Path) -> None:
    log = RecordWriter(path, MAKER)
    log.append(commands(4))
    path.rename(tmp_path / "taken")
    log.append(commands(2))
    log.close()

    assert [record["seq"] for record in read(path)] == [5, 6]


def test_a_folder_that_somebody_removes_is_made_again(path: Path) -> None:
    log = RecordWriter(path, MAKER)
    log.append(commands(1))
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    log.append(commands(1))
    log.close()

    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert accounted(read(path)) == 2


def test_a_damaged_index_is_done_without(path: Path) -> None:
    log = RecordWriter(path, MAKER, max_bytes=4096, max_files=2)
    log.append(commands(10))
    log.close()
    path.with_name("advaudit.log.index").write_text("{")

    log = RecordWriter(path, MAKER, max_bytes=4096, max_files=2)
    log.append(commands(10))
    log.close()

    assert log.seq >= 20


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from exectrail_agent.log.ledger import Ledger
from tests.unit.agent.test_writer import MAKER, NODE, RecordWriter, commands
ledger = Ledger(Path(sys.argv[1]), NODE.boot)
log = RecordWriter(Path(sys.argv[2]), MAKER, ledger=ledger)
ledger.take(50)
log.append(commands(30))
ledger.settle(5)
if sys.argv[3] == "unconfirmed":
    write = os.write
    def die(descriptor, data):
        write(descriptor, data)
        os.kill(os.getpid(), 9)
    os.write = die
    log.append(commands(10))
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("when", "execs"), [("between", 15), ("unconfirmed", 5)])
def test_what_dies_with_an_agent_is_told_of_by_the_next(
    path: Path, tmp_path: Path, when: str, execs: int
) -> None:
    script = KILLED.format(path=[each for each in sys.path if each])
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "ledger"), str(path), when], check=False
    )
    assert done.returncode == -signal.SIGKILL

    ledger = Ledger(tmp_path / "ledger", NODE.boot)
    log = RecordWriter(path, MAKER, ledger=ledger)
    log.close()

    last = read(path)[-1]
    assert (last["loss.cause"], last["loss.execs"]) == ("agent-killed", execs)
    assert ledger.open == 0
    assert accounted(read(path)) == 50 - 5


@pytest.mark.parametrize(
    ("error", "cause"), [(errno.ENOSPC, "disk-full"), (errno.EROFS, "read-only")]
)
def test_what_the_disk_never_took_is_told_of_with_the_disk_as_cause(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, cause: str
) -> None:
    def fail(_descriptor: int, _data: bytes) -> int:
        raise OSError(error, "broken")

    ledger = Ledger(tmp_path / "ledger", NODE.boot)
    log = RecordWriter(path, MAKER, ledger=ledger)
    ledger.take(7)
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", fail)
        log.append(commands(7))
        log.close()
    ledger.close()

    RecordWriter(path, MAKER, ledger=Ledger(tmp_path / "ledger", NODE.boot)).close()
    (loss,) = read(path)
    assert (loss["loss.cause"], loss["loss.execs"]) == (cause, 7)

    killed = Ledger(tmp_path / "ledger", NODE.boot)
    killed.take(1)
    killed.close()
    assert Ledger(tmp_path / "ledger", NODE.boot).cause == "agent-killed"


def test_a_ledger_of_another_boot_counts_for_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger", "aaaa")
    ledger.take(7)
    ledger.close()

    assert Ledger(tmp_path / "ledger", "aaaa").open == 7
    assert Ledger(tmp_path / "ledger", "bbbb").open == 0


def test_a_sensors_totals_become_losses() -> None:
    accountant = LossAccountant(MAKER)

    first = accountant.update({"ring-full": 5, "processes-full": 0})
    same = accountant.update({"ring-full": 5, "processes-full": 0})
    more = accountant.update({"ring-full": 6, "processes-full": 2})
    anew = accountant.update({"ring-full": 1, "processes-full": 2})

    found = [
        [(one.loss.cause, one.loss.count, one.loss.execs) for one in records if one.loss]
        for records in (first, same, more, anew)
    ]
    assert found == [
        [("ring-full", 5, 5)],
        [],
        [("ring-full", 1, 1), ("processes-full", 2, None)],
        [("ring-full", 1, 1)],
    ]
    assert (
        LossAccountant(MAKER, accountant.totals).update({"ring-full": 1, "processes-full": 2}) == []
    )


def test_a_sensors_loss_begins_where_the_last_was_told() -> None:
    accountant = LossAccountant(MAKER, {"ring-full": 5}, 77)
    now = MAKER.clock.now()

    spans = [
        [
            (one.loss.begin, one.loss.end)
            for one in accountant.update({"ring-full": total})
            if one.loss
        ]
        for total in (6, 6, 7)
    ]

    assert spans == [[(77, now)], [], [(now, now)]]


def test_a_sensors_losses_are_told_when_the_log_has_them(path: Path) -> None:
    log = RecordWriter(path, MAKER)
    sensor = LossAccountant(MAKER)
    log.append(sensor.update({"ring-full": 3}))

    assert (log.owes, sensor.told) == (False, {})
    sensor.settle()
    assert sensor.told == {"ring-full": 3}


def test_arguments_do_not_count_as_records() -> None:
    record = {
        "seq": 1,
        "kind": "Command",
        "process.args": ['"throttle.count":5', '{"seq":1,"kind":"Command",'],
        "k8s.pod.labels": {"kind": "Command", "throttle.count": "7"},
    }
    line = json.dumps(record, separators=(",", ":")).encode()

    assert execs_in(line) == 1


class Disk:
    """os.write as a disk that is now and then full, or takes only a part."""

    def __init__(self, moods: list[int]) -> None:
        self.moods = iter(moods)
        self.write = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        mood = next(self.moods, 2)
        if mood == 0:
            raise OSError(errno.ENOSPC, "full")
        return self.write(descriptor, data[: len(data) // 2 + 1] if mood == 1 else data)


steps = st.lists(
    st.tuples(
        st.sampled_from(["enter", "start", "probe", "run", "same", "exit", "end", "tick", "host"]),
        st.integers(0, 3),
        st.integers(0, 6),
    ),
    max_size=60,
)


@settings(max_examples=30)
@given(
    steps=steps,
    moods=st.lists(st.sampled_from([0, 1, 2]), max_size=40),
    described=st.booleans(),
    everything=st.booleans(),
    cap=st.sampled_from([4096, 16_384, 100_000]),
)
def test_the_log_accounts_for_every_exec(
    *,
    steps: list[tuple[str, int, int]],
    moods: list[int],
    described: bool,
    everything: bool,
    cap: int,
) -> None:
    """produced = recorded + collapsed + lost, whatever happens and whatever the disk does."""
    index = Index(WEB) if described else Index(named=[WEB.id])
    watched = tracker(index=index, everything=everything)
    produced = dismissed = 0
    time = 1000.0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "_BACKLOG", 6000)
        path = Path(folder) / "advaudit.log"
        log = RecordWriter(path, MAKER, max_bytes=cap, max_files=3)
        patch.setattr(os, "write", Disk(moods))
        for action, session, much in steps:
            time += 0.3
            for event in happening(action, session + 1, much, int(time * SECOND)):
                produced += hasattr(event, "argv")
                outcome = watched.handle([event], time)
                dismissed += outcome.dismissed
                log.append(outcome.records)
            outcome = watched.tick(time)
            log.append(outcome.records)
            dismissed += outcome.dismissed
        outcome = watched.flush(time)
        log.append(outcome.records)
        patch.undo()
        log.tick()
        log.close()
        records = read(path)

    numbers = [record["seq"] for record in records]
    assert accounted(records) + dismissed + outcome.dismissed == produced
    assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True


def happening(action: str, session: int, much: int, time: int) -> list[Any]:
    pid = 900 + session
    shell = inside(WEB, pid)
    first = inside(WEB, 500)
    later = [time + at for at in range(much * much)]
    worker = inside(WEB, 2000)
    happenings: dict[str, list[Any]] = {
        "enter": [enter(WEB, pid, "sh", session=session, time=time)],
        "start": [run(session, first, host(499), entry=True, time=time)],
        "probe": [enter(WEB, pid, "cat", "/run/ok", session=session, tty=None, time=time)],
        "exit": [leave(session, shell, time=time)],
        "end": [end(session, time)],
        "same": [run(session, worker, shell, "true", time=at) for at in later],
        "host": [run(0, inside(WEB, 2001), shell, "w", time=time)],
        "run": [run(session, worker, shell, "a", str(at), time=at) for at in later],
    }
    return happenings.get(action, [])


def test_the_state_of_the_log_is_json(path: Path) -> None:
    log = RecordWriter(path, MAKER)
    log.append(commands(2))
    log.close()

    assert json.loads(path.with_name("advaudit.log.index").read_text())["seq"] == 2
