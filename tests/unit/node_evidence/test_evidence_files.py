"""What Node does with files and programs that are not what they should be."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import SCRIPT, Directory, Fifo, Link, Program, Socket, Sparse

HOSTILE = [
    pytest.param(Fifo(), "not a regular file but a fifo", id="fifo"),
    pytest.param(Socket(), "not a regular file but a socket", id="socket"),
    pytest.param(Directory(), "not a regular file but a directory", id="directory"),
    pytest.param(Sparse(1 << 40), "too large (at most", id="sparse-terabyte"),
    pytest.param(b"ID=x\0\x01\x02", "binary", id="binary"),
    pytest.param(Link("os-release"), "Too many levels of symbolic links", id="symlink-loop"),
]
# Each item that reads one file by name: that file, and what absence means.
ONE_FILE_ITEMS = {
    "os.release": ("/etc/os-release", None),
    "os.hostname": ("/proc/sys/kernel/hostname", None),
    "os.machine_id": ("/etc/machine-id", False),
    "kernel.release": ("/proc/sys/kernel/osrelease", None),
    "kernel.version": ("/proc/sys/kernel/osrelease", None),
    "kernel.cgroup_mode": ("/proc/self/mountinfo", None),
    "kernel.tracefs": ("/proc/self/mountinfo", None),
    "resolver.resolv_conf": ("/etc/resolv.conf", {}),
    "upgrades.dnf": ("/etc/dnf/automatic.conf", ...),
    "mounts.current": ("/proc/1/mountinfo", None),
    "mounts.fstab": ("/etc/fstab", []),
    "memory.total": ("/proc/meminfo", None),
    "hardening": ("/proc/sys/crypto/fips_enabled", []),
    "accelerators": ("/etc/containerd/config.toml", None),
}


@pytest.mark.parametrize(("content", "why"), HOSTILE)
def test_a_file_that_is_no_text_file_is_unreadable(
    node: Callable[..., Any], ne: ModuleType, content: object, why: str
) -> None:
    machine = node({"/etc/os-release": content})
    with pytest.raises(ne.Unreadable, match=r".") as caught:
        machine.text("/etc/os-release")
    assert why in str(caught.value)
    assert str(caught.value).startswith("/etc/os-release: ")


@pytest.mark.parametrize("content", [Fifo(), Directory(), Sparse(1 << 30), b"\0\xff" * 50])
@pytest.mark.parametrize("name", sorted(ONE_FILE_ITEMS))
def test_every_item_survives_what_is_not_its_file(
    item: Callable[..., Any], name: str, content: object
) -> None:
    path, _ = ONE_FILE_ITEMS[name]
    if name == "resolver.resolv_conf" and isinstance(content, Fifo | Directory):
        assert item(name, {path: content})["type"] == "other"
        return
    got = item(name, {path: content, "/proc/1/mountinfo" if "1" not in path else "/x": ""})
    assert list(got) == ["unreadable"]
    assert path in got["unreadable"]


@pytest.mark.parametrize("name", sorted(ONE_FILE_ITEMS))
def test_an_empty_node_has_no_item_that_is_wrong(item: Callable[..., Any], name: str) -> None:
    _, absent = ONE_FILE_ITEMS[name]
    got = item(name)
    if absent is None:
        assert list(got) == ["unreadable"]
    elif name == "resolver.resolv_conf":
        assert got["type"] == "missing"
    elif absent is ...:
        assert got is None
    else:
        assert got == absent


def test_a_device_is_not_opened(ne: ModuleType) -> None:
    with pytest.raises(ne.Unreadable, match="not a regular file but a device"):
        ne.Node("/").read("/dev/zero")


def test_a_file_that_grows_while_it_is_read_is_cut_off(ne: ModuleType) -> None:
    with pytest.raises(ne.Unreadable, match="too large"):
        ne.Node("/").read("/proc/self/maps", limit=16)


def test_symlinks_stay_below_the_root(node: Callable[..., Any], ne: ModuleType) -> None:
    machine = node(
        {
            "/etc/absolute": Link("/data/real"),
            "/etc/relative": Link("../data/real"),
            "/etc/above": Link("../../../../../data/real"),
            "/etc/dangling": Link("/data/none"),
            "/data/real": "text",
        }
    )
    for name in ("absolute", "relative", "above"):
        assert machine.text("/etc/" + name) == "text"
        assert machine.resolve("/etc/" + name)[0] == "/data/real"
    with pytest.raises(ne.Absent):
        machine.text("/etc/dangling")


def test_text_keeps_bytes_that_are_no_utf8(node: Callable[..., Any], ne: ModuleType) -> None:
    text = node({"/etc/x": b"caf\xe9"}).text("/etc/x")
    assert ne.clean(text) == "caf\\xe9"


def test_a_directory_with_foreign_names_can_be_listed(
    node: Callable[..., Any], ne: ModuleType, tmp_path: Path
) -> None:
    machine = node({"/etc/d": Directory()})
    with open(os.fsencode(tmp_path) + b"/etc/d/\xff\n.conf", "w", encoding="utf-8") as file:  # noqa: PTH123 - a path of bytes
        file.write("text")
    assert [ne.clean(path) for path in machine.files("/etc/d", ".conf")] == ["/etc/d/\\xff\n.conf"]
    assert machine.text(machine.files("/etc/d", ".conf")[0]) == "text"


def test_first_directory_wins_when_directories_are_merged(node: Callable[..., Any]) -> None:
    machine = node({"/a/1.conf": "", "/b/1.conf": "", "/b/0.conf": "", "/b/x": ""})
    assert machine.merged(["/a", "/b", "/none"], ".conf") == ["/b/0.conf", "/a/1.conf"]


# --- programs ---


def test_a_program_answers_with_its_output_in_a_bare_environment(node: Callable[..., Any]) -> None:
    machine = node({"/usr/bin/tool": Program('echo "$1 $LC_ALL $HOME"; cat')})
    assert machine.run("tool", "argument") == "argument C /nonexistent\n"
    assert machine.children == 1


def test_no_program_is_absent(node: Callable[..., Any], ne: ModuleType) -> None:
    with pytest.raises(ne.Absent):
        node({"/usr/bin/tool": "not executable"}).run("tool")


def living(group: int) -> list[str]:
    """Names of the processes of a process group that are no zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, its_group, *_ = rest.split()
            if its_group == str(group) and state != "Z":
                found.append(name)
    return found


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("echo oh no >&2; exit 3", "tool: exit code 3: oh no"),
        ("kill -9 $$", "tool: exit code -9"),
        ("yes", "tool: more than 524288 bytes of output"),
        ("yes >&2", "tool: more than 524288 bytes of output"),
        ("sleep 60", "tool: no answer in time"),
        ("sleep 60 & exit 0", "tool: no answer in time"),
        ("sleep 60 & exec >&- 2>&-; wait", "tool: no answer in time"),
        ("trap '' TERM; sleep 60 & sleep 60", "tool: no answer in time"),
    ],
)
def test_a_program_that_fails_or_hangs_is_unreadable_and_gone(
    node: Callable[..., Any], ne: ModuleType, monkeypatch: pytest.MonkeyPatch, body: str, why: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen
    monkeypatch.setattr(
        ne.subprocess, "Popen", lambda *a, **o: started.append(real(*a, **o)) or started[-1]
    )
    machine = node({"/usr/bin/tool": Program(f"{body}\n")})
    machine.deadline = time.monotonic() + (0.7 if "sleep" in body else 60)
    with pytest.raises(ne.Unreadable, match=r".") as caught:
        machine.run("tool")
    assert why in str(caught.value)
    (tool,) = started
    given_up = time.monotonic() + 30
    while living(tool.pid) and time.monotonic() < given_up:
        time.sleep(0.01)
    assert living(tool.pid) == []


def test_a_broken_program_is_unreadable(
    node: Callable[..., Any], ne: ModuleType, tmp_path: Path
) -> None:
    machine = node({"/usr/bin/tool": b"\x7fELF broken"})
    (tmp_path / "usr/bin/tool").chmod(0o755)
    with pytest.raises(ne.Unreadable, match="tool: "):
        machine.run("tool")


def test_a_seventh_program_is_not_started(node: Callable[..., Any], ne: ModuleType) -> None:
    machine = node({"/usr/bin/tool": Program("exit 0")})
    for _ in range(6):
        machine.run("tool")
    with pytest.raises(ne.Unreadable, match="6 programs were started already"):
        machine.run("tool")
    assert machine.children == 6


# --- without root ---


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give it up")
def test_what_needs_root_says_so_without_it(tmp_path: Path) -> None:
    secret = tmp_path / "etc" / "fstab"
    secret.parent.mkdir()
    secret.write_text("/dev/x / ext4\n")
    secret.chmod(0)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == 0 and str(path).startswith("/tmp/"):  # noqa: S108 - pytest's own folder
            path.chmod(0o755)
    code = (
        "import ctypes, json, os, resource, sys\n"
        "space = {'__name__': 'evidence'}\n"
        "exec(open(sys.argv[1]).read(), space)\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "node = space['Node'](sys.argv[2])\n"
        "wanted = ('mounts.fstab', 'kernel.bpf', 'kernel.audit')\n"
        "items = [item for item in space['ITEMS'] if item[0] in wanted]\n"
        "print(json.dumps(space['collect'](node, items)[0]))\n"
    )
    out = subprocess.run(
        [sys.executable, "-I", "-c", code, SCRIPT, tmp_path], capture_output=True, check=True
    ).stdout
    got = json.loads(out)
    assert set(got) == {"mounts.fstab", "kernel.bpf", "kernel.audit"}
    assert got["mounts.fstab"] == {"unreadable": "/etc/fstab: Permission denied (needs root)"}
    for value in got.values():
        assert list(value) == ["unreadable"]
        assert value["unreadable"].endswith("(needs root)")
