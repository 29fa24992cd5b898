from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from exectrail_agent.containers import files


def test_reads_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"\xff\0")
    assert files.read(tmp_path, "a", "b") == b"\xff\0"
    assert files.read(tmp_path, "a", "c") is None
    assert files.read(tmp_path / "gone", "a", "c") is None


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    assert files.read(tmp_path / "link", "f") == b"1"


@pytest.mark.parametrize("names", [("f",), ("d", "f"), ("fifo",), ("socket",), ("tty",), ("real",)])
def test_what_is_no_regular_file_of_this_folder_is_refused(
    tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/f").write_bytes(b"secret")
    (tmp_path / "f").symlink_to("real/f")
    (tmp_path / "d").symlink_to("real")
    (tmp_path / "tty").symlink_to("/dev/tty")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(files.UnreadableError, match=names[-1]):
            files.read(tmp_path, *names)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "a\0b"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(files.UnreadableError):
        files.read(tmp_path, name, "x")


def test_size_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    assert files.read(tmp_path, "f", limit=100) == b"x" * 100
    with pytest.raises(files.UnreadableError, match="more than 99 bytes"):
        files.read(tmp_path, "f", limit=99)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to("x")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("x", "link", ".."):
        with contextlib.suppress(files.UnreadableError):
            files.read(tmp_path, "a", name)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
