"""`python -m lab`: the machines that tests and the demo use."""

import signal
import sys

import click

from lab.cluster.commands import cluster
from lab.demo import demo
from lab.errors import LabError
from lab.vm.cli import vm


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """Machines to try Exectrail on."""


lab.add_command(vm)
lab.add_command(cluster)
lab.add_command(demo)


def main() -> None:
    """Run the command; a LabError becomes one line and exit code 1."""
    # A terminated command unwinds like an interrupted one: what it began is taken back.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        lab(prog_name="python -m lab")
    except LabError as problem:
        click.echo(f"lab: {problem}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
