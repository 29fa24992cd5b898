"""What the host must have for node containers, and how its control groups are laid out."""

import os
import resource
import shutil
import sys
from pathlib import Path

from lab.errors import LabError
from lab.progress import say
from lab.vm import hostpackages
from lab.vm.archive import KEYRING

_COMMANDS = {
    "iptables": "iptables",  # podman's network set-up calls it
    "mmdebstrap": "mmdebstrap",
    "podman": "podman",
    "runc": "runc",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
_NETWORK_BACKENDS = tuple(
    Path(folder) / "netavark" for folder in ("/usr/lib/podman", "/usr/libexec/podman")
)
_WATCHES = Path("/proc/sys/fs/inotify/max_user_instances")
_ENOUGH_WATCHES = 1024
_MOST_FILES = 20_000
_MOST_PROCESSES = 32_768  # podman lowers its own limit to this where it may not raise it


def check() -> None:
    """Raise LabError where node containers can't run, whatever is installed."""
    if os.uname().machine != "x86_64":
        raise LabError("the lab's clusters run on x86-64 hosts only")
    if os.geteuid() != 0:
        raise LabError(
            "node containers need root, for they run a kubelet each: "
            f"sudo {sys.executable} -m lab cluster …"
        )


def ensure() -> None:
    """Install what is missing; raise LabError where node containers can't run at all."""
    check()
    if packages := missing():
        hostpackages.install(packages)
    if left := missing():
        raise LabError(f"still missing after the installation: {' '.join(left)}")
    _allow_watches()


def _allow_watches() -> None:
    # A master and its pods take about 20 of them, and most hosts have 128 for all of root.
    if int(_WATCHES.read_text(encoding="ascii")) >= _ENOUGH_WATCHES:
        return
    say(f"raising fs.inotify.max_user_instances to {_ENOUGH_WATCHES} until the host's next start")
    _WATCHES.write_text(str(_ENOUGH_WATCHES), encoding="ascii")


def missing() -> list[str]:
    """Debian packages that the clusters need and the host lacks."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = {pkg for command, pkg in _COMMANDS.items() if not shutil.which(command, path=path)}
    if not KEYRING.exists():
        packages.add("debian-archive-keyring")
    if not any(file.exists() for file in _NETWORK_BACKENDS):
        packages.add("netavark")
    return sorted(packages)


def cgroup_mode(mountinfo: str) -> str:
    """Tell "v2", "hybrid" (v1 controllers beside an empty v2) or "v1" from /proc/self/mountinfo."""
    kinds = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kinds[before.split()[4]] = after.split()[0]
    if kinds.get("/sys/fs/cgroup") == "cgroup2":
        return "v2"
    if "cgroup" not in kinds.values():
        raise LabError("the host has no control groups mounted below /sys/fs/cgroup")
    return "hybrid" if "cgroup2" in kinds.values() else "v1"


def systemd_cgroups() -> bool:
    """Whether the nodes' systemd can manage pods' control groups: only with v2."""
    return cgroup_mode(Path("/proc/self/mountinfo").read_text(encoding="utf-8")) == "v2"


def limits() -> list[str]:
    """Give podman's options for limits that this process may pass on.

    Podman's own defaults fail on a host where root lacks CAP_SYS_RESOURCE.
    """
    wanted = {
        "nofile": (resource.RLIMIT_NOFILE, _MOST_FILES),
        "nproc": (resource.RLIMIT_NPROC, _MOST_PROCESSES),
    }
    options = []
    for name, (kind, most) in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        options.append(f"--ulimit={name}={value}:{value}")
    return options
