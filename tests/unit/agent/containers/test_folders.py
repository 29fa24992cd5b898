from __future__ import annotations

import resource
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.containers import folders, inotify
from exectrail_agent.containers.folders import FolderWatch, Match


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[FolderWatch]:
    made = FolderWatch(tmp_path, ["run/tasks/*/*", "var/*/data"], ["config.json"])
    yield made
    made.close()


def waits(watch: FolderWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0])


def test_folders_made_later_are_seen_and_told_by_the_descriptor(
    watch: FolderWatch, tmp_path: Path
) -> None:
    assert watch.rescan() == set()
    assert not waits(watch)
    (tmp_path / "run/tasks/k8s.io/one").mkdir(parents=True)
    assert waits(watch)
    assert watch.changed() == {Match(0, ("k8s.io", "one"))}
    assert watch.changed() == set()
    assert not waits(watch)
    (tmp_path / "var/x/data").mkdir(parents=True)
    assert watch.changed() == {Match(1, ("x",))}


def test_only_the_named_files_count(watch: FolderWatch, tmp_path: Path) -> None:
    folder = tmp_path / "run/tasks/a/b"
    folder.mkdir(parents=True)
    assert watch.rescan() == {Match(0, ("a", "b"))}
    (folder / "1234.pid").write_text("1")
    (tmp_path / "run/tasks/a/file").write_text("1")
    assert watch.changed() == set()
    (folder / "config.json").write_text("{}")
    assert watch.changed() == {Match(0, ("a", "b"))}
    (folder / ".tmp").write_text("{}")
    (folder / ".tmp").rename(folder / "config.json")
    assert watch.changed() == {Match(0, ("a", "b"))}
    (folder / "config.json").unlink()
    assert watch.changed() == {Match(0, ("a", "b"))}


@pytest.mark.parametrize("level", ["run", "run/tasks", "run/tasks/a", "run/tasks/a/b"])
def test_removal_at_any_level_and_return(watch: FolderWatch, tmp_path: Path, level: str) -> None:
    folder = tmp_path / "run/tasks/a/b"
    folder.mkdir(parents=True)
    watch.rescan()
    for _ in range(3):
        shutil.rmtree(tmp_path / level)
        assert watch.changed() == {Match(0, ("a", "b"))}
        folder.mkdir(parents=True)
        assert watch.changed() == {Match(0, ("a", "b"))}


def test_a_folder_renamed_to_a_hidden_name_is_gone(watch: FolderWatch, tmp_path: Path) -> None:
    folder = tmp_path / "run/tasks/a/b"
    folder.mkdir(parents=True)
    watch.rescan()
    folder.rename(folder.with_name(".b"))
    assert watch.changed() == {Match(0, ("a", "b"))}
    (tmp_path / "run/tasks/a/.b/config.json").write_text("{}")
    watch.changed()
    assert watch.rescan() == set()


def test_links_count_before_the_first_star_only(watch: FolderWatch, tmp_path: Path) -> None:
    (tmp_path / "disk/tasks/a/b").mkdir(parents=True)
    (tmp_path / "disk/tasks/link").symlink_to("a")
    (tmp_path / "run").symlink_to("disk")
    assert watch.rescan() == {Match(0, ("a", "b"))}
    (tmp_path / "disk/tasks/late").symlink_to("a")
    (tmp_path / "disk/tasks/a/late").symlink_to("b")
    assert watch.changed() == set()


def test_lost_changes_are_told(watch: FolderWatch, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [inotify.Change(-1, overflow=True)]
    monkeypatch.setattr(inotify.Inotify, "read", lambda _: iter(lost))
    assert watch.changed() is None


def test_too_many_folders_are_a_problem_that_a_rescan_may_solve(
    watch: FolderWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_MAX_ENTRIES", 3)
    for number in range(5):
        (tmp_path / f"run/tasks/a/{number}").mkdir(parents=True)
    assert len(watch.rescan()) == 3
    assert "more than 3 folders" in watch.problem
    shutil.rmtree(tmp_path / "run/tasks/a")
    watch.rescan()
    assert watch.problem == ""


def test_no_inotify_instance_is_an_error_at_once(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            FolderWatch(tmp_path, [], [])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(st.binary(max_size=200))
def test_any_bytes_can_be_decoded(data: bytes) -> None:
    assert len(list(inotify.decode(data))) <= len(data) // 16
