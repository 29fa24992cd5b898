"""`python -m lab demo`: nodes checked, a cluster audited, and who entered a pod seen."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import click
import yaml

from lab.cluster.kubeadm import kubectl, kubectl_command
from lab.cluster.layout import Cluster
from lab.cluster.lifecycle import cluster
from lab.errors import LabError
from lab.images import recipes
from lab.vm import faults
from lab.vm.machine import machine

_CHECKOUT = Path(__file__).parents[1]
_REPORTS = _CHECKOUT / "reports" / "demo"
_SCRIPT = "id; cat /etc/os-release | grep NAME; ls /root/.ssh"
_FAULTS = ("resolv-conf-file", "upgrades-config", "cpfs-fstab", "clock-unsynchronised")


@click.command()
def demo() -> None:
    """Check a fit and an unfit machine; audit a cluster, and see who entered a pod."""
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
        if _play("exec_agent", inventory, "exec_agent_cluster_id=demo"):
            raise LabError("the agent should be on every node by now")
        kubectl(made, "run", "web", f"--image={recipes.TOOLS}")
        kubectl(made, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        click.echo(f"== kubectl exec web -- bash -c '{_SCRIPT}'")
        command = kubectl_command(made, "exec", "web", "--", "bash", "-c", _SCRIPT)
        subprocess.run(command, check=False)
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
        click.echo("== What the agent on the node says of it (exectrail-agent tail --tree):")
        click.echo(_session(made), nl=False)


def _session(made: Cluster) -> str:
    """Give the sessions that the agent of the pod's node has seen; the last one just ended."""
    command = made.ssh_command(made.workers[0], ["exectrail-agent", "tail", "--tree"])
    deadline = time.monotonic() + 20
    while True:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "default/web" in shown and "(still open)" not in shown:
            return shown
        if time.monotonic() > deadline:
            raise LabError(f"the agent should have seen the exec: {shown}")
        time.sleep(0.5)


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
