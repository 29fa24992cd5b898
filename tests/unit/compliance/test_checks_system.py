"""The checks of operating system, kernel, sensor and host: each at its boundaries."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compliance.nodes import judge, node, profile


def release(system: str, like: str = "") -> dict[str, Any]:
    return {"os.release": {"ID": system, "ID_LIKE": like, "PRETTY_NAME": "Some Linux"}}


@pytest.mark.parametrize(
    ("profile", "found", "status", "says"),
    [
        ("ack", {"ID": "alinux", "ID_LIKE": "rhel fedora centos anolis"}, "pass", "Alibaba"),
        ("ack", {"ID": "lifsea"}, "pass", "ContainerOS"),
        ("ack", {"ID": "ubuntu", "ID_LIKE": "debian"}, "pass", "Ubuntu"),
        ("ack", {"ID": "Ubuntu"}, "fail", "none of the supported"),
        ("ack", {"ID": "debian"}, "fail", "none of the supported"),
        ("ack", {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "fail", "is not Ubuntu"),
        ("ack", {"ID": "kylin", "ID_LIKE": "ubuntu"}, "fail", "derived from Ubuntu"),
        ("ack", {"ID": "x", "ID_LIKE": "ubuntu-like"}, "fail", "none of the supported"),
        ("ack", {}, "fail", "'linux' is none of the supported"),
        ("self_managed", {"ID": "debian"}, "pass", "Debian"),
        ("self_managed", {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "pass", "from Ubuntu"),
        ("self_managed", {"ID": "gentoo"}, "fail", "none of the supported"),
    ],
)
def test_os_family(profile: str, found: dict[str, str], status: str, says: str) -> None:
    result = judge("node.os-family", node(items={"os.release": found}), profile)
    assert (result.status, says in result.message) == (status, True), result


def test_the_expected_operating_systems_are_listed() -> None:
    result = judge("node.os-family", node(), "ack")
    assert result.expected == "one of Alibaba Cloud Linux, ContainerOS, Ubuntu"
    assert judge("node.os-family", node()).expected.endswith("Ubuntu, or a derivative of one")


@pytest.mark.parametrize(
    ("kernel", "status"),
    [
        ("4.18.0-553.el8_10.x86_64", "fail"),
        ("4.19.0", "fail"),
        ("4.19.0-27-amd64", "fail"),
        ("4.19", "fail"),
        ("4.19-rc1", "fail"),
        ("4.19.1", "pass"),
        ("4.19.91-26.al7.x86_64", "pass"),
        ("4.20", "pass"),
        ("4.20.0-042000-generic", "pass"),
        ("5.10.0-30-cloud-amd64", "pass"),
        ("5.10.134-15.1.2.lifsea8.x86_64", "pass"),
        ("10.0.0", "pass"),
        ("3.10.0-1160.el7", "fail"),
        ("", "error"),
        ("Linux 6.1", "error"),
        ("\N{FULLWIDTH DIGIT FIVE}.19.91", "error"),
        ("12345678.1.1", "error"),
    ],
)
def test_kernel_version(kernel: str, status: str) -> None:
    result = judge("node.kernel-version", node(items={"kernel.release": kernel}), "ack")
    assert result.status == status, result


BPF_WITHOUT = {"available": True, "raw_tracepoint": True, "ring_buffer": True, "btf_load": True}
NO_AUDIT = {"available": False, "why": "the kernel has no audit"}


def test_an_old_kernel_is_the_one_reason_given_for_no_bpf() -> None:
    old = {"kernel.release": "4.18.0-553.el8", "libbpf": None}
    result = judge("node.exec-sensor", node(items=old))
    assert result.observed == (
        "none (kernel 4.18.0-553.el8 is older than 5.8; "
        "kernel 4.18.0-553.el8 is not later than 4.19)"
    )
    assert result.message == "No sensor can run on this node."


@pytest.mark.parametrize("check", ["exec-sensor", "libbpf", "python", "systemd"])
def test_the_defaults_are_those_of_the_profile(check: str) -> None:
    found = {requirement.check.id: requirement for requirement in profile("self_managed").checks}
    requirement = found[f"node.{check}"]
    assert requirement.check.parameters() == requirement.parameters


CASES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "node.exec-sensor": [
        ({}, "pass", "bpf"),
        ({"kernel.release": "5.8.0"}, "pass", "bpf"),
        ({"kernel.lockdown": "integrity"}, "pass", "bpf"),
        ({"kernel.lockdown": "absent"}, "pass", "bpf"),
        ({"kernel.audit": NO_AUDIT}, "pass", "bpf"),
        # A kernel that is too old for bpf is meant to get audit.
        ({"kernel.release": "5.7.19"}, "pass", "audit (kernel 5.7.19 is older than 5.8)"),
        ({"kernel.release": "4.19.91", "kernel.btf": False}, "pass", "audit (kernel 4.19.91"),
        # libbpf is node.libbpf's finding.
        ({"libbpf": None}, "pass", "audit (libbpf is not installed)"),
        ({"libbpf": {"path": "/l", "version": "0.8.1"}}, "pass", "audit (libbpf 0.8.1 is older"),
        ({"libbpf": {"path": "/l", "version": "1.0.0"}}, "pass", "bpf"),
        # Anything else that keeps a newer kernel from bpf costs something.
        ({"kernel.btf": False}, "warn", "audit (the kernel has no BTF)"),
        ({"kernel.btf": False, "kernel.release": "5.8.0"}, "warn", "audit (the kernel has no BTF)"),
        ({"kernel.lockdown": "confidentiality"}, "warn", "audit (kernel lockdown"),
        ({"kernel.bpf": {"available": False, "why": "not allowed"}}, "warn", "(not allowed)"),
        ({"kernel.bpf": BPF_WITHOUT | {"ring_buffer": False}}, "warn", "no BPF ring buffer"),
        ({"kernel.bpf": BPF_WITHOUT | {"raw_tracepoint": False}}, "warn", "raw tracepoint"),
        ({"kernel.bpf": BPF_WITHOUT | {"btf_load": False}}, "warn", "loads no BTF"),
        # Neither.
        ({"kernel.release": "4.19.0"}, "fail", "not later than 4.19"),
        ({"kernel.release": "4.18.0", "kernel.audit": NO_AUDIT}, "fail", "has no audit"),
        ({"kernel.btf": False, "kernel.audit": NO_AUDIT}, "fail", "the kernel has no audit"),
        (
            {"kernel.btf": False, "kernel.audit": {"available": True, "enabled": 2, "pid": 0}},
            "fail",
            "locked until the next boot",
        ),
        (
            {"kernel.btf": False, "kernel.audit": {"available": True, "enabled": 0, "pid": 812}},
            "fail",
            "process 812",
        ),
        (
            {"kernel.btf": False, "kernel.audit": {"available": True, "enabled": 1, "pid": 812}},
            "warn",
            "audit",
        ),
        (
            {"kernel.btf": False, "kernel.audit": {"available": True, "enabled": 0, "pid": 0}},
            "warn",
            "audit",
        ),
        (
            {"kernel.btf": False, "kernel.audit": {"available": True, "enabled": 1, "pid": 0}},
            "warn",
            "audit",
        ),
        ({"libbpf": None, "kernel.audit": NO_AUDIT}, "fail", "libbpf is not installed"),
        # What can't be read decides only where nothing else does.
        ({"kernel.btf": {"unreadable": "x"}, "kernel.release": "4.19.91"}, "pass", "audit"),
        ({"kernel.bpf": {"unreadable": "x"}, "kernel.btf": False}, "warn", "audit"),
        ({"kernel.bpf": {"unreadable": "x"}}, "error", "unreadable"),
        ({"kernel.audit": {"unreadable": "x"}}, "pass", "bpf"),
        ({"kernel.audit": {"unreadable": "x"}, "kernel.btf": False}, "error", "unreadable"),
        ({"kernel.audit": {"unreadable": "x"}, "kernel.release": "4.19.0"}, "fail", "none"),
        ({"kernel.release": {"unreadable": "x"}}, "error", "unreadable"),
        ({"kernel.release": {"unreadable": "x"}, "kernel.btf": False}, "error", "unreadable"),
        ({"libbpf": {"unreadable": "x"}}, "error", "unreadable"),
        ({"libbpf": {"path": "/l", "version": "?"}}, "error", "unreadable"),
    ],
    "node.libbpf": [
        ({}, "pass", "1.1.0"),
        ({"libbpf": {"path": "/l", "version": "1.0"}}, "pass", "1.0"),
        ({"libbpf": {"path": "/l", "version": "0.99.9"}}, "fail", "/l"),
        ({"libbpf": None}, "fail", "none"),
        ({"libbpf": None, "kernel.release": "5.7.0"}, "skip", "older than 5.8"),
        ({"libbpf": None, "kernel.btf": False}, "skip", "no BTF"),
        ({"libbpf": {"unreadable": "x"}, "kernel.btf": False}, "skip", "no BTF"),
        ({"libbpf": {"unreadable": "x"}}, "error", "unreadable"),
        ({"libbpf": None, "kernel.btf": {"unreadable": "x"}}, "error", "unreadable"),
        ({"kernel.btf": {"unreadable": "x"}}, "pass", "1.1.0"),
    ],
}


@pytest.mark.parametrize(
    ("check", "items", "status", "says"),
    [(check, *row) for check, rows in CASES.items() for row in rows],
)
def test_the_check_of_one_change(check: str, items: dict[str, Any], status: str, says: str) -> None:
    result = judge(check, node(items=items))
    assert (result.status, says in result.observed) == (status, True), result


@pytest.mark.parametrize(
    ("versions", "status"),
    [
        (["3.11.2"], "pass"),
        (["3.8"], "pass"),
        (["3.8.0"], "pass"),
        (["3.7.17"], "fail"),
        (["2.7.18", "3.6.8"], "fail"),
        (["3.6.8", "3.12.1"], "pass"),
        (["4.0"], "pass"),
        (["?"], "error"),
        (["?", "3.9"], "pass"),
        ([], "fail"),
    ],
)
def test_python(versions: list[str], status: str) -> None:
    interpreters = [{"path": f"/usr/bin/python{v}", "version": v} for v in versions]
    result = judge("node.python", node(items={"python.interpreters": interpreters}))
    assert result.status == status, result
    assert all(version in result.observed or status == "error" for version in versions)


@pytest.mark.parametrize(
    ("version", "status"), [(252, "pass"), (239, "pass"), (238, "fail"), (None, "fail")]
)
def test_systemd(version: int | None, status: str) -> None:
    assert judge("node.systemd", node(items={"systemd.version": version})).status == status


@pytest.mark.parametrize(
    ("clock", "status", "seen"),
    [
        ({"synchronised": True, "by": "chronyd"}, "pass", "synchronised, by chronyd"),
        ({"synchronised": True, "by": None}, "pass", "synchronised, by nothing that is known"),
        ({"synchronised": False, "by": "ntpd"}, "fail", "not synchronised, by ntpd"),
        ({"synchronised": False}, "fail", "not synchronised, by nothing that is known"),
    ],
)
def test_clock(clock: dict[str, Any], status: str, seen: str) -> None:
    result = judge("node.clock", node(items={"clock": clock}))
    assert (result.status, result.observed) == (status, seen)


@pytest.mark.parametrize(
    ("free", "inodes", "total", "status", "says"),
    [
        (268435456, 1024, 5000, "pass", "256 MiB, 1024 inodes"),
        (2**40, 4000, 5000, "pass", "1048576 MiB, 4000 inodes"),
        (268435455, 1024, 5000, "fail", "too few bytes left"),
        (268435456, 1023, 5000, "fail", "too few inodes left"),
        (0, 0, 5000, "fail", "too few bytes and inodes left"),
        (268435456, 0, 0, "pass", "inodes not counted"),
        (268435456, 0, 1, "fail", "too few inodes left"),
        (4096, 0, 0, "fail", "too few bytes left"),
    ],
)
def test_log_space(free: int, inodes: int, total: int, status: str, says: str) -> None:
    disk = {
        "path": "/var/log",
        "bytes_total": 2**40,
        "bytes_free": free,
        "inodes_total": total,
        "inodes_free": inodes,
    }
    result = judge("node.log-space", node(items={"disk.log": disk}))
    assert result.status == status
    assert says in f"{result.observed} {result.message}"
    assert result.expected == "256 MiB and 1024 inodes free for the logs"
