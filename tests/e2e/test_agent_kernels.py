"""The sensors on the kernels and control groups of Debian 11, 12 and 13.

On each the very tests run that this machine's kernel passes, but for those that only take long.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import re
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.cluster.debian import node_root
from lab.errors import LabError
from lab.vm import image
from lab.vm.machine import Machine, machine, recipe_for
from lab.vm.snapshot import BOOT_SECONDS
from lab.vm.ssh import Completed
from tests.e2e.fleet import build_agent
from tests.integration.agent_cases import CASES

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
RUN = (
    "tests/__init__.py",
    "tests/integration/__init__.py",
    "tests/integration/agent_cases.py",
    "tests/integration/test_agent_bpf.py",
    "tests/e2e/__init__.py",
    "tests/e2e/agent_audit_story.py",
    "tests/e2e/kernels.py",
)
# Emulated, a program takes a hundredth of a second: storms would last for minutes. And of pins that
# are not as they should be, kernels think alike.
LEFT_OUT = ("storm", "produced", "wakes_nobody", "broken_pins", "foreign_pins")
# Debian 12 has a newer libbpf than Debian 11, whose kernel it runs on; and the last systemd that
# still wants control groups of both versions.
V1 = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
HYBRID = "systemd.unified_cgroup_hierarchy=0"
# What a kernel needs to be reached, of those that its own Debian has.
MODULES = ("drivers/net", "drivers/virtio", "net/core")
# By the system's own call: no machine has kexec-tools.
TAKE_OVER = """
import ctypes, glob, os, sys
libc = ctypes.CDLL(None, use_errno=True)
names = (glob.glob(f"/boot/{name}-{sys.argv[1]}.*") for name in ("vmlinuz", "initrd.img"))
kernel, initrd = (os.open(name, os.O_RDONLY) for (name,) in names)
line = sys.argv[2].encode()
if libc.syscall(320, kernel, initrd, len(line) + 1, line, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.sync()
libc.reboot(0x45584543)
"""
MOUNTED = "findmnt --noheadings --list --output FSTYPE --types cgroup,cgroup2 | sort -u"


@dataclass(frozen=True)
class Node:
    """A Debian on the kernel of another or its own, and the control groups that it is to have."""

    system: str
    kernel: str
    release: str
    arguments: str = ""
    mounted: tuple[str, ...] = ("cgroup2",)

    @property
    def name(self) -> str:
        return f"kernel-{self.release.replace('.', '-')}"


NODES = (
    Node("debian12", "debian11", "5.10", V1, ("cgroup",)),
    Node("debian12", "debian12", "6.1", HYBRID, ("cgroup", "cgroup2")),
    Node("debian13", "debian13", "6.12"),
)
each_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.release)


@dataclass(frozen=True)
class Ran:
    """What a machine said of itself, and of the tests that ran on it."""

    release: str
    mounted: tuple[str, ...]
    bpf: Completed
    cases: Completed


def pytest_files() -> Iterator[tuple[Path, str]]:
    """Pytest and what it needs, from here: no machine has to install it."""
    seen: set[str] = set()
    wanted = ["pytest"]
    while wanted:
        one = importlib.metadata.distribution(wanted.pop())
        if one.name in seen:
            continue
        seen.add(one.name)
        needed = [each for each in one.requires or () if ";" not in each]
        wanted += [re.split(r"[^\w.-]", each)[0] for each in needed]
        for file in one.files or ():
            if file.suffix == ".py" or file.parent.suffix == ".dist-info":
                yield Path(str(file.locate())), f"site/{file}"


def packed(files: Iterable[tuple[Path, str]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", compresslevel=1) as archive:
        for path, name in files:
            archive.add(path, name)
    return made.getvalue()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_agent(tmp_path_factory.mktemp("agent") / "exectrail-agent.pyz")


@pytest.fixture(scope="module")
def kit(agent: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the tests need on a machine: the programs of the kernel are those that are delivered."""
    folder = tmp_path_factory.mktemp("kit")
    with zipfile.ZipFile(agent) as archive:
        kernel_half = Path(archive.extract("exectrail_agent/bpf/exec.bpf.o", folder))
    storm = folder / "exec_storm"
    source = ROOT / "tests/integration/exec_storm.c"
    subprocess.run(["clang", "-O2", "-static", "-o", storm, source], check=True)
    sources = sorted((ROOT / "src/exectrail_agent").rglob("*.py"))
    return packed(
        [
            *((path, str(path.relative_to(ROOT))) for path in sources),
            *((ROOT / name, name) for name in RUN),
            (kernel_half, "prebuilt/exec.bpf.o"),
            (storm, "prebuilt/exec_storm"),
            # Of Debian 12; it runs on 13 too.
            (node_root() / "usr/sbin/runc", "runc"),
            *pytest_files(),
        ]
    )


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The kernel of Debian 11, with what of its modules a machine needs to be reached."""
    folder = tmp_path_factory.mktemp("modules")
    made = image.get(recipe_for("debian11"))
    subprocess.run(
        ["/usr/sbin/debugfs", "-R", f"rdump /lib/modules {folder}", made.disk],
        check=True,
        capture_output=True,
    )
    (release,) = (folder / "modules").iterdir()
    wanted = [*release.glob("modules.*"), *(release / "kernel" / name for name in MODULES)]
    return packed(
        [
            (made.kernel, f"boot/vmlinuz-{release.name}"),
            (made.initrd, f"boot/initrd.img-{release.name}"),
            *((path, f"usr/lib/{path.relative_to(folder)}") for path in wanted),
        ]
    )


def boot(one: Machine, node: Node) -> None:
    """Let another kernel take over, or the same with other arguments."""

    def which() -> str:
        return one.run("cat /proc/sys/kernel/random/boot_id", timeout=10).stdout

    before = which()
    line = f"root=/dev/vda rw console=ttyS0 mitigations=off {node.arguments}"
    take_over = ["python3", "-c", TAKE_OVER, node.release, line]
    one.run(["systemd-run", "--quiet", "--on-active=1", *take_over])
    deadline = time.monotonic() + BOOT_SECONDS["tcg"]
    while True:
        time.sleep(3)
        with contextlib.suppress(LabError):
            if which() != before:
                break
        assert time.monotonic() < deadline, (one.folder / "console.log").read_text()[-3000:]
    # Its hardware has the time at which it was frozen.
    one.run(f"systemctl is-system-running --wait; date -s @{time.time():.0f}")


def run(one: Machine, node: Node, kit: bytes) -> Ran:
    """Boot what the machine is to be, and run the tests there."""
    one.run("mkdir /root/kit && tar -C /root/kit -xz", stdin=kit)
    if node.arguments:
        boot(one, node)
    test = (
        "cd /root/kit && EXECTRAIL_PREBUILT=/root/kit/prebuilt PYTHONPATH=.:src:site "
        "PATH=$PATH:/root/kit python3 -m pytest -q --tb=short --durations=10"
    )
    left_out = " or ".join(LEFT_OUT)
    bpf = f"{test} -k 'not ({left_out})' tests/integration/test_agent_bpf.py"
    return Ran(
        one.run("uname -r").stdout,
        tuple(one.run(MOUNTED).stdout.split()),
        one.run(bpf, check=False, timeout=600),
        one.run(f"{test} tests/e2e/kernels.py", check=False, timeout=600),
    )


@pytest.fixture(scope="module")
def told(kit: bytes, modules: bytes) -> Iterator[dict[Node, Future[Ran]]]:
    # Two at a time, as many as run tests elsewhere; a machine that waits costs nothing.
    with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
        machines = {node: stack.enter_context(machine(node.name, node.system)) for node in NODES}
        for node, one in machines.items():
            if node.kernel != node.system:
                one.run("tar -C / -xz", stdin=modules)
        yield {node: pool.submit(run, one, node, kit) for node, one in machines.items()}
        pool.shutdown(wait=False, cancel_futures=True)


@each_node
def test_the_kernel_and_its_control_groups(told: dict[Node, Future[Ran]], node: Node) -> None:
    found = told[node].result()

    assert found.release.startswith(f"{node.release}.")
    assert found.mounted == node.mounted


@each_node
def test_the_bpf_sensor_does_what_it_does_elsewhere(
    told: dict[Node, Future[Ran]], node: Node
) -> None:
    found = told[node].result().bpf

    assert found.returncode == 0, found.stdout + found.stderr
    assert "skipped" not in found.stdout


@each_node
def test_both_sensors_tell_a_containers_sessions_alike(
    told: dict[Node, Future[Ran]], node: Node
) -> None:
    found = told[node].result().cases

    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{2 * len(CASES)} passed" in found.stdout
