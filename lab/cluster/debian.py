"""Debian file systems that nodes and images are made of, kept in the cache."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.cluster.processes import run
from lab.images.recipes import TOOLS_PACKAGES
from lab.progress import say
from lab.vm import archive
from lab.vm.folders import cache_folder
from lab.vm.image import built, digest, prune
from lab.vm.recipe import DPKG_OPTIONS

# systemd from 256 on refuses hosts with cgroup v1: this one runs on every host.
SUITE = "bookworm"
_CUSTOMIZE = Path(__file__).with_name("files") / "customize.sh"
_NODE_PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "catatonit",
    "containerd",
    "containernetworking-plugins",
    "dbus",
    "haproxy",
    "iproute2",
    "iptables",
    "mount",
    "openssh-server",
    "procps",
    "python3",
    "runc",
    "systemd",
    "systemd-sysv",
)


def node_root() -> Path:
    """Give the folder with a node's root file system, without Kubernetes (about a minute)."""
    return _installed("node", "minbase", _NODE_PACKAGES, "root", _CUSTOMIZE) / "root"


def tools_layer() -> Path:
    """Give the tar file with bash and the usual tools (half a minute)."""
    return _installed("tools", "essential", TOOLS_PACKAGES, "root.tar", None) / "root.tar"


def _installed(
    name: str, variant: str, packages: Sequence[str], product: str, customize: Path | None
) -> Path:
    release = archive.release(SUITE)
    inputs = {"release": release.digest, "variant": variant, "packages": " ".join(packages)}
    key = digest(inputs, [Path(__file__), *([customize] if customize else [])])
    folder = cache_folder() / "debian" / f"{name}-{key}"
    with built(folder) as draft:
        if draft:
            prune(name, folder.parent)
            say(f"{name}: installing Debian {SUITE} into a folder (once; about a minute)")
            temporary = draft / "tmp"
            temporary.mkdir()
            hooks = [customize.read_text(encoding="utf-8")] if customize else []
            # A process namespace of its own: all of it ends with this process, mounts included.
            command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "nice"]
            run(
                [*command, "mmdebstrap", "--mode=root", f"--variant={variant}", "--skip=check/qemu"]
                + [f"--keyring={archive.KEYRING}"]
                + [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
                + [f"--aptopt={option}" for option in archive.transport_options()]
                + ['--aptopt=Acquire::Languages "none"', f"--include={','.join(packages)}"]
                + [f"--customize-hook={hook}" for hook in hooks]
                # Proxies of this host mean nothing inside the node.
                + ['--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap']
                + [SUITE, str(draft / product), release.source.uri],
                # What a killed run leaves goes with the draft.
                environment={**os.environ, "TMPDIR": str(temporary)},
            )
            shutil.rmtree(temporary)
    return folder
