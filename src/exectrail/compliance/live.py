"""Commands that judge an inventory's nodes with one of the playbooks: their options, their end."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from exectrail import playbook
from exectrail.compliance import run
from exectrail.compliance.model import ExitCode, Report
from exectrail.compliance.render import console, json
from exectrail.compliance.render.write import write_reports
from exectrail.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
EXIT_CODES = """\b
Exit codes:
  0  every node is fit
  1  warnings (with --strict)
  2  a requirement gates
  3  a node or a gating requirement could not be checked
  4  the request itself is wrong, or no host matched
"""
ANSIBLE = """

\b
Arguments after -- go to ansible-playbook:
  -- --ask-become-pass
  -- --forks 100 -e exec_agent_record=all
"""

inventory_option = click.option(
    "-i",
    "--inventory",
    multiple=True,
    help="Ansible inventory; may be given again. Without it, that of ansible.cfg.",
)
limit_option = click.option("-l", "--limit", help="Only these hosts and groups.")
waivers_option = click.option("--waivers", type=FILE, help="File of accepted failures.")
strict_option = click.option("--strict", is_flag=True, help="Let warnings fail the run.")
ansible_arguments = click.argument("ansible_args", nargs=-1, type=click.UNPROCESSED)


def report_dir_option(
    default: Path, text: str = "Folder for report.json, report.html, junit.xml and the evidence."
) -> Callable[[_Command], _Command]:
    """Return the option for the report folder."""
    return click.option(
        "--report-dir",
        type=FILE,
        default=default,
        show_default=True,
        help=text,
    )


def judge(  # noqa: PLR0913  the request has that many parts
    name: str,
    inventory: Sequence[str],
    limit: str | None,
    ansible_args: Sequence[str],
    *,
    report_dir: Path,
    variables: Mapping[str, Any],
) -> int:
    """Run the playbook `name`, whose role has the same name, and give the run's exit code.

    `variables` are those of the role, without its name before them; what was not given is left to
    the inventory.
    """
    arguments = [*playbook.selecting(inventory, limit), *ansible_args]
    run_id = uuid.uuid4().hex
    every = {"report_dir": str(report_dir.absolute()), "run_id": run_id, **given(variables)}
    interrupted = playbook.run(
        name,
        {f"{name}_{key}": value for key, value in every.items()},
        arguments,
    )
    return _outcome(report_dir, run_id, interrupted=interrupted)


def given(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that have a value, with paths as text."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in variables.items()
        if value not in (None, False)
    }


def _outcome(report_dir: Path, run_id: str, *, interrupted: bool) -> int:
    """Give the exit code of the run; close it here if the playbook could not."""
    try:
        opened = run.load(report_dir)
    except UsageError:
        return ExitCode.USAGE
    if opened.run_id != run_id:
        return ExitCode.USAGE
    path = report_dir / "report.json"
    if path.exists():
        report = json.load(path)
        if report.run_id == run_id:
            return report.exit_code
    return deliver(run.finish(report_dir, interrupted=interrupted), report_dir)


def deliver(report: Report, directory: Path) -> int:
    """Show the report before writing it: a full disk must not hide what was learnt."""
    click.echo(console.render(report, colour=sys.stdout.isatty()), nl=False)
    files = write_reports(report, directory)
    click.echo(f"Reports: {' '.join(map(str, files.values()))}", err=True)
    return report.exit_code
