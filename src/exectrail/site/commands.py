"""The commands that take a fleet from nothing to verified and back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from exectrail import options, playbook
from exectrail.compliance.model import ExitCode
from exectrail.errors import UsageError
from exectrail.site import journal, outcome, summary

_EXIT_CODES = """\b
Exit codes:
  0  all is as it should be
  2  a node can't take it, or a change or its proof has failed
  3  a node could not be reached, or the run was interrupted: run again
  4  the request itself is wrong, or no host matched
"""
_RUN = [
    options.inventory,
    options.limit,
    click.option("--check", is_flag=True, help="Show what would change; change nothing."),
    click.option("--diff", is_flag=True, help="Show the differences of files."),
    options.masters_group,
    click.option("--workers-group", help="Inventory group of the others.  [default: workers]"),
    options.report_dir(journal.DEFAULT_DIRECTORY, "Folder for the journal and summary.json."),
    options.ansible_arguments,
]
_CHANGE = [
    click.option(
        "--agent", type=options.FILE, help="A built agent; else this checkout's is built."
    ),
    click.option("--cluster-id", help="The cluster's name in the agents' records."),
    click.option("--policy", metavar="registered|ack", help="Audit policy.  [default: registered]"),
    click.option("--policy-file", type=options.FILE, help="An audit policy of your own."),
    click.option("--waves", metavar="N,N%,...", help="Nodes at a time.  [default: 1,10%,25%]"),
    click.option(
        "--max-failures",
        type=click.IntRange(0, 100),
        metavar="PERCENT",
        help="Share of the nodes that may fail before the rest are left alone.  Default: 25",
    ),
]
_GATE = [options.profile("What preflight asks for."), options.waivers]


@click.command(
    epilog=_EXIT_CODES + options.ANSIBLE, short_help="From nothing to verified; also repairs."
)
@options.several(_RUN, _GATE, _CHANGE)
@click.option("--canary-image", help="Enter a pod of this image on every node as a proof.")
def site(**given: Any) -> int:
    """Take an inventory from nothing to verified: preflight, install, verify.

    What is right already is left alone, so the command also repairs. Nothing is touched when a node
    can't take it.
    """
    return _run("site", given)


@click.command(epilog=_EXIT_CODES + options.ANSIBLE, short_help="Install agents and audit policy.")
@options.several(_RUN, _GATE, _CHANGE)
def install(**given: Any) -> int:
    """Install the agent on every node, in waves, and the audit policy on every master.

    First checks every node; nothing is touched when one can't take it.
    """
    return _run("install", given)


@click.command(
    epilog=_EXIT_CODES + options.ANSIBLE, short_help="Bring agents and policy to this version."
)
@options.several(_RUN, _CHANGE)
@click.option("--allow-downgrade", is_flag=True, help="Also to an older agent.")
def upgrade(**given: Any) -> int:
    """Bring agents and audit policy to this version; open sessions go on."""
    return _run("upgrade", given)


@click.command(epilog=_EXIT_CODES + options.ANSIBLE, short_help="Take agents and policy out again.")
@options.several(_RUN)
@click.option("--purge", is_flag=True, help="List what was recorded, and stop.")
@click.option("--confirm", is_flag=True, help="With --purge: delete it.")
def uninstall(**given: Any) -> int:
    """Take agents and audit policy out again. What was recorded stays, unless purged."""
    return _run("uninstall", given)


_VARIABLES = {
    "masters_group": "install_masters_group",
    "workers_group": "install_workers_group",
    "agent": "exec_agent_file",
    "cluster_id": "exec_agent_cluster_id",
    "policy": "audit_policy_profile",
    "policy_file": "audit_policy_file",
    "waves": "install_waves",
    "max_failures": "install_max_fail_percentage",
    "profile": "preflight_profile",
    "waivers": "preflight_waivers",
    "canary_image": "verify_canary_image",
    "allow_downgrade": "exec_agent_allow_downgrade",
    "purge": "purge",
    "confirm": "confirm",
}
"""Options by the variables that they set. One that is not given leaves the inventory's."""


def variables(given: Mapping[str, Any]) -> dict[str, Any]:
    """Give the playbook's variables for the options; None for those that were not given."""
    found = {variable: given.get(option) for option, variable in _VARIABLES.items()}
    if found["install_waves"] is not None:
        found["install_waves"] = [size.strip() for size in found["install_waves"].split(",")]
    return found


def _run(name: str, given: Mapping[str, Any]) -> int:
    directory, run_id = given["report_dir"], uuid.uuid4().hex
    arguments = playbook.selecting(given["inventory"], given["limit"])
    arguments += [f"--{name}" for name in ("check", "diff") if given[name]]
    more = {"install_report_dir": directory, "install_run_id": run_id}
    interrupted = playbook.run(
        name, {**variables(given), **more}, [*arguments, *given["ansible_args"]]
    )
    return _outcome(directory, run_id, interrupted=interrupted)


def _outcome(directory: Path, run_id: str, *, interrupted: bool) -> int:
    """Give the exit code of the run; sum it up here if the playbook could not."""
    try:
        known = journal.load(directory)
    except UsageError:
        return ExitCode.USAGE
    if known.begun.run_id != run_id:
        return ExitCode.USAGE
    ended = summary.load(directory)
    if ended:
        return ended.exit_code
    if not interrupted and not known.notes:
        return ExitCode.USAGE
    made = outcome.sum_up(directory, interrupted=True)
    click.echo(summary.render(made), nl=False)
    click.echo(f"Summary: {summary.save(made, directory)}", err=True)
    return made.exit_code
