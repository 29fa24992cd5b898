"""Upgrades, mounts and the rest of the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import Directory, Link, Program, systemctl

# --- upgrades ---

APT = """
cat <<END
APT "";
apt::periodic::update-package-lists "1";
APT::Periodic::Unattended-Upgrade "1";
APT::Periodic::Verbose "2";
APT::Architectures:: "amd64";
END
"""


def test_no_apt(item: Callable[..., Any]) -> None:
    assert item("upgrades.apt") is None


def test_effective_apt_configuration(item: Callable[..., Any]) -> None:
    config = {
        "APT::Periodic::Update-Package-Lists": "1",
        "APT::Periodic::Unattended-Upgrade": "1",
    }
    files = {"/usr/bin/apt-config": Program(APT)}
    assert item("upgrades.apt", files) == {"installed": False, "config": config}
    files = {"/usr/bin/unattended-upgrade": Program("")}
    assert item("upgrades.apt", files) == {"installed": True, "config": config}


def test_an_apt_that_fails_is_unreadable(item: Callable[..., Any]) -> None:
    files = {"/usr/bin/apt-config": Program("echo 'E: syntax error' >&2; exit 100")}
    got = item("upgrades.apt", files)
    assert got == {"unreadable": "apt-config: exit code 100: E: syntax error"}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/dnf/automatic.conf",
        "/etc/dnf/dnf5-plugins/automatic.conf",
        "/usr/share/dnf5/dnf5-plugins/automatic.conf",
        "/etc/yum/yum-cron.conf",
    ],
)
def test_dnf(item: Callable[..., Any], path: str) -> None:
    text = "[commands]\nupgrade_type = default\napply_updates = yes\n[x]\napply_updates = no\n"
    assert item("upgrades.dnf", {path: text}) == {"apply_updates": "yes", "file": path}


def test_units(item: Callable[..., Any], ne: ModuleType) -> None:
    files = systemctl(
        {
            "apt-daily-upgrade.timer": ("masked", "masked", "inactive"),
            "apt-daily.timer": ("loaded", "enabled", "active"),
            "unattended-upgrades.service": ("loaded", "disabled", "inactive"),
        }
    )
    got = item("upgrades.units", files)
    assert tuple(got) == ne.UPGRADE_UNITS
    assert got["apt-daily-upgrade.timer"] == {
        "load": "masked",
        "enabled": "masked",
        "active": "inactive",
    }
    assert got["apt-daily.timer"] == {"load": "loaded", "enabled": "enabled", "active": "active"}
    assert got["snapd.service"] == {"load": "not-found", "enabled": "", "active": "inactive"}


def test_no_systemd_has_no_units(item: Callable[..., Any]) -> None:
    assert item("upgrades.units", {"/usr/bin/systemctl": Program("exit 1")}) == {}


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (None, "systemd runs, but there is no systemctl"),
        (Program("echo Failed to connect to bus >&2; exit 1"), "exit code 1: Failed to connect"),
        (Program("echo Running in chroot, ignoring request."), "not the answer"),
        (Program("echo Id=x; echo; echo LoadState=y"), "not the answer"),
    ],
)
def test_a_systemctl_that_does_not_answer(
    item: Callable[..., Any], program: Program | None, why: str
) -> None:
    files: dict[str, Any] = {
        "/run/systemd/system": Directory(),
        "/usr/lib/systemd/system/apt-daily.timer": "[Timer]\n",
    }
    if program:
        files["/usr/bin/systemctl"] = program
    for name in ("upgrades.units", "resolver.manager", "clock", "hardening"):
        got = item(name, files)
        files = {}
        assert list(got) == ["unreadable"]
        assert why in got["unreadable"]


def test_units_without_a_file_are_not_asked_for(item: Callable[..., Any]) -> None:
    files = {"/run/systemd/system": Directory(), "/usr/bin/systemctl": Program("exit 1")}
    got = item("upgrades.units", files)
    absent = {"load": "not-found", "enabled": "", "active": "inactive"}
    assert [state for state in got.values() if state != absent] == []


def test_systemctl_is_asked_once(node: Callable[..., Any], ne: ModuleType) -> None:
    states = {"apt-daily.timer": ("loaded", "enabled", "active")}
    machine = node({**systemctl(states), "/proc/1/comm": "systemd\n", "/proc/1/mountinfo": ""})
    ne.collect(machine)
    assert machine.children == 1


# --- mounts ---


def test_current_mounts_without_pseudo_file_systems(item: Callable[..., Any]) -> None:
    text = (
        "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n2 1 0:2 / /proc rw - proc proc rw\n"
        "3 1 0:3 / /run rw - tmpfs tmpfs rw\n4 1 0:4 / /x rw - overlay overlay rw\n"
        "5 1 0:5 / /data\\040set rw - nfs4 cpfs-1.example:/share rw,vers=4\n"
    )
    got = item("mounts.current", {"/proc/1/mountinfo": text})
    assert got == {
        "list": [
            {
                "source": "cpfs-1.example:/share",
                "target": "/data set",
                "fstype": "nfs4",
                "options": "rw,vers=4",
            },
            {"source": "/dev/vda1", "target": "/", "fstype": "ext4", "options": "rw"},
        ],
        "truncated": False,
        "total": 2,
    }


def test_many_bind_mounts_do_not_push_a_network_mount_out(item: Callable[..., Any]) -> None:
    lines = [f"{n} 1 8:1 / /pod{n} rw - ext4 /dev/vda1 rw\n" for n in range(500)]
    lines.append("900 1 0:9 / /far rw - nfs server:/x rw\n")
    got = item("mounts.current", {"/proc/1/mountinfo": "".join(lines)})
    assert got["truncated"] is True
    assert got["total"] == 501
    assert len(got["list"]) == 100
    assert got["list"][0]["target"] == "/far"


def test_mount_units(item: Callable[..., Any]) -> None:
    files = {
        "/etc/systemd/system/data.mount": "[Mount]\nWhat=cpfs-1:/x\nWhere=/data\nType=nfs\n",
        "/usr/lib/systemd/system/data.mount": "[Mount]\nWhat=other\nWhere=/data\n",
        "/etc/systemd/system/data.mount.d/type.conf": "[Mount]\nType=cpfs\n",
        "/usr/lib/systemd/system/tmp.mount": "[Mount]\nWhat=tmpfs\nWhere=/tmp\nType=tmpfs\n",
        "/usr/lib/systemd/system/gone.mount": "[Mount]\nWhat=x\nWhere=/gone\nType=nfs\n",
        "/etc/systemd/system/gone.mount": Link("/dev/null"),
    }
    assert item("mounts.units", files) == [
        {"unit": "data.mount", "what": "cpfs-1:/x", "where": "/data", "type": "cpfs"}
    ]


def test_no_mount_units(item: Callable[..., Any]) -> None:
    assert item("mounts.units") == []


# --- machine ---


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({}, None),
        ({"/usr/lib/systemd/systemd": "", "/usr/lib/systemd/libsystemd-shared-252.so": ""}, 252),
        (
            {
                "/lib/systemd/systemd": "",
                "/usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so": "",
            },
            257,
        ),
        (
            {
                "/usr/lib/systemd/systemd": "",
                "/usr/lib/systemd/libsystemd-shared-249.12-0ubuntu3.so": "",
            },
            249,
        ),
        (
            {
                "/usr/lib/systemd/systemd": "",
                "/usr/bin/systemctl": Program("echo 'systemd 219'; echo +PAM"),
            },
            219,
        ),
    ],
)
def test_systemd_version(
    item: Callable[..., Any], files: dict[str, Any], version: int | None
) -> None:
    assert item("systemd.version", files) == version


def test_systemd_that_does_not_tell_its_version(item: Callable[..., Any]) -> None:
    got = item("systemd.version", {"/usr/lib/systemd/systemd": ""})
    assert list(got) == ["unreadable"]


def test_python_interpreters(item: Callable[..., Any]) -> None:
    assert item("python.interpreters") == []
    files = {
        "/usr/bin/python3": Link("python3.6"),
        "/usr/bin/python3.6": Program(""),
        "/usr/local/bin/python3.12": Program(""),
        "/usr/libexec/platform-python": Link("/usr/bin/python3.6"),
        "/usr/bin/python": Link("python2.7"),
        "/usr/bin/python2.7": Program(""),
        "/usr/bin/python3.9": "not executable",
    }
    assert item("python.interpreters", files) == [
        {"path": "/usr/bin/python3", "version": "3.6"},
        {"path": "/usr/bin/python", "version": "2.7"},
        {"path": "/usr/local/bin/python3.12", "version": "3.12"},
    ]


@pytest.mark.parametrize(
    ("unit", "daemon"),
    [
        ("systemd-timesyncd.service", "systemd-timesyncd"),
        ("chrony.service", "chronyd"),
        ("ntpsec.service", "ntpd"),
        ("other.service", None),
    ],
)
def test_clock(item: Callable[..., Any], unit: str, daemon: str | None) -> None:
    got = item("clock", systemctl({unit: ("loaded", "enabled", "active")}))
    assert got["by"] == daemon
    assert isinstance(got["synchronised"], bool)
    assert 0 <= got["max_error_seconds"] < 60


def test_disk(item: Callable[..., Any]) -> None:
    assert item("disk.log") == {"unreadable": "/var/log: no such directory"}
    got = item("disk.log", {"/var/log": Directory()})
    assert got["path"] == "/var/log"
    assert got["bytes_total"] >= got["bytes_free"] > 0
    assert got["inodes_total"] >= got["inodes_free"]


def test_memory(item: Callable[..., Any]) -> None:
    text = "MemTotal:        2048 kB\nMemFree:  1 kB\n"
    assert item("memory.total", {"/proc/meminfo": text}) == 2048 * 1024


def test_memory_without_a_total(item: Callable[..., Any]) -> None:
    assert item("memory.total", {"/proc/meminfo": "x"}) == {
        "unreadable": "/proc/meminfo: no MemTotal"
    }


PRO = "/var/lib/ubuntu-advantage/status.json"


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, []),
        ({"/var/lib/usg": Directory()}, []),
        ({"/var/lib/usg/usg-results-1.xml": ""}, ["Ubuntu Security Guide"]),
        ({"/etc/modprobe.d/dev-sec.conf": ""}, ["DevSec hardening"]),
        ({"/etc/ansible/facts.d/compliance_facts.fact": ""}, ["Ansible Lockdown"]),
        ({"/proc/sys/crypto/fips_enabled": "1\n"}, ["FIPS mode"]),
        ({"/proc/sys/crypto/fips_enabled": "0\n"}, []),
        (
            {"/etc/image-id": 'image_id="aliyun_3_x64_20G_dengbao_alibase_20240819.vhd"\n'},
            ["MLPS 2.0 image"],
        ),
        ({"/etc/image-id": 'image_id="aliyun_3_x64_20G_alibase_20240819.vhd"\n'}, []),
        (
            {
                PRO: json.dumps(
                    {
                        "services": [
                            {"name": "usg", "status": "enabled"},
                            {"name": "fips", "status": "disabled"},
                            {"name": "esm-infra", "status": "enabled"},
                            "rubbish",
                        ]
                    }
                )
            },
            ["Ubuntu Pro usg"],
        ),
        ({PRO: "[]"}, []),
        (systemctl({"fapolicyd.service": ("loaded", "enabled", "active")}), ["fapolicyd"]),
        (systemctl({"fapolicyd.service": ("loaded", "disabled", "inactive")}), []),
    ],
)
def test_hardening(item: Callable[..., Any], files: dict[str, Any], names: list[str]) -> None:
    assert [mark["name"] for mark in item("hardening", files)] == names
