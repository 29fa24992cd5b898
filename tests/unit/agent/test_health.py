from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from exectrail.compliance.checks.agent import PAST
from exectrail.site import agent as site
from exectrail_agent import health
from exectrail_agent.health import Past, Status
from exectrail_agent.notify import Notifier

ROOT = Path(__file__).parents[3]


def test_an_agent_that_says_it_sees_all_is_healthy(tmp_path: Path, agent: int) -> None:
    health.write(Status(pid=agent, written=100.0, sensor="bpf"), tmp_path)
    status, code, word = health.read(tmp_path, 105.0)

    assert (code, word, status.sensor) == (0, "healthy", "bpf")


def test_reasons_make_it_degraded(tmp_path: Path, agent: int) -> None:
    health.write(Status(pid=agent, written=100.0, reasons=["the disk is full"]), tmp_path)

    assert health.read(tmp_path, 105.0)[1:] == (1, "degraded")


def test_silence_is_down(tmp_path: Path, agent: int) -> None:
    health.write(Status(pid=agent, written=100.0), tmp_path)
    status, code, _ = health.read(tmp_path, 140.0)

    assert code == 2
    assert "not said anything for 40 s" in status.reasons[0]


def test_a_dead_agent_is_down(tmp_path: Path) -> None:
    health.write(Status(pid=4194305, written=time.time()), tmp_path)
    status, code, _ = health.read(tmp_path, time.time())

    assert code == 2
    assert "does not run" in status.reasons[0]


def test_the_number_of_another_process_is_no_agent(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "30"]) as other:
        while b"sleep" not in Path(f"/proc/{other.pid}/cmdline").read_bytes():
            time.sleep(0.01)
        health.write(Status(pid=other.pid, written=time.time()), tmp_path)
        code = health.read(tmp_path, time.time())[1]
        other.kill()

    assert code == 2


@pytest.mark.parametrize("text", ["", "[]", '{"nonsense": 1}', "\xff"])
def test_a_broken_or_missing_status_is_down(tmp_path: Path, text: str) -> None:
    assert health.read(tmp_path, 0.0)[1] == 2
    (tmp_path / "status.json").write_text(text)

    assert health.read(tmp_path, 0.0)[1] == 2


def test_metrics_can_be_scraped(tmp_path: Path) -> None:
    losses = {"ring full": 2}
    status = Status(version='1"\n', records=5, losses=losses, sensor="bpf", fill=0.25)
    health.write_metrics(status, tmp_path / "agent.prom")
    lines = (tmp_path / "agent.prom").read_text().splitlines()

    assert "exectrail_agent_records_total 5" in lines
    assert "exectrail_agent_ring_fill_ratio 0.25" in lines
    assert 'exectrail_agent_losses_total{cause="ring full"} 2' in lines
    assert 'exectrail_agent_info{version="1\\"\\n",sensor="bpf"} 1' in lines
    assert [path.name for path in tmp_path.iterdir()] == ["agent.prom"]
    told = re.findall(r"^# TYPE exectrail_agent_(\w+)", "\n".join(lines), re.MULTILINE)
    page = (ROOT / "docs/agent-install.md").read_text(encoding="utf-8")
    assert [name for name in told if f"`{name}" not in page] == []


def test_proc_is_ours_here() -> None:
    assert health.proc_is_ours()


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "20000000")
        notifier = Notifier()
        notifier.say("READY=1")

        assert listener.recv(100) == b"READY=1"
        assert notifier.watchdog_seconds == 10.0
        # Programs that the agent starts must not speak for it.
        assert "NOTIFY_SOCKET" not in os.environ


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().say("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    Notifier().say("READY=1")


def test_what_was_lost_is_said_for_ten_minutes_and_how_much_of_it() -> None:
    past = Past({"ring-full": 5})
    past.lose({"ring-full": 5}, 100.0)
    assert list(past.reasons(100.0)) == []

    past.lose({"ring-full": 8}, 200.0)
    past.lose({"ring-full": 9, "disk-full": 2}, 500.0)
    past.lose({"ring-full": 9, "disk-full": 2}, 505.0)

    assert list(past.reasons(799.9)) == [f"{PAST}events were lost: disk-full 2, ring-full 4"]
    assert list(past.reasons(800.0)) == [f"{PAST}events were lost: disk-full 2, ring-full 1"]
    assert list(past.reasons(1100.0)) == []


def test_totals_that_begin_anew_are_all_news() -> None:
    past = Past({"ring-full": 5})
    past.lose({"ring-full": 3}, 100.0)

    assert list(past.reasons(100.0)) == [f"{PAST}events were lost: ring-full 3"]


def test_a_log_at_its_cap_is_named() -> None:
    past = Past({})
    past.lose({"rotated-unshipped": 7}, 100.0)

    (reason,) = past.reasons(699.9)
    assert reason == f"{PAST}the log was at its cap: 7 records went that nobody had shipped"
    assert list(past.reasons(700.0)) == []


def test_a_clock_that_was_set_is_named() -> None:
    past = Past({})
    past.jump(-3_600_000_000_000, 100.0)

    assert list(past.reasons(699.9)) == [f"{PAST}the wall clock was set by -3600.000 s"]
    assert list(past.reasons(700.0)) == []


def test_all_who_judge_an_agent_know_the_past_by_the_same_words() -> None:
    module = (ROOT / "plugins/modules/exec_agent_node.py").read_text(encoding="utf-8")

    assert site.PAST == PAST
    assert f'PAST = "{PAST}"' in module
