"""The images that the lab's clusters have: the control plane's, and workloads to look into."""

from pathlib import Path, PurePosixPath

from lab.cluster.processes import run
from lab.images.dockerarchive import Image
from lab.kubernetes.binaries import Binaries

REGISTRY = "exectrail.lab"
PAUSE = f"{REGISTRY}/pause:lab"
BUSYBOX = f"{REGISTRY}/busybox:lab"
TOOLS = f"{REGISTRY}/tools:lab"
STATIC = f"{REGISTRY}/static:lab"

SOURCES = [Path(__file__), Path(__file__).with_name("dockerarchive.py")]

# Added to a minimal Debian, which has bash, coreutils, grep, sed, tar and the like.
TOOLS_PACKAGES = ("curl", "iproute2", "less", "procps")

# Waits for ever and, unlike a plain sleep as process 1, ends when it is told to.
_WAIT = "trap 'exit 0' TERM INT; sleep infinity & wait"
_ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


def etcd_tag(binaries: Binaries) -> str:
    """Name the tag that kubeadm gives an etcd of this version."""
    return f"{binaries.etcd}-0"


def control_plane(binaries: Binaries) -> list[Image]:
    """Images of the static pods, named as kubeadm names them; each has its one program."""
    names = {
        "kube-apiserver": binaries.kubernetes,
        "kube-controller-manager": binaries.kubernetes,
        "kube-scheduler": binaries.kubernetes,
        "etcd": etcd_tag(binaries),
    }
    return [
        Image(
            f"{REGISTRY}/{name}:{tag}",
            [f"/usr/local/bin/{name}"],
            files={f"usr/local/bin/{name}": binaries.path(name)},
            folders=["tmp"],
        )
        for name, tag in names.items()
    ]


def workloads(root: Path, tools: Path) -> list[Image]:
    """Images of pods: ROOT is a Debian with busybox-static and catatonit, TOOLS a tar file."""
    busybox, catatonit = root / "bin" / "busybox", root / "usr" / "bin" / "catatonit"
    return [
        # catatonit waits, reaps what a shared process namespace orphans, and has no shell.
        Image(PAUSE, ["/pause", "-P"], files={"pause": catatonit}),
        Image(STATIC, ["/static", "-P"], files={"static": catatonit}),
        Image(
            BUSYBOX,
            ["/bin/sh", "-c", _WAIT],
            files={"bin/busybox": busybox},
            links=_applets(busybox),
            texts=_ACCOUNTS,
            folders=["tmp"],
        ),
        Image(TOOLS, ["/bin/bash", "-c", _WAIT], base=tools),
    ]


def _applets(busybox: Path) -> dict[str, str]:
    """Links for all that the program can be called as."""
    paths = {PurePosixPath(line) for line in run([busybox, "--list-full"]).split()}
    return {str(path): "/bin/busybox" for path in paths if path.name != "busybox"}
