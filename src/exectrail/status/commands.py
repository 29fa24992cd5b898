"""The command ``exectrail status``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from exectrail import options
from exectrail.compliance import run
from exectrail.compliance.model import Report
from exectrail.compliance.render import json
from exectrail.errors import UsageError
from exectrail.nodes import fleet, script
from exectrail.status import model, render

_SECONDS = 15.0
"""How long a node may take; an answer takes a second."""


@click.command(
    epilog="""\b
Exit codes:
  0  every agent is healthy, and every API server has the audit policy rolled out
  2  one is not
  3  a node could not be asked
  4  the request itself is wrong, or no host matched
""",
    short_help="Show at a glance how every node is.",
)
@options.inventory
@options.limit
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
@options.report_dir(run.DEFAULT_DIRECTORY, "Folder of the last preflight, for the column fit.")
def status(
    inventory: tuple[str, ...],
    limit: str | None,
    as_json: bool,  # noqa: FBT001
    report_dir: Path,
) -> int:
    """Show how the agents and the audit policy of an inventory's nodes are now.

    Every node is asked once, at the same time. Nothing is tried out: that is `exectrail verify`.
    """
    fit = model.fitness(_last(report_dir))
    known = fleet.load(inventory, limit)
    line = script.as_argument(script.program(Path(__file__).parent, {"on_node": {}}))
    lines = dict.fromkeys(known.selected, line)
    with contextlib.closing(fleet.ask(known, lines, seconds=_SECONDS)) as answers:
        nodes = [model.row(answer, fit.get(answer.host, "")) for answer in answers]
    if as_json:
        click.echo(render.as_json(nodes), nl=False)
    else:
        click.echo(render.table(nodes, colour=sys.stdout.isatty()), nl=False)
    return model.exit_code(nodes)


def _last(folder: Path) -> Report | None:
    """Give the last preflight's report; one that can't be read is as good as none."""
    try:
        return json.load(folder / "report.json")
    except UsageError:
        return None
