"""The host's own packages: what the virtual machines need, installed or named."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError
from lab.progress import say
from lab.vm.archive import KEYRING, Source, host_codename, host_sources
from lab.vm.folders import lock

QEMU = "qemu-system-x86_64"
# Emulation in 7.2, Debian 12's own, corrupts guests; `file:` migration came with 8.2.
MINIMUM_QEMU = (8, 2)
# A fresh Debian may be upgrading itself.
_LOCK_SECONDS = "600"
_COMMANDS = {
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
}


def parse_qemu_version(text: str) -> tuple[int, ...]:
    """Numbers of `qemu-system-x86_64 --version`; empty when there are none."""
    found = re.search(r"version (\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def qemu_version() -> tuple[int, ...]:
    """Version of the host's QEMU, such as (10, 0, 2); empty when it has none."""
    if not shutil.which(QEMU):
        return ()
    done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    return parse_qemu_version(done.stdout)


def missing() -> list[str]:
    """Debian packages that the lab needs and the host lacks."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = {pkg for command, pkg in _COMMANDS.items() if not shutil.which(command, path=path)}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    if os.geteuid() != 0 and not shutil.which("newuidmap"):
        packages.add("uidmap")
    if qemu_version() < MINIMUM_QEMU:
        packages.add("qemu-system-x86")
    return sorted(packages)


def ensure() -> None:
    """Install what is missing as root; raise LabError with the command to run otherwise."""
    if os.uname().machine != "x86_64":
        raise LabError("the lab's virtual machines run on x86-64 hosts only")
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0:
        raise LabError(
            f"the lab needs these packages: {' '.join(packages)}. Install them with: "
            f"sudo {sys.executable} -m lab vm packages"
        )
    install(packages)
    if left := missing():
        raise LabError(f"still missing after the installation: {' '.join(left)}")


def sources_for(packages: Sequence[str], codename: str, known: Sequence[Source]) -> list[Source]:
    """Choose the host's own suites, and the backports of Debian 12 when QEMU is wanted."""
    own = [s for s in known if s.suite in {codename, f"{codename}-updates", f"{codename}-security"}]
    if "qemu-system-x86" not in packages or codename != "bookworm":
        return own
    return [*own, *(Source(s.uri, f"{codename}-backports") for s in own if s.suite == codename)]


def install(packages: Sequence[str]) -> None:
    """Install PACKAGES from lists of the lab's own, so that /etc/apt stays as it is."""
    codename = host_codename()
    if not codename:
        raise LabError(
            f"the lab installs packages on Debian only; install these yourself: "
            f"{' '.join(packages)} (QEMU {'.'.join(map(str, MINIMUM_QEMU))} or newer)"
        )
    sources = sources_for(packages, codename, host_sources())
    say(f"installing host packages: {' '.join(packages)}")
    # One at a time: what cleans up after one run of apt may take what another has downloaded.
    with lock("host-packages"), tempfile.TemporaryDirectory(prefix="exectrail-lab-apt.") as folder:
        options = _private_lists(Path(folder), sources)
        _apt([*options, "update"])
        # The whole request is aimed at backports: parts of QEMU must have one version.
        target = [s.suite for s in sources if s.suite.endswith("-backports")]
        aimed = [option for suite in target for option in ("-t", suite)]
        flags = ["-y", "--no-install-recommends", "-o", "Dpkg::Options::=--force-unsafe-io"]
        _apt([*options, *aimed, *flags, "install", *packages])
    say("host packages are installed")


def _private_lists(folder: Path, sources: Sequence[Source]) -> list[str]:
    # The download user of apt must be able to enter the folder.
    folder.chmod(0o755)
    for name in ("lists/partial", "archives/partial", "parts"):
        (folder / name).mkdir(parents=True)
    # Older hosts sign suites with keys that only the trusted store has; a stanza without
    # Signed-By would accept any key in there, so the archive's own keyring is named where it is.
    signed = f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""
    stanzas = (
        f"Types: deb\nURIs: {s.uri}\nSuites: {s.suite}\nComponents: main\n{signed}" for s in sources
    )
    (folder / "parts" / "lab.sources").write_text("\n".join(stanzas), encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(folder / "parts"),
        "Dir::State::Lists": str(folder / "lists"),
        "Dir::Cache::Archives": str(folder / "archives"),
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Acquire::Languages": "none",
        "DPkg::Lock::Timeout": _LOCK_SECONDS,
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _apt(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        ["apt-get", "-q", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode:
        raise LabError(f"apt-get {arguments[-1]} failed:\n{done.stdout[-3000:]}")
