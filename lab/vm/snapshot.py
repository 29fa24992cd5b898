"""Snapshots: an image booted once and frozen while it waits for work."""

import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.progress import say
from lab.vm import accelerator
from lab.vm.folders import cache_folder
from lab.vm.hostpackages import qemu_version
from lab.vm.image import Image, built, digest, prune
from lab.vm.qemu import Hardware, Process
from lab.vm.ssh import Shell

BOOT_SECONDS = {"kvm": 60.0, "tcg": 300.0}
# Read when this code is loaded: a file edited later says nothing about what runs.
_SOURCE = Path(__file__).read_text(encoding="utf-8")
# Brings what every test uses into the memory that is frozen: it is then read and linked already.
_WARM_UP = "python3 -c 'import json, subprocess, socket, zipfile, tempfile, email' && perl -e 1"


@dataclass(frozen=True)
class Snapshot:
    """A frozen machine in the cache."""

    folder: Path
    hardware: Hardware

    @property
    def disk(self) -> Path:
        """What the first boot wrote, on top of the image's disk."""
        return self.folder / "disk.qcow2"

    @property
    def memory(self) -> Path:
        """The machine's memory, byte by byte."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        """The state of the machine's devices."""
        return self.folder / "state"

    @property
    def console(self) -> Path:
        """What the first boot said."""
        return self.folder / "console.log"


def overlay(disk: Path, base: Path, base_format: str) -> None:
    """Make DISK, which starts as BASE and keeps the changes."""
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", base_format, str(disk)],
        check=True,
    )


def snapshot_key(hardware: Hardware, version: tuple[int, ...]) -> str:
    """Name what the frozen state is bound to: image, QEMU, its arguments and, for KVM, the host.

    Emulation gives every host the same processor.
    """
    nowhere = Path("-")
    inputs = {
        "image": hardware.image.folder.name,
        "qemu": ".".join(map(str, version)),
        "arguments": "\n".join(hardware.command(nowhere, nowhere, nowhere, restore=False)),
        "steps": _SOURCE,
    }
    if hardware.accelerator == "kvm":
        inputs |= {"cpu": accelerator.host_cpu(), "kernel": platform.release()}
    return digest(inputs)


def get(image: Image) -> Snapshot:
    """Give IMAGE's snapshot, made first when the cache lacks it (half a minute emulated)."""
    accelerated_by = accelerator.choose(image)
    hardware = Hardware(accelerated_by, image)
    name = image.folder.name.split("-")[0]
    key = snapshot_key(hardware, qemu_version())
    folder = cache_folder() / "snapshots" / f"{name}-{key}"
    with built(folder) as draft:
        if draft:
            prune(name, folder.parent)
            say(f"{name}: first boot with {accelerated_by} (half a minute when emulated)")
            freeze(Snapshot(draft, hardware))
            say(f"{name}: booted and frozen; from now on it starts in seconds")
    return Snapshot(folder, hardware)


def freeze(snapshot: Snapshot) -> None:
    """Boot the machine, wait until it has settled, and save it in SNAPSHOT's folder.

    Raises LabError with the end of the console's log, which is kept in the cache.
    """
    hardware = snapshot.hardware
    overlay(snapshot.disk, hardware.image.disk, "raw")
    command = hardware.command(snapshot.disk, snapshot.memory, snapshot.console, restore=False)
    try:
        with Process(command, snapshot.folder / "pid", die_with_parent=True) as process:
            _settle(process, hardware)
            process.save(snapshot.state)
    except LabError as problem:
        raise LabError(f"{problem}\n{_keep_console(snapshot)}") from problem
    (snapshot.folder / "pid").unlink(missing_ok=True)


def _settle(process: Process, hardware: Hardware) -> None:
    image, limit = hardware.image, BOOT_SECONDS[hardware.accelerator]
    with Shell(process.port(), image.host_key, image.client_key, timeout=limit) as shell:
        state = shell.run("systemctl is-system-running --wait", check=False, timeout=limit)
        if state.stdout.strip() != "running":
            failed = shell.run("systemctl --failed --plain --no-legend; systemctl list-jobs")
            raise LabError(f"the machine did not start well:\n{failed.stdout}")
        shell.run(_WARM_UP)
        shell.run("sync")
    # The connection's last processes end before memory is frozen.
    time.sleep(0.5)


def _keep_console(snapshot: Snapshot) -> str:
    """Copy the console's log out of the draft, which is about to go, and quote its end."""
    if not snapshot.console.exists():
        return "the machine's console stayed silent"
    kept = cache_folder() / "logs" / f"{snapshot.folder.name.lstrip('.')}.log"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(snapshot.console, kept)
    tail = kept.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
    return "\n".join([f"the end of its console, all of it in {kept}:", *tail])
