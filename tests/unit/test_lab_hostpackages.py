import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.vm import folders, hostpackages
from lab.vm.archive import Source


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)", (10, 0, 2)),
        ("QEMU emulator version 7.2.17 (Debian 1:7.2+dfsg-7+deb12u13)\nCopyright", (7, 2, 17)),
        ("QEMU emulator version 8.2", (8, 2)),
        ("command not found", ()),
    ],
)
def test_the_version_of_qemu(text: str, version: tuple[int, ...]) -> None:
    assert hostpackages.parse_qemu_version(text) == version


SOURCES = [
    Source("http://mirror.test/debian", "bookworm"),
    Source("http://mirror.test/debian", "bookworm-updates"),
    Source("http://mirror.test/debian-security", "bookworm-security"),
    Source("http://vendor.test/apt", "stable"),
]


def test_only_the_hosts_own_suites_are_used() -> None:
    assert hostpackages.sources_for(["mmdebstrap"], "bookworm", SOURCES) == SOURCES[:3]


def test_debian_12_takes_qemu_from_its_backports() -> None:
    found = hostpackages.sources_for(["qemu-system-x86"], "bookworm", SOURCES)

    assert found == [*SOURCES[:3], Source("http://mirror.test/debian", "bookworm-backports")]


def test_debian_13_takes_its_own_qemu() -> None:
    trixie = [Source("http://mirror.test/debian", "trixie")]

    assert hostpackages.sources_for(["qemu-system-x86"], "trixie", trixie) == trixie


def test_without_root_one_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostpackages, "missing", lambda: ["qemu-system-x86", "uidmap"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(LabError) as raised:
        hostpackages.ensure()

    assert "qemu-system-x86 uidmap" in str(raised.value)
    assert "sudo " in str(raised.value)
    assert str(raised.value).endswith("-m lab vm packages")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which everything is there, in versions that will do."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(hostpackages, "KEYRING", keyring)
    monkeypatch.setattr(
        hostpackages.shutil, "which", lambda name, path=None: shut(tmp_path, name, path)
    )
    for name in ("mmdebstrap", "mke2fs", "qemu-img", "ssh", "ssh-keygen", "setpriv"):
        (tmp_path / name).touch()
    qemu(tmp_path, "10.0.2")
    return tmp_path


def shut(folder: Path, name: str, _path: str | None) -> str | None:
    return str(folder / name) if (folder / name).exists() else None


def qemu(folder: Path, version: str) -> None:
    file = folder / "qemu-system-x86_64"
    file.write_text(f"#!/bin/sh\necho QEMU emulator version {version}\n")
    file.chmod(0o755)


def run_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.run

    def run(argv: list[str], **options: object) -> object:
        return real([str(folder / argv[0]), *argv[1:]], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(hostpackages.subprocess, "run", run)


@pytest.mark.parametrize(
    ("remove", "version", "missing"),
    [
        (None, "10.0.2", []),
        (None, "8.2.0", []),
        (None, "7.2.17", ["qemu-system-x86"]),
        ("qemu-system-x86_64", "", ["qemu-system-x86"]),
        ("mke2fs", "10.0.2", ["e2fsprogs"]),
        ("ssh-keygen", "10.0.2", ["openssh-client"]),
        ("keyring.gpg", "10.0.2", ["debian-archive-keyring"]),
    ],
)
def test_what_is_missing(
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    remove: str | None,
    version: str,
    missing: list[str],
) -> None:
    qemu(programs, version)
    if remove:
        (programs / remove).unlink()
    run_from(programs, monkeypatch)

    assert hostpackages.missing() == missing


def test_packages_are_installed_by_one_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []

    def apt(arguments: list[str]) -> None:
        begun.append(arguments[-1])
        time.sleep(0.05)

    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(hostpackages, "host_codename", lambda: "bookworm")
    monkeypatch.setattr(hostpackages, "host_sources", lambda: SOURCES)
    monkeypatch.setattr(hostpackages, "_apt", apt)
    with ThreadPoolExecutor() as pool:
        list(pool.map(hostpackages.install, [["qemu-utils"]] * 3))

    assert begun == ["update", "qemu-utils"] * 3
