from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exectrail_agent import cli, config, health
from exectrail_agent.assembly import LOG
from exectrail_agent.config import Config
from exectrail_agent.events import Sensor, SensorError
from exectrail_agent.health import Status


@pytest.fixture
def conf(tmp_path: Path) -> str:
    for name in ("log", "run", "state"):
        (tmp_path / name).mkdir()
    path = tmp_path / "agent.conf"
    path.write_text(
        f"[log]\nfolder = {tmp_path}/log\n[bpf]\npins = {tmp_path}/pins\n"
        f"[paths]\nruntime = {tmp_path}/run\nstate = {tmp_path}/state\n"
    )
    return str(path)


def test_the_configuration_is_checked(conf: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config-check", "--config", conf]) == 0
    assert "[agent] sensor = auto\n" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "self-test", "status", "tail", "unpin", "config-check"])
def test_a_bad_configuration_is_one_line_and_78(
    conf: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(conf).write_text("[agent]\nsensors = bpf\n")

    assert cli.main([command, "--config", conf]) == 78
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"exectrail-agent: {conf}: [agent] sensors is no option\n"


def test_status_says_down_degraded_and_healthy(
    conf: str, tmp_path: Path, agent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["status", "--config", conf]
    assert cli.main(asked) == 2
    status = Status(version="1", pid=agent, written=time.time(), reasons=["deaf\x1b[2J"])
    health.write(status, tmp_path / "run")
    assert cli.main(asked) == 1
    status.reasons = []
    health.write(status, tmp_path / "run")
    assert cli.main(asked) == 0

    said = capsys.readouterr().out
    assert "down\n  because no agent has run here" in said
    assert "degraded\n  because deaf\\x1b[2J\n" in said
    assert "healthy\n  version 1" in said
    assert "self-test not passed yet" in said


def test_status_for_programs(
    conf: str, tmp_path: Path, agent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    status = Status(pid=agent, written=time.time(), losses={"ring-full": 3}, canary=5.0)
    health.write(status, tmp_path / "run")

    assert cli.main(["status", "--json", "--config", conf]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "healthy"
    assert found["losses"] == {"ring-full": 3}


def test_anybody_may_read_the_status(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        health.write(Status(), tmp_path)
    finally:
        os.umask(before)

    assert (tmp_path / "status.json").stat().st_mode & 0o777 == 0o644


def test_tail_shows_the_newest_lines_as_text(
    conf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log" / LOG).write_bytes(b'{"seq":1}\n{"seq":2}\n{"seq":3,"x":"\x1b[2J\xff"}\n')

    assert cli.main(["tail", "-n", "2", "--config", conf]) == 0
    assert capsys.readouterr().out == '{"seq":2}\n{"seq":3,"x":"\\x1b[2J\ufffd"}\n'
    assert cli.main(["tail", "-n", "0", "--config", conf]) == 0
    assert capsys.readouterr().out == ""


def test_a_log_is_followed_over_its_rotation(conf: str, tmp_path: Path) -> None:
    log = tmp_path / "log" / LOG
    log.write_text("1\n")
    command = [sys.executable, "-m", "exectrail_agent", "tail", "--follow", "--config", conf]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        try:
            assert follower.stdout.readline() == "1\n"
            with log.open("a") as file:
                file.write("2\n")
            log.rename(tmp_path / "log" / f"{LOG}.1")
            log.write_text("3\n")
            assert [follower.stdout.readline() for _ in range(2)] == ["2\n", "3\n"]
        finally:
            follower.kill()


def test_trees_pass_over_what_is_no_record(
    conf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ['{"kind":"Command","traceId":"T","eventId":"A","process.args":["id"]}', "[]", "{", ""]
    (tmp_path / "log" / LOG).write_text("\n".join(lines))

    assert cli.main(["tail", "--tree", "--config", conf]) == 0
    assert "└─ id" in capsys.readouterr().out


def test_without_a_log_there_is_nothing_to_show(
    conf: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tail", "--config", conf]) == 69
    assert "can't be read: No such file" in capsys.readouterr().err


def test_nothing_pinned_is_nothing_to_remove(conf: str) -> None:
    assert cli.main(["unpin", "--config", conf]) == 0


def test_a_folder_that_is_no_pins_stays(
    conf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "mine").touch()

    assert cli.main(["unpin", "--config", conf]) == 69
    assert (tmp_path / "pins" / "mine").exists()
    assert capsys.readouterr().err.startswith("exectrail-agent: ")


def _sensors(monkeypatch: pytest.MonkeyPatch, *working: str) -> list[tuple[str, dict[str, object]]]:
    """Replace the sensors by ones that note how they were asked for."""
    asked: list[tuple[str, dict[str, object]]] = []

    def make(name: str) -> object:
        def sensor(**options: object) -> str:
            asked.append((name, options))
            if name not in working:
                raise SensorError("not here")
            return name

        return sensor

    monkeypatch.setattr(cli, "BpfSensor", make("bpf"))
    monkeypatch.setattr(cli, "AuditSensor", make("audit"))
    return asked


def _settings(text: str) -> Config:
    return config.parse(text)


def test_bpf_comes_first_and_audit_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _sensors(monkeypatch, "audit")
    found: Sensor | str = cli.open_sensor(_settings("[agent]\nrecord = all\n[bpf]\nring_mb = 3\n"))

    assert found == "audit"
    assert [name for name, _ in asked] == ["bpf", "audit"]
    assert asked[0][1]["ring_size"] == 4 << 20
    assert all(options["everything"] is True for _, options in asked)


@pytest.mark.parametrize("wanted", ["bpf", "audit"])
def test_who_asks_for_one_gets_no_other(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    asked = _sensors(monkeypatch)

    with pytest.raises(SensorError, match=f"no sensor works here. {wanted}: not here"):
        cli.open_sensor(_settings(f"[agent]\nsensor = {wanted}\n"))
    assert [name for name, _ in asked] == [wanted]


def test_a_self_test_has_pins_of_its_own_and_the_one_kernel_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _sensors(monkeypatch)
    for pins in (None, "/sys/fs/bpf/other"):
        with pytest.raises(SensorError):
            cli.open_sensor(_settings(""), pins=pins)

    folders = [options["folder"] for name, options in asked if name == "bpf"]
    notes = [options["found"] for name, options in asked if name == "audit"]
    assert folders == ["/sys/fs/bpf/exectrail", "/sys/fs/bpf/other"]
    assert len(set(notes)) == 1


ANSWERS = """
import signal, sys, time
from pathlib import Path
from exectrail_agent import health

def answer(*_):
    status, _, _ = health.read(Path(sys.argv[1]), time.time())
    status.canary = time.time()
    health.write(status, Path(sys.argv[1]))

signal.signal(signal.SIGUSR1, answer if sys.argv[2] == "exectrail-sees" else signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sees", [True, False])
def test_an_agent_with_kernel_audit_is_asked_instead_of_disturbed(
    conf: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    sees: bool,
) -> None:
    asked = _sensors(monkeypatch)
    monkeypatch.setattr(cli, "_PROOF_SECONDS", 60.0 if sees else 0.3)
    word = "exectrail-sees" if sees else "exectrail-blind"
    command = [sys.executable, "-c", ANSWERS, str(tmp_path / "run"), word]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as live:
        assert live.stdout
        assert live.stdout.readline() == b"ready\n"
        health.write(Status(pid=live.pid, written=time.time(), sensor="audit"), tmp_path / "run")
        try:
            code = cli.main(["self-test", "--config", conf])
        finally:
            live.kill()

    said = capsys.readouterr()
    assert asked == []
    assert code == (0 if sees else 69)
    words = "saw" if sees else "did not see"
    assert f"the running agent (pid {live.pid}) {words} a program of its own" in said.out + said.err


@pytest.mark.parametrize("left", ["ended", "another sensor"])
def test_without_such_an_agent_the_self_test_is_made_here(
    conf: str, tmp_path: Path, agent: int, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    asked = _sensors(monkeypatch)
    status = Status(pid=agent, written=time.time(), sensor="audit" if left == "ended" else "bpf")
    health.write(status, tmp_path / "run")
    if left == "ended":
        os.kill(agent, signal.SIGKILL)
        os.waitpid(agent, 0)

    assert cli.main(["self-test", "--config", conf]) == 69
    assert [name for name, _ in asked] == ["bpf", "audit"]
