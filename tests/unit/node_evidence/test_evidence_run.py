"""The whole script: limits, output, and real runs with every Python there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from evidence_tree import MODULE, SCRIPT, Directory, Fifo, Program, systemctl

from tests.unit.scripts import interpreters

REFERENCE = SCRIPT.parents[2] / "docs" / "reference" / "evidence.md"
LIMIT = 64 * 1000


HOSTILE = """
    /etc/os-release
    /etc/resolv.conf
    /etc/fstab
    /etc/machine-id
    /etc/dnf/automatic.conf
    /etc/containerd/config.toml
    /proc/meminfo
    /proc/1/comm
    /proc/1/mountinfo
    /proc/self/mountinfo
    /proc/sys/kernel/osrelease
    /etc/containers/storage.conf
    /etc/systemd/system/x.mount
    /etc/systemd/resolved.conf
    /etc/image-id
"""


def documented() -> set[str]:
    """Names in the first column of the reference's table of items."""
    page = REFERENCE.read_text().partition("\n## What is installed\n")[0]
    return set(re.findall(r"^\| `([a-z0-9._]+)` \|", page, re.MULTILINE))


# --- the assembly ---


def test_one_failing_item_costs_no_other(node: Callable[..., Any], ne: ModuleType) -> None:
    def broken(_node: Any) -> None:
        raise KeyError("x")

    def missing(_node: Any) -> None:
        raise FileNotFoundError(2, "No such file", "/x")

    items, late = ne.collect(node(), (("a", broken), ("b", missing), ("c", lambda _: 1)))
    assert items == {
        "a": {"unreadable": "unexpected: KeyError: 'x'"},
        "b": {"unreadable": "/x: No such file"},
        "c": 1,
    }
    assert late == []


@pytest.fixture
def hang(ne: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """An item that hangs, and is left soon; those after it have time again."""
    monkeypatch.setattr(ne, "PROBE_SECONDS", 0.2)

    def hang(_node: Any) -> None:
        ne.PROBE_SECONDS = 60
        time.sleep(60)

    return hang


def test_an_item_that_hangs_is_left_behind(
    node: Callable[..., Any], ne: ModuleType, hang: Callable[[Any], None]
) -> None:
    started = time.monotonic()
    items, late = ne.collect(node(), (("slow", hang), ("fast", lambda _: 1)))
    assert time.monotonic() - started < 30
    assert items == {"slow": {"unreadable": "not finished within 0.2 s"}, "fast": 1}
    assert late == ["slow"]


def test_the_whole_run_has_a_limit(
    node: Callable[..., Any], ne: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ne, "PROBE_SECONDS", 0.3)
    monkeypatch.setattr(ne, "TOTAL_SECONDS", 0.5)
    items, late = ne.collect(node(), [(name, lambda _: time.sleep(60)) for name in "abcd"])
    assert late == list("abcd")
    assert items["a"] == {"unreadable": "not finished within 0.3 s"}
    assert items["d"] == {"unreadable": "not reached within 0.5 s"}


def test_a_helper_that_hung_is_not_waited_for_again(
    node: Callable[..., Any], ne: ModuleType, hang: Callable[[Any], None]
) -> None:
    items, late = ne.collect(
        node(), (("a", lambda node: node.once(hang)), ("b", lambda node: node.once(hang)))
    )
    assert late == ["a"]
    assert items["b"] == {"unreadable": "hang: cut off earlier"}


def test_a_hung_systemctl_is_asked_once_and_killed(
    node: Callable[..., Any], ne: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ne, "CHILD_SECONDS", 0.3)
    machine = node(
        {
            "/run/systemd/system": Directory(),
            "/usr/bin/systemctl": Program("sleep 60"),
            "/usr/lib/systemd/system/apt-daily.timer": "[Timer]\n",
            "/etc/os-release": "ID=debian\n",
        }
    )
    started = time.monotonic()
    items, late = ne.collect(machine)
    assert time.monotonic() - started < 30
    assert machine.children == 1
    assert late == []
    assert items["os.release"] == {"ID": "debian"}
    for name in ("upgrades.units", "clock", "hardening"):
        assert items[name] == {"unreadable": "systemctl: no answer in time"}


def test_what_is_too_large_gives_way(ne: ModuleType) -> None:
    items = {"big": ["x" * 100] * 900, "bigger": ["y" * 100] * 2000, "small": 1}
    got = ne.document(items)["items"]
    assert len(ne.encode(got)) < LIMIT
    assert got["small"] == 1
    assert got["bigger"]["unreadable"].startswith("too large: ")
    assert got["big"]["unreadable"].startswith("too large: ")


def test_output_is_bounded_on_a_node_full_of_everything(
    node: Callable[..., Any], ne: ModuleType
) -> None:
    long = "é" * 200
    mounts = "".join(f"1 2 0:{n} / /{n}{long} rw,{long} - nfs {long} rw\n" for n in range(900))
    files: dict[str, Any] = {
        "/proc/1/mountinfo": mounts,
        "/proc/self/mountinfo": mounts,
        "/proc/1/comm": "init\n",
        "/etc/fstab": "".join(f"{long} /{long} nfs {long} 0 0\n" for _ in range(400)),
        "/etc/os-release": "".join(f"K{n}={long}{long}\n" for n in range(400)),
        "/etc/resolv.conf": "".join(f"nameserver 10.0.{n // 250}.{n % 250}\n" for n in range(900)),
        "/etc/containerd/config.toml": "".join(
            f'[proxy_plugins.nydus{n}]\naddress = "{long}nydus"\n' for n in range(500)
        ),
        "/usr/bin/containerd": Program("exit 0"),
        "/usr/bin/kubelet": Program("exit 0"),
        **{f"/etc/kubernetes/manifests/{n}{long[:100]}": "kind: Pod\n" for n in range(99)},
        **systemctl({}),
    }
    items, late = ne.collect(node(files))
    line = ne.encode({"evidence": ne.document(items)})
    assert late == []
    assert len(line) < LIMIT
    assert line.isascii()
    assert json.loads(line)["evidence"]["items"]["kernel.lsms"]["unreadable"]


def test_an_empty_node_and_a_hostile_one_answer_every_item(
    node: Callable[..., Any], ne: ModuleType
) -> None:
    hostile = {path: Fifo() for path in HOSTILE.split()}
    for files in ({}, hostile):
        items, late = ne.collect(node(files))
        assert late == []
        assert set(items) == {name for name, _ in ne.ITEMS}
        assert not [value for value in items.values() if "unexpected" in str(value)]


# --- real runs ---


def run(*command: str, **options: Any) -> tuple[dict[str, Any], subprocess.CompletedProcess[bytes]]:
    with SCRIPT.open("rb") as source:
        done = subprocess.run(command, stdin=source, capture_output=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"evidence"}
    assert document["evidence"]["schema"] == 1
    return document["evidence"]["items"], done


@pytest.mark.parametrize("python", interpreters())
def test_a_real_run(python: str) -> None:
    items, done = run(python, "-I", "-")
    assert done.stderr == b""
    assert done.stdout.count(b"\n") == 1
    assert done.stdout.isascii()
    assert len(done.stdout) < LIMIT
    assert set(items) == documented()
    collector = items["collector"]
    assert collector["children"] <= 6
    assert collector["late"] == []
    assert collector["uid"] == os.geteuid()
    assert collector["seconds"] < 30
    assert python is not None
    assert collector["python"].rpartition(".")[0] in python
    assert items["kernel.release"] == os.uname().release
    assert items["os.architecture"] == os.uname().machine
    assert not [value for value in items.values() if "unexpected" in str(value)]


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_the_locale_does_not_matter(locale: str) -> None:
    run(sys.executable, "-", env={"LC_ALL": locale, "PATH": "/nowhere"})


def test_it_ends_well_when_nobody_reads() -> None:
    with SCRIPT.open("rb") as source, Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-"], stdin=source, stdout=full, check=False)
    assert done.returncode == 0


READ_ONLY = """
mount --make-rprivate / && mount -o remount,bind,ro / && ! touch /probe 2>/dev/null && exec "$0" -
"""


def can_remount() -> bool:
    script = READ_ONLY.replace('exec "$0" -', "true")
    return (
        os.geteuid() == 0
        and shutil.which("unshare") is not None
        and subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], capture_output=True, check=False
        ).returncode
        == 0
    )


@pytest.mark.skipif(not can_remount(), reason="needs root and mount namespaces")
def test_nothing_is_written() -> None:
    free, _ = run(sys.executable, "-")
    locked, _ = run("unshare", "--mount", "sh", "-c", READ_ONLY, sys.executable)
    for name, value in free.items():
        if isinstance(value, dict) and list(value) == ["unreadable"]:
            continue
        assert not (isinstance(locked[name], dict) and list(locked[name]) == ["unreadable"]), name


def written_paths(trace: str) -> list[str]:
    """Files that a system call log shows as opened for writing, created, renamed or removed."""
    opened = re.findall(r'\bopen(?:at)?\([^"]*"([^"]+)", [^)]*O_(?:WRONLY|RDWR|CREAT)', trace)
    changed = re.findall(
        r'\b(?:mkdir|unlink|rename|symlink|link|chmod|chown|truncate|mknod)(?:at2?)?\([^"]*"([^"]+)"',
        trace,
    )
    return [path for path in opened + changed if not path.startswith("/dev/")]


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace on this machine")
def test_no_system_call_writes_a_file(tmp_path: Path) -> None:
    log = tmp_path / "trace"
    tracer = ["strace", "-f", "-qq", "-s", "300", "-o", str(log), "-e", "trace=%file,ftruncate"]
    if subprocess.run([*tracer, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed here")
    run(*tracer, sys.executable, "-")
    trace = log.read_text(errors="replace")
    assert written_paths(trace) == []
    started = re.findall(r"execve\(.*= 0$", trace, re.MULTILINE)
    assert len(started) <= 1 + 6


# --- what the file says about itself ---


def test_the_documentation_is_yaml_with_everything_that_is_asked_of_a_module() -> None:
    documentation = yaml.safe_load(MODULE.DOCUMENTATION)
    assert documentation["module"] == "node_evidence"
    assert set(documentation["options"]) == {"report_dir", "variables", "installation"}
    assert documentation["attributes"]["check_mode"]["support"] == "full"
    assert set(documentation["attributes"]) == {
        "check_mode",
        "diff_mode",
        "platform",
        "safe_file_operations",
    }
    assert yaml.safe_load(MODULE.EXAMPLES)
    returned = yaml.safe_load(MODULE.RETURN)["evidence"]
    assert set(returned["contains"]) == {"schema", "items"}


def test_every_item_is_documented_and_nothing_else() -> None:
    assert documented() == {name for name, _ in MODULE.ITEMS} | {"collector"}
