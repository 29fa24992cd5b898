"""Images: the disk, kernel and keys that machines start from, kept in the cache by their inputs."""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.progress import say
from lab.vm import archive
from lab.vm.folders import cache_folder, lock
from lab.vm.recipe import CUSTOMIZE, DISK_SIZE, DPKG_OPTIONS, SETUP, Recipe

# Read when this code is loaded: a file edited later says nothing about what runs.
_SOURCE = Path(__file__).read_text(encoding="utf-8")
_DAY = 24 * 3600
_KEEP_SECONDS = 14 * _DAY


@dataclass(frozen=True)
class Image:
    """A finished image in the cache."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system, raw ext4."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel that QEMU starts."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The kernel's initial file system."""
        return self.folder / "initrd"

    @property
    def client_key(self) -> Path:
        """The private key that root of the machines accepts."""
        return self.folder / "client_key"

    @property
    def host_key(self) -> str:
        """The machines' public host key, as `TYPE BASE64`."""
        return " ".join((self.folder / "host_key.pub").read_text(encoding="ascii").split()[:2])


def digest(inputs: Mapping[str, str], files: Iterable[Path] = ()) -> str:
    """Name a set of inputs: a short hash that changes with any value or any file's content."""
    total = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        total.update(f"{name}={value}\0".encode())
    for file in sorted(files):
        total.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


def image_key(recipe: Recipe, release_digest: str) -> str:
    """Name the image that RECIPE gives with the packages of a release."""
    return digest(
        {
            "recipe": repr(recipe),
            "release": release_digest,
            "content": "\n".join([*recipe.packages, *DPKG_OPTIONS, SETUP, CUSTOMIZE, DISK_SIZE]),
            "steps": _SOURCE,
        }
    )


@contextmanager
def built(folder: Path) -> Iterator[Path | None]:
    """Give a draft to fill when FOLDER is not in the cache; it appears whole or not at all.

    One process builds while others wait for it. An interrupted build leaves a draft that no one
    takes for the real thing and that the next build of the same folder removes.
    """
    if _use(folder):
        yield None
        return
    with lock(folder.name, wait=False) as free:
        if not free:
            say(f"waiting: another run is building {folder.name}")
    with lock(folder.name):
        if _use(folder):
            yield None
            return
        folder.parent.mkdir(exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            yield draft
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def _use(folder: Path) -> bool:
    if not folder.exists():
        return False
    os.utime(folder)
    return True


def prune(prefix: str, folder: Path) -> None:
    """Remove from a folder of the cache what no one has used for two weeks, and old drafts."""
    for pattern, keep in ((f"{prefix}-*", _KEEP_SECONDS), (f".{prefix}-*", _DAY)):
        for old in folder.glob(pattern):
            if time.time() - old.stat().st_mtime > keep:
                shutil.rmtree(old, ignore_errors=True)


def get(recipe: Recipe) -> Image:
    """Give RECIPE's image, built first when the cache lacks it (about a minute)."""
    release = archive.release(recipe.suite)
    folder = cache_folder() / "images" / f"{recipe.name}-{image_key(recipe, release.digest)}"
    with built(folder) as draft:
        if draft:
            prune(recipe.name, folder.parent)
            _build(recipe, release.source, draft)
    return Image(folder)


def _build(recipe: Recipe, source: archive.Source, folder: Path) -> None:
    say(f"{recipe.name}: installing Debian {recipe.suite} into a folder (about a minute)")
    for name in ("client_key", "host_key"):
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(folder / name)])
    tar = folder / "root.tar"
    _run(_mmdebstrap(recipe, source, folder, tar))
    say(f"{recipe.name}: making the disk")
    _run([*_as_root(), "sh", "-euc", _MAKE_DISK, "sh", str(folder), DISK_SIZE])
    for left in (tar, folder / "host_key"):
        left.unlink()


# The kernel's own name carries its version; the image's files have fixed names.
_MAKE_DISK = """
cd "$1"
mkdir root
tar --numeric-owner -xf root.tar -C root
cp root/boot/vmlinuz-* vmlinuz
cp root/boot/initrd.img-* initrd
PATH=$PATH:/sbin:/usr/sbin mke2fs -q -t ext4 -E lazy_itable_init=1 -d root disk.raw "$2"
rm -rf root
"""


def _as_root() -> list[str]:
    # Files keep their owners only where there is a root, real or of a user namespace.
    return [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto"]


def _mmdebstrap(recipe: Recipe, source: archive.Source, folder: Path, tar: Path) -> list[str]:
    def place(name: str, inside: str) -> str:
        return f"--customize-hook=upload {shlex.quote(str(folder / name))} {inside}"

    return [
        "mmdebstrap",
        "--variant=minbase",
        "--skip=check/qemu",
        f"--keyring={archive.KEYRING}",
        *(f"--dpkgopt={option}" for option in DPKG_OPTIONS),
        *(f"--aptopt={option}" for option in archive.transport_options()),
        '--aptopt=Acquire::Languages "none"',
        f"--include={','.join(recipe.packages)}",
        f"--setup-hook={SETUP}",
        f"--customize-hook={CUSTOMIZE}",
        place("client_key.pub", "/root/.ssh/authorized_keys"),
        place("host_key", "/etc/ssh/ssh_host_ed25519_key"),
        place("host_key.pub", "/etc/ssh/ssh_host_ed25519_key.pub"),
        '--customize-hook=chmod 0600 "$1"/etc/ssh/ssh_host_ed25519_key',
        # Proxies of this host mean nothing inside the machine.
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap',
        recipe.suite,
        str(tar),
        source.uri,
    ]


def _run(argv: list[str]) -> None:
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        told = done.stdout.decode("utf-8", "replace")[-3000:]
        raise LabError(f"{argv[0]} failed with exit code {done.returncode}:\n{told}")
