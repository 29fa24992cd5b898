"""QEMU: how a machine is started, spoken to and ended."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lab.errors import LabError
from lab.vm.hostpackages import QEMU
from lab.vm.image import Image

MEMORY = "512M"
_MACHINE = "q35"
# Emulated, a processor without AVX and a single one cost a third less of the host's time.
_CPU = {"kvm": "host", "tcg": "Nehalem"}
_CPUS = {"kvm": "2", "tcg": "1"}
_ACCELERATOR = {"kvm": "kvm", "tcg": "tcg,thread=multi"}
_ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Hardware:
    """What a machine is made of, apart from its disk: a snapshot fits only the very same."""

    accelerator: str
    image: Image
    # Guards against leaks between programs have nothing to guard here and slow emulation down.
    kernel_arguments: str = "root=/dev/vda rw console=ttyS0 mitigations=off"

    def command(self, disk: Path, memory: Path, console: Path, *, restore: bool) -> list[str]:
        """Build QEMU's arguments; RESTORE maps the MEMORY file privately and waits for a state."""
        # A private mapping of one file: a restored machine needs no copy of its memory, and
        # several machines share the pages that they don't change.
        mapping = "share=off,readonly=on,rom=off" if restore else "share=on"
        return [
            QEMU,
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-machine", f"{_MACHINE},memory-backend=memory"),
            *("-accel", _ACCELERATOR[self.accelerator], "-cpu", _CPU[self.accelerator]),
            *("-smp", _CPUS[self.accelerator], "-m", MEMORY),
            "-object",
            f"memory-backend-file,id=memory,size={MEMORY},mem-path={_quote(memory)},{mapping}",
            *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)),
            *("-append", self.kernel_arguments),
            "-drive",
            f"file={_quote(disk)},if=virtio,format=qcow2,cache=unsafe",
            # Port 0: the kernel chooses a free one at the moment it is taken, so none is raced for.
            *("-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=console,path={_quote(console)},append=on"),
            *("-serial", "chardev:console"),
            *(("-incoming", "defer") if restore else ()),
        ]


def _quote(path: Path) -> str:
    return str(path).replace(",", ",,")


class Process:
    """A running QEMU and its control channel."""

    def __init__(self, arguments: Sequence[str], pid_file: Path, *, die_with_parent: bool) -> None:
        """Start QEMU; PID_FILE is how later commands find it again.

        DIE_WITH_PARENT lets the kernel kill it when the thread that calls this goes, however it
        goes.
        """
        # A socket pair instead of a path: nothing is left on the disk, and no path is too long.
        ours, theirs = socket.socketpair()
        guard = ["setpriv", "--pdeathsig", "KILL"] if die_with_parent else []
        with theirs:
            channel = f"socket,id=control,fd={theirs.fileno()}"
            self._child = subprocess.Popen(
                [
                    *guard,
                    *arguments,
                    *("-chardev", channel, "-mon", "chardev=control,mode=control"),
                    *("-pidfile", str(pid_file)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=not die_with_parent,
            )
        ours.settimeout(_ANSWER_SECONDS)
        self._socket = ours
        self._channel = ours.makefile("r", encoding="utf-8")
        try:
            self._read()
            self.ask("qmp_capabilities")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._channel.readline()
        except TimeoutError as problem:
            raise LabError("QEMU does not answer on its control channel") from problem
        except ConnectionError:
            line = ""
        if not line:
            self._child.kill()
            said = self._child.stderr.read() if self._child.stderr else b""
            raise LabError(f"QEMU ended: {said.decode('utf-8', 'replace').strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and give its answer."""
        # A QEMU that is gone is noticed by the reader, which knows its last words.
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise LabError(f"QEMU refused {command}: {answer['error']['desc']}")

    def port(self) -> int:
        """Find the loopback port that leads to the machine's ssh server."""
        told = self.ask("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", told)
        if not found:
            raise LabError(f"QEMU forwards no port to the machine's ssh server:\n{told}")
        return int(found[1])

    def save(self, state: Path) -> None:
        """Stop the machine and write its devices' state; its memory stays in its own file."""
        self.ask("stop")
        self._migrate("migrate", state)

    def restore(self, state: Path) -> None:
        """Load the devices' state and let the machine run."""
        self._migrate("migrate-incoming", state)
        self.ask("cont")

    def _migrate(self, command: str, state: Path) -> None:
        shared = [{"capability": "x-ignore-shared", "state": True}]
        self.ask("migrate-set-capabilities", capabilities=shared)
        self.ask(command, uri=f"file:{state}")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while (now := self.ask("query-migrate").get("status")) != "completed":
            if now == "failed" or time.monotonic() > deadline:
                raise LabError(f"QEMU could not {command} {state}: {now}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End QEMU at once, as a power cut would; harmless when it has ended."""
        self._child.kill()
        self._child.wait()
        self.release()

    def release(self) -> None:
        """Let go of the control channel; QEMU runs on."""
        self._channel.close()
        self._socket.close()
        if self._child.stderr:
            self._child.stderr.close()


def find(pid_file: Path) -> int | None:
    """Find the QEMU that PID_FILE names, if it runs; another process of that id is not it."""
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if os.fsencode(pid_file) in arguments else None


def end(pid_file: Path) -> None:
    """End the QEMU that PID_FILE names and wait until it is gone."""
    pid = find(pid_file)
    if pid is None:
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # Asked again now that the handle holds the id: what it names can't change any more.
        if find(pid_file) == pid:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            _await_exit(handle)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def _await_exit(handle: int) -> None:
    if not select.select([handle], [], [], _ANSWER_SECONDS)[0]:
        raise LabError("a QEMU does not end although it was killed")
