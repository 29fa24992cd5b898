from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent import config


def test_nothing_means_defaults() -> None:
    found = config.parse("")

    assert found.get("agent", "sensor") == "auto"
    assert found.get("log", "folder") == Path("/var/log/exectrail")
    assert found.get("log", "max_size_mb") == 100
    assert found.get("health", "metrics_file") is None


def test_options_are_read() -> None:
    found = config.parse("# why\n[log]\nfolder = /srv/log\nmax_files=3\n[agent]\nsensor: audit\n")

    assert found.get("log", "folder") == Path("/srv/log")
    assert found.get("log", "max_files") == 3
    assert found.get("agent", "sensor") == "audit"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[agent]\nsensors = bpf", r"\[agent\] sensors is no option"),
        ("[log]\nsensor = bpf", r"\[log\] sensor is no option; it belongs to \[agent\]"),
        ("[nobody]\nx = 1", r"\[nobody\] x is no option"),
        ("[agent]\nsensor = ebpf", "give one of auto, bpf, audit"),
        ("[log]\nmax_files = 1", "give a whole number from 2 to 1000"),
        ("[log]\nmax_files = 1e3", "give a whole number"),
        ("[log]\nmax_files =", "give a whole number"),
        ("[log]\nfolder = log", "give an absolute path"),
        ("[agent]\ncluster_id = a b", "letters, digits"),
        ("sensor = bpf", "no section headers"),
        ("[agent]\nsensor = bpf\nsensor = bpf", "already exists"),
        ("[agent]\n = x", "parsing errors|no option"),
    ],
)
def test_bad_input_is_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(config.ConfigError, match=says) as caught:
        config.parse(text)

    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(config.ConfigError):
        config.parse(text)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="no such file"):
        config.load(tmp_path / "agent.conf")
    (tmp_path / "agent.conf").write_bytes(b"\xff")
    with pytest.raises(config.ConfigError, match="can't be read"):
        config.load(tmp_path / "agent.conf")


def test_folders_are_made_and_tried(tmp_path: Path) -> None:
    text = (
        f"[log]\nfolder = {tmp_path}/a/log\n"
        f"[paths]\nstate = {tmp_path}/state\nruntime = {tmp_path}/run\n"
    )
    config.check_folders(config.parse(text))

    assert (tmp_path / "a/log").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "a/log").iterdir()) == []
    with pytest.raises(config.ConfigError, match=r"\[log\] folder = /proc/x can't be written"):
        config.check_folders(config.parse("[log]\nfolder = /proc/x"))


def test_the_guide_has_every_option() -> None:
    guide = (Path(__file__).parents[3] / "docs/agent.md").read_text()
    rows = [
        f"| `[{one.section}] {one.name}` | {one.default and f'`{one.default}`'} | {one.doc} |\n"
        for one in config.OPTIONS
    ]

    assert "".join(["| option | default | |\n|---|---|---|\n", *rows]) in guide
