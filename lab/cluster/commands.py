"""`python -m lab cluster`: Kubernetes clusters of node containers."""

import os

import click
import yaml

from lab.cluster import kubeadm, layout, lifecycle

_PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_NAME = click.option("--name", default="lab", show_default=True, help="Which cluster.")


@click.group()
def cluster() -> None:
    """Kubernetes clusters made by kubeadm, with containers for nodes."""


@cluster.command()
@click.option("--masters", default=1, show_default=True, help="1, or 3 behind a load balancer.")
@click.option("--workers", default=1, show_default=True, help="Nodes without a control plane.")
@_NAME
def up(name: str, masters: int, workers: int) -> None:
    """Make a cluster and wait until its nodes are ready."""
    _show(lifecycle.up(name, masters, workers))


def _show(made: layout.Cluster) -> None:
    click.echo(f"{made.name}: Kubernetes {made.version}, API https://{made.endpoint}")
    for node in made.nodes:
        click.echo(f"  {node.name}: {node.address}")


@cluster.command("list")
def list_clusters() -> None:
    """Show the clusters of this checkout, and what interrupted runs have left."""
    for found, states in lifecycle.clusters():
        if not found.nodes:
            click.echo(
                f"{found.name}: just being made, or left unfinished; to remove it: "
                f"python -m lab cluster down {found.name}"
            )
            continue
        _show(found)
        for stopped in (name for name, running in states.items() if not running):
            click.echo(f"  container {stopped} does not run")


@cluster.command(context_settings=_PASS_ON)
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(node: str, command: tuple[str, ...]) -> None:
    """Enter NODE as root, or run COMMAND there."""
    found, target = lifecycle.node(node)
    argv = found.ssh_command(target, command)
    os.execvp(argv[0], argv)  # noqa: S606 - a list of arguments, never a shell


@cluster.command(context_settings={**_PASS_ON, "help_option_names": []})
@_NAME
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl as the cluster's administrator; --name goes before kubectl's own words."""
    argv = kubeadm.kubectl_command(lifecycle.get(name), *arguments)
    os.execvp(argv[0], argv)  # noqa: S606 - a list of arguments, never a shell


@cluster.command()
@_NAME
def inventory(name: str) -> None:
    """Print an Ansible inventory with the groups masters and workers."""
    found = lifecycle.get(name).inventory()
    click.echo(yaml.safe_dump(found, sort_keys=False, width=1000), nl=False)


@cluster.command()
@click.argument("names", nargs=-1)
def down(names: tuple[str, ...]) -> None:
    """Remove the clusters NAMES, or all of this checkout, and all that is left of them."""
    for name in names or [found.name for found, _ in lifecycle.clusters()]:
        lifecycle.down(name)
