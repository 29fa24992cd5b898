"""What the machines' images are made of."""

from dataclasses import dataclass
from pathlib import Path

CUSTOMIZE = Path(__file__).with_name("customize.sh").read_text(encoding="utf-8")
DISK_SIZE = "3G"

_PACKAGES = (
    "dbus",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "mount",
    "openssh-server",
    "python3",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "udev",
    "unattended-upgrades",
)

# Installed before the kernel, so that its initial file system holds what a virtual machine needs
# to find its disk and nothing else: it is built and unpacked in a moment.
SETUP = """
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nCOMPRESS=gzip\\n' > "$1/etc/initramfs-tools/conf.d/lab"
printf 'virtio_pci\\nvirtio_blk\\next4\\n' > "$1/etc/initramfs-tools/modules"
"""

DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
)


@dataclass(frozen=True)
class Recipe:
    """One kind of machine: a Debian suite and its packages."""

    name: str
    suite: str
    extra: tuple[str, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        """Everything installed on top of a minimal Debian."""
        return (*_PACKAGES, *self.extra)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("debian11", "bullseye", ("libbpf0",)),
        Recipe("debian12", "bookworm", ("libbpf1", "systemd-resolved")),
        Recipe("debian13", "trixie", ("libbpf1", "systemd-resolved")),
    )
}
