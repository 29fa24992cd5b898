"""The command ``exectrail remediate``."""

from __future__ import annotations

import uuid
from pathlib import Path

import click

from exectrail import playbook
from exectrail.compliance import live
from exectrail.compliance.model import ExitCode
from exectrail.remediation import run

_EXIT_CODES = """\b
Exit codes:
  0  what was named is repaired, or needed no repair
  2  something named is left, for somebody to do by hand
  3  a node could not be read, or the run was interrupted
  4  the request itself is wrong, or no host matched
"""


@click.command(epilog=_EXIT_CODES + live.ANSIBLE, short_help="Repair what named checks have found.")
@click.argument("checks", metavar="CHECK[,CHECK...]")
@live.inventory_option
@live.limit_option
@click.option("--check", "dry", is_flag=True, help="Show what would be changed; change nothing.")
@click.option("--diff", is_flag=True, help="Show the differences too; --check always does.")
@click.option("--undo", is_flag=True, help="Put back what the last repair of CHECK has changed.")
@click.option(
    "--profile",
    metavar="ack|self_managed|FILE",
    help="The requirements to judge by.  [default: self_managed]",
)
@live.waivers_option
@live.report_dir_option(run.DEFAULT_DIRECTORY, "Folder for the evidence and what came of it.")
@live.ansible_arguments
def remediate(  # noqa: PLR0913, PLR0917  one parameter per option
    checks: str,
    inventory: tuple[str, ...],
    limit: str | None,
    dry: bool,  # noqa: FBT001
    diff: bool,  # noqa: FBT001
    undo: bool,  # noqa: FBT001
    profile: str | None,
    waivers: Path | None,
    report_dir: Path,
    ansible_args: tuple[str, ...],
) -> int:
    """Repair what checks have found, where that needs no judgement.

    CHECK is an id as in the report, such as node.resolv-conf. Only the checks that are named, only
    on the nodes where they fail. A repair is backed up on the node, proven
    by judging its check again, and taken back if it did not help. No node is restarted.
    """
    arguments = playbook.selecting(inventory, limit)
    run_id = uuid.uuid4().hex
    arguments += ["--check"] if dry else []
    arguments += ["--diff"] if dry or diff else []
    playbook.run(
        "remediate",
        live.given(
            {
                "remediate": checks,
                "remediate_undo": undo,
                "remediate_profile": profile,
                "remediate_waivers": waivers,
                "remediate_report_dir": report_dir.absolute(),
                "remediate_run_id": run_id,
            }
        ),
        [*arguments, *ansible_args],
    )
    ended = run.summary(report_dir)
    if ended and ended.run_id == run_id:
        return ended.exit_code
    return ExitCode.UNKNOWN if run.was_opened(report_dir, run_id) else ExitCode.USAGE
