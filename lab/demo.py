"""`python -m lab demo`: nodes checked, an audit policy turned on, an exec seen in its log."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click
import yaml

from lab.cluster.kubeadm import kubectl
from lab.cluster.lifecycle import cluster
from lab.errors import LabError
from lab.images import recipes
from lab.vm import faults
from lab.vm.machine import machine

_CHECKOUT = Path(__file__).parents[1]
_REPORTS = _CHECKOUT / "reports" / "demo"
_FAULTS = ("resolv-conf-file", "upgrades-config", "cpfs-fstab", "clock-unsynchronised")


@click.command()
def demo() -> None:
    """Check a fit and an unfit machine; turn a cluster's audit policy on, and see an exec."""
    started = time.monotonic()
    _check_nodes()
    _audit_cluster()
    click.echo(
        f"== As meant ({time.monotonic() - started:.0f} s). The compliance report for people: "
        f"{_REPORTS}/report.html"
    )


def _check_nodes() -> None:
    click.echo("== Two virtual machines of Debian 12, one fit, one with faults:")
    for name in _FAULTS:
        click.echo(f"     {name}: {faults.known()[name].description}")
    with ExitStack() as stack:
        machines = [
            stack.enter_context(machine("demo-fit")),
            stack.enter_context(machine("demo-unfit", faults=_FAULTS)),
        ]
        _REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
        hosts = {one.name: one.inventory_variables() for one in machines}
        inventory = _inventory("hosts", {"all": {"hosts": hosts}})
        _play("preflight", inventory, f"preflight_report_dir={_REPORTS}")
    _judge()
    click.echo("== The gate stopped the unfit machine, for its faults alone.")


def _audit_cluster() -> None:
    click.echo("== A Kubernetes cluster of one master and one worker (compiled the first time):")
    with cluster("demo") as made:
        inventory = _inventory("cluster", made.inventory())
        if _play("audit_policy", inventory, f"audit_policy_report_dir={_REPORTS}/audit-policy"):
            raise LabError("the audit policy should be in force by now")
        kubectl(made, "run", "web", f"--image={recipes.BUSYBOX}")
        kubectl(made, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        click.echo("== kubectl exec web -- sh -c 'id; ls /'")
        click.echo(kubectl(made, "exec", "web", "--", "sh", "-c", "id; ls /"), nl=False)
        log = made.root(made.masters[0]) / "var/log/kubernetes/kubernetes.audit"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        found = [line for line in lines if (line.get("objectRef") or {}).get("name") == "web"]
        found = [line for line in found if line["objectRef"].get("subresource") == "exec"]
        if not found:
            raise LabError("the exec should be in the audit log")
        click.echo("== What the audit log says of it:")
        for name in ("requestReceivedTimestamp", "user", "verb", "requestURI", "sourceIPs"):
            value = found[0][name]
            click.echo(f"     {name}: {value['username'] if name == 'user' else value}")


def _inventory(name: str, hosts: dict[str, object]) -> Path:
    path = _REPORTS / f"{name}.yml"
    path.write_text(yaml.safe_dump(hosts), encoding="utf-8")
    return path


def _play(playbook: str, inventory: Path, variable: str) -> int:
    """Run a playbook as a user does, and give its exit status."""
    command = [
        *("ansible-playbook", f"playbooks/{playbook}.yml", "-i", str(inventory), "-e", variable)
    ]
    click.echo(f"== {' '.join(command)}")
    command[0] = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run(command, cwd=_CHECKOUT, check=False).returncode


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
