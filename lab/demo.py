"""`python -m lab demo`: a node made fit, a cluster installed and proven, and who entered a pod."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
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
_FAULTS = ("resolv-conf-file", "upgrades-config")


@click.command()
def demo() -> None:
    """Make a node fit; install on a cluster, prove it, and see who entered a pod."""
    started = time.monotonic()
    _REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_a_node_fit()
    _audit_a_cluster()
    click.echo(f"== As meant ({time.monotonic() - started:.0f} s). Machine and cluster are gone.")
    click.echo(f"     what the node lacked, for people: {_REPORTS}/unfit/report.html")
    click.echo(f"     what was proven on the cluster:   {_REPORTS}/verify/report.html")
    click.echo("     to clean up: make lab-clean (images and builds), make clean (reports, .venv)")


def _make_a_node_fit() -> None:
    click.echo("== A virtual machine of Debian 12 with faults:")
    for name in _FAULTS:
        click.echo(f"     {name}: {faults.known()[name].description}")
    with machine("demo-unfit", faults=_FAULTS) as made:
        hosts = {"all": {"hosts": {made.name: made.inventory_variables()}}}
        inventory = _inventory("machine", hosts)
        meant = {check for name in _FAULTS for check in faults.known()[name].finds}
        _preflight(inventory, "unfit", meant)
        click.echo("== The gate has stopped it, for these faults alone. They can be repaired:")
        _good(
            "remediate", ",".join(sorted(meant)), "-i", inventory, report_dir=_REPORTS / "repairs"
        )
        _preflight(inventory, "fit", ())
        click.echo("== The node is fit now.")


def _preflight(inventory: Path, name: str, meant: Collection[str]) -> None:
    """Check the machine; LabError unless the report names what is meant, and nothing else."""
    folder = _REPORTS / name
    _run("preflight", "-i", inventory, report_dir=folder)
    (host,) = json.loads((folder / "report.json").read_text(encoding="utf-8"))["hosts"]
    found = {row["check"] for row in host["results"] if row["status"] not in {"pass", "skip"}}
    if host["state"] != "checked" or found != set(meant):
        raise LabError(f"the report should have named {sorted(meant)}: {sorted(found)}")


def _audit_a_cluster() -> None:
    click.echo("== A Kubernetes cluster of one master and one worker (compiled the first time):")
    with cluster("demo") as made:
        inventory = _inventory("cluster", made.inventory())
        _good(
            "site",
            *("-i", inventory, "--cluster-id", "demo", "--canary-image", recipes.TOOLS),
            report_dir=_REPORTS / "site",
            preflight_report_dir=_REPORTS / "preflight",
            audit_policy_report_dir=_REPORTS / "audit-policy",
            verify_report_dir=_REPORTS / "verify",
        )
        _good("status", "-i", inventory)
        kubectl(made, "run", "web", f"--image={recipes.TOOLS}")
        kubectl(made, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        click.echo(f"== kubectl exec web -- sh -c '{_SCRIPT}'")
        command = kubectl_command(made, "exec", "web", "--", "sh", "-c", _SCRIPT)
        subprocess.run(command, check=False)
        _show_audit_line(made)
        click.echo("== What the agent on the node says of it (exectrail-agent tail --tree):")
        click.echo(_session(made), nl=False)


def _show_audit_line(made: Cluster) -> None:
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


def _inventory(name: str, hosts: Mapping[str, object]) -> Path:
    path = _REPORTS / f"{name}.yml"
    path.write_text(yaml.safe_dump(dict(hosts)), encoding="utf-8")
    return path


def _good(name: str, *words: str | Path, **folders: Path) -> None:
    if _run(name, *words, **folders):
        raise LabError(f"exectrail {name} should have ended well")


def _run(name: str, *words: str | Path, report_dir: Path | None = None, **folders: Path) -> int:
    """Run a command as a user does, and give its exit code; `folders` are variables of roles."""
    command = ["exectrail", name, *map(str, words)]
    command += ["--report-dir", str(report_dir)] if report_dir else []
    command += ["--"] if folders else []
    for variable, folder in folders.items():
        command += ["-e", f"{variable}={folder}"]
    click.echo(f"== {shlex.join(command)}")
    command[0] = str(Path(sys.executable).with_name(command[0]))
    return subprocess.run(command, cwd=_CHECKOUT, check=False).returncode
