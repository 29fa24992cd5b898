"""`python -m lab demo`: a fit and an unfit machine, checked as a user would check them."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click
import yaml

from lab.errors import LabError
from lab.vm import faults
from lab.vm.machine import machine

_CHECKOUT = Path(__file__).parents[1]
_REPORTS = _CHECKOUT / "reports" / "demo"
_FAULTS = ("resolv-conf-file", "upgrades-config", "cpfs-fstab", "clock-unsynchronised")


@click.command()
def demo() -> None:
    """Boot a fit and an unfit machine, check both with ansible-playbook, show the report."""
    started = time.monotonic()
    click.echo("== Two virtual machines of Debian 12, one fit, one with faults:")
    for name in _FAULTS:
        click.echo(f"     {name}: {faults.known()[name].description}")
    with ExitStack() as stack:
        machines = [
            stack.enter_context(machine("demo-fit")),
            stack.enter_context(machine("demo-unfit", faults=_FAULTS)),
        ]
        _REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
        inventory = _REPORTS / "hosts.yml"
        hosts = {one.name: one.inventory_variables() for one in machines}
        inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
        command = [
            *("ansible-playbook", "playbooks/preflight.yml", "-i", str(inventory)),
            *("-e", f"preflight_report_dir={_REPORTS}"),
        ]
        click.echo(f"== {' '.join(command)}", nl=True)
        command[0] = str(Path(sys.executable).with_name(command[0]))
        subprocess.run(command, cwd=_CHECKOUT, check=False)
    _judge()
    click.echo(
        f"== As meant: the gate stopped the unfit machine, for its faults alone "
        f"({time.monotonic() - started:.0f} s). The report for people: {_REPORTS}/report.html"
    )


def _judge() -> None:
    """Fail unless the report names the faults that were put in, and nothing else."""
    report = json.loads((_REPORTS / "report.json").read_text(encoding="utf-8"))
    found = {
        host["host"]: {row["check"] for row in host["results"] if row["status"] not in _GOOD}
        for host in report["hosts"]
    }
    meant = {check for name in _FAULTS for check in faults.known()[name].finds}
    if found != {"demo-fit": set(), "demo-unfit": meant}:
        raise LabError(f"the report should have named {sorted(meant)} on demo-unfit only: {found}")


_GOOD = {"pass", "skip"}
