"""The command ``exectrail remediate``."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from exectrail import options, playbook
from exectrail.compliance import run as compliance
from exectrail.compliance.model import ExitCode
from exectrail.remediation import run

_EXIT_CODES = """\b
Exit codes:
  0  what was named is repaired, or needed no repair
  2  something named is left, for somebody to do by hand
  3  a node could not be read, or the run was interrupted
  4  the request itself is wrong, or no host matched
"""


@click.command(
    epilog=_EXIT_CODES + options.ANSIBLE, short_help="Repair what named checks have found."
)
@click.argument("checks", metavar="CHECK[,CHECK...]")
@options.inventory
@options.limit
@click.option("--check", "dry", is_flag=True, help="Show what would be changed; change nothing.")
@click.option("--diff", is_flag=True, help="Show the differences too; --check always does.")
@click.option("--undo", is_flag=True, help="Put back what the last repair of CHECK has changed.")
@options.profile("The requirements to judge by.")
@options.waivers
@options.report_dir(run.DEFAULT_DIRECTORY, "Folder for the evidence and what came of it.")
@options.ansible_arguments
def remediate(  # noqa: PLR0913  one parameter per option
    checks: str,
    *,
    inventory: Sequence[str],
    limit: str | None,
    dry: bool,
    diff: bool,
    report_dir: Path,
    ansible_args: Sequence[str],
    **given: Any,
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
    given |= {"report_dir": report_dir, "run_id": run_id}
    variables = {"remediate": checks, **{f"remediate_{key}": given[key] for key in given}}
    playbook.run("remediate", variables, [*arguments, *ansible_args])
    ended = run.summary(report_dir)
    if ended and ended.run_id == run_id:
        return ended.exit_code
    return ExitCode.UNKNOWN if compliance.is_of(report_dir, run_id) else ExitCode.USAGE
