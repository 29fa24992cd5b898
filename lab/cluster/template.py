"""What every node starts from: Debian set up for a kubelet, with all images imported."""

import shutil
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from lab.cluster import debian, podman
from lab.cluster.processes import copy_tree
from lab.images import dockerarchive, recipes
from lab.kubernetes import binaries
from lab.kubernetes.binaries import Binaries
from lab.progress import say
from lab.vm.folders import cache_folder
from lab.vm.image import built, digest, prune

FILES = Path(__file__).with_name("files")
IMAGES = Path("var/lib/containerd")
_SERVICES = ("kubelet.service", "lab-tunables.service")

# containerd must have ended before its database is copied.
_IMPORT = """
containerd > /run/containerd.log 2>&1 & pid=$!
until ctr version > /dev/null 2>&1; do
    kill -0 $pid || { cat /run/containerd.log; exit 1; }
    sleep 0.1
done
for image in /images/*.tar; do ctr --namespace k8s.io image import "$image"; done
kill $pid
wait $pid || true
"""


@dataclass(frozen=True)
class Template:
    """A finished template in the cache."""

    folder: Path
    binaries: Binaries

    @property
    def root(self) -> Path:
        """A node's root file system, without images."""
        return self.folder / "root"

    @property
    def images(self) -> Path:
        """The state of containerd with all images; see copy_images."""
        return self.folder / "images"

    def copy_images(self, root: Path) -> None:
        """Give the node at ROOT all images, sharing what containerd never writes to again."""
        target = root / IMAGES
        target.rmdir()
        copy_tree(self.images, target, linked=True)
        for database in self.images.rglob("*.db"):
            copy = target / database.relative_to(self.images)
            copy.unlink()
            shutil.copy2(database, copy)


def get(cluster: str) -> Template:
    """Give the template, what it is made of included; a container it needs belongs to CLUSTER."""
    kubernetes = _in_background()
    root, tools = debian.node_root(), debian.tools_layer()
    try:
        found = kubernetes.result(timeout=2)
    except TimeoutError:
        say("Debian is ready; waiting for Kubernetes")
        found = kubernetes.result()
    sources = [Path(__file__), *FILES.iterdir(), *recipes.SOURCES]
    inputs = {"root": root.parent.name, "tools": tools.parent.name, "kubernetes": found.key}
    folder = cache_folder() / "nodes" / f"node-{digest(inputs, sources)}"
    with built(folder) as draft:
        if draft:
            prune("node", folder.parent)
            _build(draft, root, tools, found, cluster)
    return Template(folder, found)


def _in_background() -> Future[Binaries]:
    # A daemon: when this process ends early nothing waits for the compiler, which ends with it.
    future: Future[Binaries] = Future()

    def work() -> None:
        try:
            future.set_result(binaries.get())
        except BaseException as problem:  # noqa: BLE001 - whatever it is, who waits must have it
            future.set_exception(problem)

    threading.Thread(target=work, daemon=True).start()
    return future


def _build(draft: Path, debian_root: Path, tools: Path, found: Binaries, cluster: str) -> None:
    say("node: adding the images (once; about half a minute)")
    root = draft / "root"
    copy_tree(debian_root, root)
    for unit in _SERVICES:
        shutil.copyfile(FILES / unit, root / "etc/systemd/system" / unit)
        target = "multi-user" if unit == "kubelet.service" else "sysinit"
        wants = root / f"etc/systemd/system/{target}.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    shutil.copyfile(FILES / "lab-tunables", root / "etc/lab-tunables")
    (root / "etc/kubernetes/manifests").mkdir(parents=True)
    archives = draft / "archives"
    archives.mkdir()
    images = [*recipes.control_plane(found), *recipes.workloads(root, tools)]
    for number, image in enumerate(images):
        dockerarchive.write(image, archives / f"{number}.tar")
    podman.run_once(
        cluster,
        [
            *("--privileged", "--network=none", "--tmpfs=/run"),
            f"--volume={archives}:/images:ro",
        ],
        root,
        ["/bin/sh", "-euc", _IMPORT],
    )
    shutil.rmtree(archives)
    (root / "images").rmdir()
    (root / IMAGES).rename(draft / "images")
    (root / IMAGES).mkdir()
