"""`python -m lab vm`: virtual machines."""

import os
import shutil
import subprocess
from pathlib import Path

import click
import yaml

from lab.cluster import podman
from lab.errors import LabError
from lab.vm import faults, folders, hostpackages, machine, qemu
from lab.vm.recipe import RECIPES


@click.group()
def vm() -> None:
    """Virtual machines with their own kernel: fit ones and unfit ones."""


@vm.command()
@click.argument("name")
@click.option(
    "--image", default="debian12", show_default=True, help=f"One of {', '.join(RECIPES)}."
)
@click.option(
    "--fault", "wanted", multiple=True, metavar="FAULT", help="Repeatable; `lab vm faults` lists."
)
def up(name: str, image: str, wanted: tuple[str, ...]) -> None:
    """Start a fresh machine NAME and wait until it answers ssh."""
    _show(machine.up(name, image, wanted))


def _show(found: machine.Machine) -> None:
    told = ", ".join(found.faults) or "none"
    click.echo(
        f"{found.name}: {found.image}, port {found.port}, {found.accelerator}, "
        f"pid {found.pid}, faults: {told}"
    )


@vm.command("list")
def list_machines() -> None:
    """Show the machines of this checkout that are up."""
    for found in machine.machines():
        _show(found)


@vm.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(name: str, command: tuple[str, ...]) -> None:
    """Enter machine NAME as root, or run COMMAND there."""
    argv = machine.get(name).ssh_command(command)
    os.execvp(argv[0], argv)  # noqa: S606  ssh takes this process's place and its terminal


@vm.command()
@click.argument("name")
def logs(name: str) -> None:
    """Show the console log of machine NAME, also of one whose start failed."""
    file = folders.machines_folder() / name / "console.log"
    if not file.exists():
        raise LabError(f"there is no console log of a machine {name!r}")
    click.echo(file.read_text(encoding="utf-8", errors="replace"), nl=False)


@vm.command()
@click.argument("names", nargs=-1)
def inventory(names: tuple[str, ...]) -> None:
    """Print an Ansible inventory of the machines NAMES, or of all."""
    found = [machine.get(name) for name in names] or machine.machines()
    hosts = {one.name: one.inventory_variables() for one in found}
    click.echo(yaml.safe_dump({"all": {"hosts": hosts}}, sort_keys=False, width=1000), nl=False)


@vm.command()
@click.argument("names", nargs=-1)
def down(names: tuple[str, ...]) -> None:
    """End the machines NAMES, or all of this checkout."""
    for name in names:
        machine.get(name)
    for name in names or [one.name for one in machine.machines()]:
        machine.down(name)


@vm.command("faults")
def list_faults() -> None:
    """List what can be put wrong with a machine by `up --fault`."""
    width = max(map(len, faults.known()))
    for fault in faults.known().values():
        click.echo(f"{fault.name:{width}}  {fault.description}")


@vm.command()
def packages() -> None:
    """Install the host packages that the machines need (as root)."""
    hostpackages.ensure()


@vm.command()
def clean() -> None:
    """Empty the cache: images, snapshots and what is left of machines."""
    cache = folders.cache_folder()
    with folders.lock("cache", wait=False) as free:
        running = list(filter(None, map(qemu.find, folders.all_machines_folder().glob("*/*/pid"))))
        if running or not free:
            pids = f" (pids {', '.join(map(str, running))})" if running else ""
            raise LabError(
                f"machines are running from {cache}{pids}: end them first, in each checkout: "
                "python -m lab vm down"
            )
        if nodes := podman.containers():
            raise LabError(
                f"clusters are made from {cache} ({', '.join(node.name for node in nodes)}): "
                "end them first, in each checkout: python -m lab cluster down"
            )
        for entry in cache.iterdir():
            if entry.name != "locks":
                _remove(entry)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        # Go makes the folders of its module cache read-only.
        subprocess.run(["chmod", "-R", "u+w", str(entry)], check=True)
        shutil.rmtree(entry)
    else:
        entry.unlink()
