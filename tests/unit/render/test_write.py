"""The report files: all or none, readable by their owner only."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exectrail.compliance.render import html, json, junit
from exectrail.compliance.render.write import write_reports
from exectrail.errors import UsageError
from tests.unit.render.reports import saved

NAMES = {"json": "report.json", "html": "report.html", "junit": "junit.xml"}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_files_are_those_of_the_renderers(tmp_path: Path) -> None:
    mixed = saved("mixed")
    directory = tmp_path / "new" / "reports"
    old_mask = os.umask(0)
    try:
        paths = write_reports(mixed, directory)
    finally:
        os.umask(old_mask)
    assert paths == {kind: directory / name for kind, name in NAMES.items()}
    assert paths["json"].read_bytes() == json.render(mixed)
    assert paths["html"].read_text(encoding="utf-8") == html.render(mixed)
    assert paths["junit"].read_text(encoding="utf-8") == junit.render(mixed)
    assert mode(directory) == 0o700
    assert {mode(path) for path in paths.values()} == {0o600}
    assert {path.name for path in directory.iterdir()} == set(NAMES.values())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("missing", ["junit", "html", "json"])
def test_a_full_disk_leaves_the_reports_of_before(tmp_path: Path, missing: str) -> None:
    large = saved("mixed")
    sizes = {kind: path.stat().st_size for kind, path in write_reports(large, tmp_path).items()}
    assert sorted(sizes, key=lambda kind: sizes[kind]) == list(sizes)  # so each one can be it
    write_reports(saved("fit"), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    size = sizes[missing] - 1
    with largest_file(size), pytest.raises(UsageError) as caught:
        write_reports(large, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--report-dir" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("directory", "says"),
    [("file", "is a file"), ("file/below", "is a file"), ("/proc/nobody/here", "may write")],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, directory: str, says: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=says) as caught:
        write_reports(saved("fit"), tmp_path / directory)
    assert str(tmp_path / directory) in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_symlink_in_the_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    directory = tmp_path / "reports"
    directory.mkdir()
    (directory / "report.json").symlink_to(victim)
    write_reports(saved("fit"), directory)
    assert victim.read_text() == "mine"
    assert not (directory / "report.json").is_symlink()
