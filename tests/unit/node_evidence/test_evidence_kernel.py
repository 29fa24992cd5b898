"""Operating system and kernel items."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import Directory, Link

UBUNTU = """\
PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
ID=ubuntu
ID_LIKE=debian
"""


def test_os_release_in_etc_wins(item: Callable[..., Any]) -> None:
    files = {"/etc/os-release": UBUNTU, "/usr/lib/os-release": "ID=debian\n"}
    assert item("os.release", files) == {
        "PRETTY_NAME": "Ubuntu 24.04.1 LTS",
        "NAME": "Ubuntu",
        "VERSION_ID": "24.04",
        "ID": "ubuntu",
        "ID_LIKE": "debian",
    }


@pytest.mark.parametrize(
    "files",
    [
        {"/usr/lib/os-release": "ID=debian\n"},
        {"/etc/os-release": Link("../usr/lib/os-release"), "/usr/lib/os-release": "ID=debian\n"},
        {"/etc/os-release": Link("/dangling"), "/usr/lib/os-release": "ID=debian\n"},
    ],
)
def test_os_release_of_the_vendor(item: Callable[..., Any], files: dict[str, Any]) -> None:
    assert item("os.release", files) == {"ID": "debian"}


def test_a_hostile_os_release_is_cut_and_escaped(item: Callable[..., Any]) -> None:
    text = b'ID="\x1b[31m\xff<script>"\nNAME=' + b"x" * 9000 + b"\n"
    text += b"".join(b"K%d=1\n" % number for number in range(500))
    got = item("os.release", {"/etc/os-release": text})
    assert got["ID"] == "\x1b[31m\\xff<script>"
    assert got["NAME"] == "x" * 256
    assert len(got) == 64


@pytest.mark.parametrize(
    ("text", "present"),
    [
        ("0123456789abcdef0123456789abcdef\n", True),
        ("0123456789ABCDEF0123456789abcdef\n", False),
        ("00000000000000000000000000000000\n", False),
        ("uninitialized\n", False),
        ("", False),
    ],
)
def test_machine_id(item: Callable[..., Any], text: str, present: bool) -> None:  # noqa: FBT001 - a table
    assert item("os.machine_id", {"/etc/machine-id": text}) is present


def test_kernel_release_and_version(item: Callable[..., Any]) -> None:
    files = {"/proc/sys/kernel/osrelease": "5.10.0-30-cloud-amd64\n"}
    assert item("kernel.release", files) == "5.10.0-30-cloud-amd64"
    assert item("kernel.version") == [5, 10, 0]


def test_a_kernel_release_without_a_version_is_unreadable(item: Callable[..., Any]) -> None:
    got = item("kernel.version", {"/proc/sys/kernel/osrelease": "custom\n"})
    assert got == {"unreadable": "not a kernel version: custom"}


def test_btf(item: Callable[..., Any], node: Callable[..., Any]) -> None:
    assert list(item("kernel.btf")) == ["unreadable"]
    node({"/sys/kernel": Directory()})
    assert item("kernel.btf") is False
    assert item("kernel.btf", {"/sys/kernel/btf/vmlinux": b"\x9f\xeb"}) is True


SECURITY = "/sys/kernel/security/"


@pytest.mark.parametrize(
    ("files", "lockdown"),
    [
        ({SECURITY + "lockdown": "[none] integrity confidentiality\n"}, "none"),
        ({SECURITY + "lockdown": "none [integrity] confidentiality\n"}, "integrity"),
        ({SECURITY + "lockdown": "none integrity [confidentiality]\n"}, "confidentiality"),
        ({SECURITY + "lsm": "capability"}, "absent"),
        ({SECURITY + "lockdown": "[else]\n"}, None),
        ({SECURITY.rstrip("/"): Directory()}, None),
        ({}, None),
    ],
)
def test_lockdown(item: Callable[..., Any], files: dict[str, Any], lockdown: str | None) -> None:
    got = item("kernel.lockdown", files)
    if lockdown is None:
        assert list(got) == ["unreadable"]
    else:
        assert got == lockdown


def test_lsms(item: Callable[..., Any]) -> None:
    files = {SECURITY + "lsm": "lockdown,capability,yama,apparmor"}
    assert item("kernel.lsms", files) == ["lockdown", "capability", "yama", "apparmor"]


def test_lsms_without_securityfs(item: Callable[..., Any]) -> None:
    assert item("kernel.lsms") == {"unreadable": "/sys/kernel/security is not mounted"}


def mountinfo(*mounts: tuple[str, str]) -> str:
    return "".join(f"1 2 0:3 / {target} rw - {fstype} x rw\n" for target, fstype in mounts)


@pytest.mark.parametrize(
    ("mounts", "mode", "tracefs"),
    [
        (
            [("/sys/fs/cgroup", "cgroup2"), ("/sys/kernel/tracing", "tracefs")],
            "v2",
            "/sys/kernel/tracing",
        ),
        ([("/sys/fs/cgroup", "tmpfs"), ("/sys/fs/cgroup/cpu", "cgroup")], "v1", None),
        (
            [
                ("/sys/kernel/debug/tracing", "tracefs"),
                ("/sys/kernel/tracing", "tracefs"),
                ("/sys/fs/cgroup/cpu", "cgroup"),
                ("/sys/fs/cgroup/unified", "cgroup2"),
            ],
            "hybrid",
            "/sys/kernel/tracing",
        ),
        ([("/sys/fs/cgroupx", "cgroup2"), ("/mnt", "cgroup")], None, None),
    ],
)
def test_mount_modes(
    item: Callable[..., Any], mounts: list[tuple[str, str]], mode: str | None, tracefs: str | None
) -> None:
    files = {"/proc/self/mountinfo": mountinfo(*mounts)}
    got = item("kernel.cgroup_mode", files)
    assert got == mode if mode else list(got) == ["unreadable"]
    assert item("kernel.tracefs") == tracefs


OK = {"ring_buffer": 0, "raw_tracepoint": 0, "btf_load": 0}


@pytest.mark.parametrize(
    ("codes", "uid", "expected"),
    [
        ({}, 0, {"available": True, "ring_buffer": True, "raw_tracepoint": True, "btf_load": True}),
        (
            {"ring_buffer": errno.EINVAL},
            0,
            {"available": True, "ring_buffer": False, "raw_tracepoint": True, "btf_load": True},
        ),
        (
            {"btf_load": errno.EPERM},
            0,
            {"available": True, "ring_buffer": True, "raw_tracepoint": True, "btf_load": False},
        ),
        (
            dict.fromkeys(OK, errno.EPERM),
            0,
            {"available": False, "why": "bpf(2): not permitted, even for root"},
        ),
        (
            dict.fromkeys(OK, errno.ENOSYS),
            0,
            {"available": False, "why": "the kernel has no bpf(2)"},
        ),
        (dict.fromkeys(OK, errno.EPERM), 1000, None),
        ({"raw_tracepoint": errno.EPERM}, 1000, None),
        ({"ring_buffer": errno.ENOMEM}, 0, None),
    ],
)
def test_bpf_tells_lacking_from_forbidden(
    ne: ModuleType, codes: dict[str, int], uid: int, expected: dict[str, Any] | None
) -> None:
    if expected is None:
        with pytest.raises(ne.Unreadable):
            ne.judge_bpf({**OK, **codes}, uid)
    else:
        assert ne.judge_bpf({**OK, **codes}, uid) == expected


def test_bpf_on_an_unknown_machine_is_unreadable(ne: ModuleType) -> None:
    with pytest.raises(ne.Unreadable, match="not known on mips"):
        ne.kernel_bpf(ne.Node("/", machine="mips"))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (errno.EPROTONOSUPPORT, "the kernel has no audit"),
        (errno.ECONNREFUSED, "the kernel has no audit, or this is not its first user namespace"),
        (errno.EINVAL, "Invalid argument"),
    ],
)
def test_audit_refusals(ne: ModuleType, code: int, why: str) -> None:
    assert ne.audit_missing(code) == {"available": False, "why": why}


def test_audit_forbidden_to_root(ne: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ne.os, "geteuid", lambda: 0)
    assert ne.audit_missing(errno.EPERM)["available"] is False


def test_audit_forbidden_to_others(ne: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ne.os, "geteuid", lambda: 1000)
    with pytest.raises(ne.Unreadable, match="needs root"):
        ne.audit_missing(errno.EPERM)


class Channel:
    """An audit netlink socket that answers with the messages it was made with."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def recv(self, _size: int) -> bytes:
        return self.datagrams.pop(0)


def message(ne: ModuleType, kind: int, sequence: int, body: bytes = b"") -> bytes:
    head = ne.struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0)
    return bytes(head + body + bytes(-len(body) % 4))


def test_audit_messages(ne: ModuleType) -> None:
    foreign = message(ne, 1300, 7, b"type=EXECVE")
    rules = message(ne, ne.AUDIT_LIST_RULES, ne.AUDIT_LIST_RULES, b"rule!")
    done = message(ne, ne.NLMSG_DONE, ne.AUDIT_LIST_RULES)
    channel = Channel(foreign + rules, rules + done)
    assert list(ne.audit_messages(channel, ne.AUDIT_LIST_RULES)) == [b"rule!"] * 2


@pytest.mark.parametrize("data", [b"", b"\0" * 16, b"\0" * 40, b"\xff" * 7])
def test_rubbish_on_the_audit_socket_is_passed_over(ne: ModuleType, data: bytes) -> None:
    good = message(ne, ne.AUDIT_GET, ne.AUDIT_GET, b"\0" * 16)
    assert next(ne.audit_messages(Channel(data, good), ne.AUDIT_GET)) == b"\0" * 16


def test_an_error_on_the_audit_socket_is_raised(ne: ModuleType) -> None:
    body = ne.struct.pack("=i", -errno.EPERM)
    channel = Channel(message(ne, ne.NLMSG_ERROR, ne.AUDIT_GET, body))
    with pytest.raises(PermissionError):
        next(ne.audit_messages(channel, ne.AUDIT_GET))


ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 20
LIBRARIES = "/usr/lib/x86_64-linux-gnu/"


def test_libbpf_newest_of_the_own_word_size(item: Callable[..., Any]) -> None:
    assert item("libbpf") is None
    files = {
        LIBRARIES + "libbpf.so.1": Link("libbpf.so.1.1.2"),
        LIBRARIES + "libbpf.so.1.1.2": ELF,
        LIBRARIES + "libbpf.so.0": Link("libbpf.so.0.10.0"),
        LIBRARIES + "libbpf.so.0.10.0": ELF,
        LIBRARIES + "libbpf.so.9.dangling": Link("nowhere"),
        "/usr/lib64/libbpf.so.1.10.0": b"\x7fELF\x01" + b"\0" * 20,
        "/usr/lib64/libbpf.so.3": "no library\n",
    }
    del files[LIBRARIES + "libbpf.so.9.dangling"]
    got = item("libbpf", files)
    assert got == {"path": LIBRARIES + "libbpf.so.1.1.2", "version": "1.1.2"}


def test_a_dangling_libbpf_is_no_libbpf(item: Callable[..., Any]) -> None:
    assert item("libbpf", {LIBRARIES + "libbpf.so.1": Link("libbpf.so.1.1.2")}) is None
