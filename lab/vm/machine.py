"""Machines of this checkout: started from a snapshot, found again by later commands, ended."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError
from lab.vm import hostpackages, image, qemu, snapshot
from lab.vm.faults import Fault, choose
from lab.vm.folders import lock, machines_folder
from lab.vm.recipe import RECIPES, Recipe
from lab.vm.ssh import Completed, Shell

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ANSWER_SECONDS = 60.0
_PERSONALISE = Path(__file__).with_name("personalise.pl")


@dataclass(frozen=True)
class Machine:
    """A running machine."""

    name: str
    image: str
    port: int
    accelerator: str
    faults: tuple[str, ...]
    host_key: str
    client_key: str

    @property
    def folder(self) -> Path:
        """Where the machine's files are."""
        return machines_folder() / self.name

    @property
    def known_hosts(self) -> Path:
        """The file that pins the machine's host key, for OpenSSH."""
        return self.folder / "known_hosts"

    @property
    def pid(self) -> int | None:
        """The process id of the machine's QEMU; None when it has ended."""
        return qemu.find(_pid_file(self.folder))

    def shell(self) -> Shell:
        """Connect to the machine as root."""
        key = Path(self.client_key)
        return Shell(self.port, self.host_key, key, timeout=_ANSWER_SECONDS)

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        stdin: bytes = b"",
        timeout: float = 120,
    ) -> Completed:
        """Run one command over a connection of its own; see Shell.run."""
        with self.shell() as shell:
            return shell.run(command, check=check, stdin=stdin, timeout=timeout)

    def put(self, content: bytes, path: str, *, mode: int = 0o644) -> None:
        """Write CONTENT to PATH on the machine."""
        with self.shell() as shell:
            shell.put(content, path, mode=mode)

    def ssh_options(self) -> list[str]:
        """OpenSSH options that reach exactly this machine and trust no other key."""
        return [
            *("-o", f"UserKnownHostsFile={self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes"),
        ]

    def ssh_command(self, command: Sequence[str] = ()) -> list[str]:
        """Build the OpenSSH command that enters the machine or runs COMMAND there."""
        options = ["-F", "/dev/null", *self.ssh_options(), "-i", self.client_key]
        return ["ssh", *options, "-p", str(self.port), "root@127.0.0.1", *command]

    def inventory_variables(self) -> dict[str, object]:
        """Ansible's variables for the machine."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": self.client_key,
            "ansible_ssh_common_args": " ".join(self.ssh_options()),
        }


def _pid_file(folder: Path) -> Path:
    return folder / "pid"


def recipe_for(name: str) -> Recipe:
    """Look an image up by name; raises LabError with the names there are."""
    if name not in RECIPES:
        raise LabError(f"no image {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def machines() -> list[Machine]:
    """List this checkout's running machines by name; what a crashed run left is cleared away."""
    found = []
    for folder in sorted(machines_folder().glob("*")):
        with lock(_lock_name(folder.name), wait=False) as free:
            if not free:
                continue  # Just being started or ended by another command.
            if machine := _load(folder):
                found.append(machine)
            else:
                _clear(folder)
    return found


def get(name: str) -> Machine:
    """Find a running machine; raises LabError when there is none of that name."""
    known = {machine.name: machine for machine in machines()}
    if name not in known:
        running = ", ".join(known) or "none"
        raise LabError(f"no machine {name!r} is up (up: {running}): python -m lab vm up {name}")
    return known[name]


def _load(folder: Path) -> Machine | None:
    # The record is written last, so a machine without one never became ready.
    record = folder / "machine.json"
    if not record.exists() or qemu.find(_pid_file(folder)) is None:
        return None
    values = json.loads(record.read_text(encoding="utf-8"))
    return Machine(**{**values, "faults": tuple(values["faults"])})


def _clear(folder: Path) -> None:
    """End what runs from FOLDER and remove its files, but for the console's log."""
    qemu.end(_pid_file(folder))
    for file in folder.glob("*"):
        if file.name != "console.log":
            file.unlink()


def _lock_name(name: str) -> str:
    return f"machine-{machines_folder().name}-{name}"


def up(
    name: str,
    image_name: str = "debian12",
    faults: Sequence[str] = (),
    *,
    die_with_parent: bool = False,
) -> Machine:
    """Start a fresh machine and wait until it answers ssh with FAULTS put into it.

    DIE_WITH_PARENT ties it to this process: however that ends, the machine ends too.
    """
    if not _NAME.fullmatch(name):
        raise LabError(f"{name!r} can't be a host name: use a-z, 0-9 and - (at most 63)")
    recipe = recipe_for(image_name)
    chosen = choose(faults)
    hostpackages.ensure()
    with lock("cache", shared=True), lock(_lock_name(name), wait=False) as free:
        folder = machines_folder() / name
        if not free or _load(folder):
            raise LabError(f"machine {name!r} is up already: python -m lab vm down {name}")
        _clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        frozen = snapshot.get(image.get(recipe))
        try:
            return _start(name, recipe, frozen, chosen, die_with_parent=die_with_parent)
        except BaseException:
            _clear(folder)
            raise


def _start(
    name: str,
    recipe: Recipe,
    frozen: snapshot.Snapshot,
    faults: Sequence[Fault],
    *,
    die_with_parent: bool,
) -> Machine:
    folder = machines_folder() / name
    disk, console = folder / "disk.qcow2", folder / "console.log"
    snapshot.overlay(disk, frozen.disk, "qcow2")
    shutil.copyfile(frozen.console, console)
    command = frozen.hardware.command(disk, frozen.memory, console, restore=True)
    process = qemu.Process(command, _pid_file(folder), die_with_parent=die_with_parent)
    try:
        process.restore(frozen.state)
        built_image = frozen.hardware.image
        machine = Machine(
            name=name,
            image=recipe.name,
            port=process.port(),
            accelerator=frozen.hardware.accelerator,
            faults=tuple(fault.name for fault in faults),
            host_key=built_image.host_key,
            client_key=str(built_image.client_key),
        )
        with machine.shell() as shell:
            _personalise(shell, name)
            for fault in faults:
                fault.put_into(shell)
    except BaseException:
        process.kill()
        raise
    process.release()
    pinned = f"[127.0.0.1]:{machine.port} {machine.host_key}\n"
    machine.known_hosts.write_text(pinned, encoding="ascii")
    (folder / "machine.json").write_text(json.dumps(asdict(machine)), encoding="utf-8")
    return machine


def _personalise(shell: Shell, name: str) -> None:
    script = _PERSONALISE.read_text(encoding="utf-8")
    argv = ["perl", "-e", script, f"{time.time():.3f}", name]
    shell.run(argv, stdin=os.urandom(64))


def down(name: str) -> None:
    """End a machine and remove everything of it."""
    folder = machines_folder() / name
    with lock(_lock_name(name)):
        qemu.end(_pid_file(folder))
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def machine(
    name: str, image_name: str = "debian12", faults: Sequence[str] = ()
) -> Iterator[Machine]:
    """Give a fresh machine for the block; it ends with it, also when this process is killed."""
    started = up(name, image_name, faults, die_with_parent=True)
    try:
        yield started
    finally:
        down(name)
