"""The agent's log on real file systems that are full or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exectrail_agent.log import writer as writer_module
from exectrail_agent.log.rotation import LogError
from exectrail_agent.log.writer import RecordWriter
from tests.unit.agent.test_writer import MAKER, accounted, commands, read

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no tmpfs can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing_in_silence(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_BACKLOG", 30_000)
    ballast, path = disk / "ballast", disk / "log" / "advaudit.log"
    ballast.write_bytes(b"x" * 90_000)
    log = RecordWriter(path, MAKER)
    for record in commands(300):
        log.append([record])
    assert log.lost["disk-full"] > 0
    assert log.problem

    ballast.unlink()
    log.append(commands(5))
    log.close()

    records = read(path)
    assert accounted(records) == 305
    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))


def test_a_read_only_disk_is_refused(disk: Path) -> None:
    """An open log keeps its file system writable, so this shows at a start."""
    path = disk / "log" / "advaudit.log"
    RecordWriter(path, MAKER).close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

    with pytest.raises(LogError, match="Read-only file system"):
        RecordWriter(path, MAKER)
