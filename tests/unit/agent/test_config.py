from __future__ import annotations

import contextlib
import re
import subprocess
import sys
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


def with_metrics(folder: Path, file: str | Path) -> str:
    return (
        f"[agent]\nsensor = bpf\n[bpf]\npins = {folder}/pins\n[log]\nfolder = {folder}/log\n"
        f"[paths]\nstate = {folder}/state\nruntime = {folder}/run\n"
        f"[health]\nmetrics_file = {folder / file}\n"
    )


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("gone/agent.prom", "No such file or directory"),
        ("agent.conf/agent.prom", "Not a directory"),
        ("log", "Is a directory"),
        ("/sys/agent.prom", "Permission denied|Read-only file system|Operation not permitted"),
    ],
)
def test_metrics_that_can_not_be_written_are_refused(tmp_path: Path, file: str, why: str) -> None:
    (tmp_path / "agent.conf").touch()
    with pytest.raises(config.ConfigError) as caught:
        config.check_folders(config.parse(with_metrics(tmp_path, file)))

    start = re.escape(f"[health] metrics_file = {tmp_path / file} can't be written: ")
    assert re.fullmatch(f"{start}(?:{why}); its folder has to be there, .*", str(caught.value))
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("command", ["config-check", "run"])
def test_such_metrics_stop_a_command_before_it_begins(tmp_path: Path, command: str) -> None:
    path = tmp_path / "agent.conf"
    path.write_text(with_metrics(tmp_path, "gone/agent.prom"))
    asked = [sys.executable, "-m", "exectrail_agent", command, "--config", str(path)]
    # Else it would go on for ever.
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)

    assert (done.returncode, done.stdout) == (config.EXIT_CONFIG, "")
    assert done.stderr.startswith("exectrail-agent: [health] metrics_file = ")
    assert done.stderr.count("\n") == 1


def test_a_folder_of_metrics_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir(mode=0o750)
    config.check_folders(config.parse(with_metrics(tmp_path, "metrics/agent.prom")))

    assert list((tmp_path / "metrics").iterdir()) == []
    assert (tmp_path / "metrics").stat().st_mode & 0o777 == 0o750


def test_the_guide_has_every_option_with_what_it_may_be() -> None:
    guide = (Path(__file__).parents[3] / "docs/agent.md").read_text()
    rows = [
        f"| `[{one.section}] {one.name}` | {one.default and f'`{one.default}`'}"
        f" | {one.kind.allowed} | {one.doc} |\n"
        for one in config.OPTIONS
    ]

    assert "".join(["| option | default | may be | |\n|---|---|---|---|\n", *rows]) in guide


@pytest.mark.parametrize("option", config.OPTIONS, ids=lambda one: one.name)
def test_what_an_option_may_be_is_what_is_accepted(option: config.Option) -> None:
    def takes(text: str) -> bool:
        try:
            config.parse(f"[{option.section}]\n{option.name} = {text}\n")
        except config.ConfigError:
            return False
        return True

    allowed = option.kind.allowed
    assert takes(option.default)
    if allowed.startswith("one of "):
        assert all(map(takes, allowed[len("one of ") :].split(", ")))
        assert not takes("")
    elif allowed.startswith("a whole number"):
        least, most = map(int, re.findall("[0-9]+", allowed))
        answers = [takes(str(one)) for one in (least - 1, least, most, most + 1)]
        assert answers == [False, True, True, False]
    elif allowed.startswith("an absolute path"):
        assert [takes("/a"), takes("a"), takes("")] == [True, False, "nothing" in allowed]
    else:
        assert [takes("a" * 253), takes("a" * 254), takes("a/b")] == [True, False, False]
