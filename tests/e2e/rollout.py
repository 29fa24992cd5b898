"""What tests of the roll-out share: the playbook as a user runs it, and a master seen from outside.

A node's root file system is a folder of the host, and its processes are processes of the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import re
import select
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from lab.cluster import podman
from lab.cluster.layout import API_PORT, Cluster, Node

ROOT = Path(__file__).parents[2]
PLAYBOOK = "playbooks/audit_policy.yml"
MANIFESTS = "etc/kubernetes/manifests"
MANIFEST = f"{MANIFESTS}/kube-apiserver.yaml"
POLICY = "etc/kubernetes/audit-policy.yaml"
LOGS = "var/log/kubernetes"
STATE = "etc/kubernetes/exectrail"
STAGED = f"{STATE}/staged.kube-apiserver.yaml"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Ended:
    """A run of the playbook that has ended; `text` has every gap as one space."""

    code: int
    text: str
    report: Path

    @property
    def changed(self) -> int:
        return sum(int(count) for count in re.findall(r"changed=(\d+)", self.text))


class Run:
    """A run of the playbook under way, in a process group of its own."""

    def __init__(
        self, inventory: Path, report: Path, *options: str, **variables: str | int
    ) -> None:
        settings = {"audit_policy_stable_seconds": 3, "audit_policy_report_dir": report}
        extra = [f"--extra-vars={key}={value}" for key, value in (settings | variables).items()]
        self.report = Path(str(variables.get("audit_policy_report_dir", report)))
        self.process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *(PLAYBOOK, "-i", str(inventory), *extra, *options),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
            text=True,
        )
        self.said = ""

    def until(self, words: str) -> None:
        """Read what it says until it has said the words."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.said += line
            if words in line:
                return
        raise AssertionError(f"it has ended without {words!r}:\n{self.said}")

    def kill(self) -> None:
        """End it with everything that it has started here, at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def end(self) -> Ended:
        try:
            rest, _ = self.process.communicate(timeout=400)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Ended(self.process.returncode, " ".join((self.said + rest).split()), self.report)


def write_inventory(made: Cluster, masters: Sequence[Node], path: Path) -> Path:
    """Write an inventory whose masters are only those given."""
    whole = made.inventory()
    groups = whole["all"]["children"]  # type: ignore[index]
    names = {node.name for node in masters}
    hosts = groups["masters"]["hosts"]
    groups["masters"]["hosts"] = {name: each for name, each in hosts.items() if name in names}
    path.write_text(yaml.safe_dump(whole))
    return path


def on(made: Cluster, node: Node, *command: str) -> str:
    """Run a command on a node, past its sshd."""
    return podman.execute(made.container(node), *command)


def processes(name: str, mark: str) -> list[tuple[int, list[str]]]:
    """Pids on the host and arguments of the processes of a name that have the mark among these."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == name:
                arguments = (entry / "cmdline").read_text().split("\0")[:-1]
                found += [(int(entry.name), arguments)] if mark in arguments else []
        except OSError:
            continue  # It has ended meanwhile.
    return found


def server(node: Node) -> tuple[int, list[str]] | None:
    """The node's API server, as its pid on the host and its arguments."""
    found = processes("kube-apiserver", f"--advertise-address={node.address}")
    return found[-1] if found else None


def kubelet(node: Node) -> int:
    """The pid on the host of the node's kubelet."""
    ((pid, _),) = processes("kubelet", f"--node-ip={node.address}")
    return pid


def age(pid: int) -> float:
    """Seconds since a process has started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICKS


def ready(made: Cluster, node: Node) -> bool:
    """Whether the node's own API server says so, not another behind the load balancer."""
    context = ssl.create_default_context(cafile=made.root(node) / "etc/kubernetes/pki/ca.crt")
    client = http.client.HTTPSConnection(node.address, API_PORT, timeout=5, context=context)
    try:
        client.request("GET", "/readyz")
        return client.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def wait(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {seconds} s"
        time.sleep(0.2)


def await_ready(made: Cluster, node: Node, *, lasting: float = 0) -> None:
    """Wait until the API server is ready, and has been there for so long."""

    def serves() -> bool:
        running = server(node)
        return running is not None and age(running[0]) > lasting and ready(made, node)

    wait(serves, 120, f"{node.name}: the API server is ready")


def replace(path: Path, text: str) -> None:
    """Replace a file in one step; its folder may be one of which the kubelet reads every file."""
    draft = path.parents[1] / f"draft.{path.name}"
    draft.write_text(text)
    draft.chmod(0o600)
    draft.replace(path)


def restart(made: Cluster, node: Node, manifest: str) -> None:
    """Give the node another manifest, and don't wait for the old server's graceful end."""
    old = server(node)
    replace(made.root(node) / MANIFEST, manifest)
    if old:
        # Not before the kubelet has seen the file, for it would start the old one anew.
        time.sleep(1.5)
        with contextlib.suppress(ProcessLookupError):
            os.kill(old[0], signal.SIGKILL)


@dataclass(frozen=True)
class Seen:
    """A master's settings as they are in force, and where they are written."""

    arguments: list[str]
    manifest: bytes
    manifests: list[str]
    """Every file of the static-pod directory, hidden ones too."""
    policy: tuple[bytes, int] | None
    pid: int = field(compare=False)
    written: float = field(compare=False)
    """When the manifest was replaced."""

    @classmethod
    def of(cls, made: Cluster, node: Node) -> Seen:
        root = made.root(node)
        running = server(node)
        assert running, f"{node.name} has no API server"
        policy = root / POLICY
        return cls(
            arguments=running[1],
            manifest=(root / MANIFEST).read_bytes(),
            manifests=sorted(each.name for each in (root / MANIFESTS).iterdir()),
            policy=(policy.read_bytes(), policy.stat().st_mode) if policy.is_file() else None,
            pid=running[0],
            written=(root / MANIFEST).stat().st_ctime,
        )

    @property
    def untouched(self) -> tuple[Seen, int, float]:
        """Equal only if nothing was written and the same process runs."""
        return self, self.pid, self.written

    def flag(self, name: str) -> str | None:
        """The value of a flag; None if the server has none."""
        start = f"--{name}="
        values = [word.removeprefix(start) for word in self.arguments if word.startswith(start)]
        return values[-1] if values else None


class Ambush:
    """Waits in a thread for its moment while the block runs, and then does something, once."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.sprung = False

    def _lurk(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._lurk()
        except BaseException as error:  # noqa: BLE001 - told to the test, which runs elsewhere
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        if self._error:
            raise self._error from error


class Trap(Ambush):
    """Acts as soon as a condition holds."""

    def __init__(self, condition: Callable[[], bool], act: Callable[[], object]) -> None:
        super().__init__()
        self._condition = condition
        self._act = act

    def _lurk(self) -> None:
        while not self._over.is_set():
            if self._condition():
                self._act()
                self.sprung = True
                return
            time.sleep(0.0005)


class Gate(Ambush):
    """Acts while whoever opens a file of that name in a folder is held up by the kernel.

    For moments too short to be met otherwise; the condition says which opening of several. All
    others who open something there go on meanwhile.
    """

    _EVENT = struct.Struct("=IBBHQii")
    _OPENING_OF_CHILDREN = ctypes.c_uint64(0x00010000 | 0x08000000)

    def __init__(
        self, folder: Path, name: str, condition: Callable[[], bool], act: Callable[[], object]
    ) -> None:
        super().__init__()
        self._name = name
        self._condition = condition
        self._act = act
        self._striking: threading.Thread | None = None
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.fanotify_init(0x4 | 0x2 | 0x1, os.O_RDONLY | os.O_CLOEXEC)
        where = os.fsencode(folder)
        if libc.fanotify_mark(self._events, 1, self._OPENING_OF_CHILDREN, -100, where):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))

    def _lurk(self) -> None:
        try:
            while not self._over.is_set():
                if select.select([self._events], [], [], 0.1)[0]:
                    self._answer(os.read(self._events, 4096))
        finally:
            # Lets everybody through who is still held up.
            os.close(self._events)
            if self._striking:
                self._striking.join()

    def _answer(self, events: bytes) -> None:
        for _, _, _, _, _, opened, _ in self._EVENT.iter_unpack(events):
            path = Path(f"/proc/self/fd/{opened}").readlink()
            if path.name == self._name and not self.sprung:
                # What it does may open something there too.
                self._striking = threading.Thread(target=self._strike, args=(opened,))
                self._striking.start()
            else:
                self._let(opened)

    def _strike(self, opened: int) -> None:
        try:
            if self._condition():
                self._act()
                self.sprung = True
        except BaseException as error:  # noqa: BLE001 - told to the test, which runs elsewhere
            self._error = error
        if not self._over.is_set():
            self._let(opened)

    def _let(self, opened: int) -> None:
        os.write(self._events, struct.pack("=iI", opened, 1))
        os.close(opened)
