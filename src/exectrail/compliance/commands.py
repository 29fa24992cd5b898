"""The commands that judge nodes, and those about their reports."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from exectrail import options, playbook
from exectrail.compliance import evidence, run
from exectrail.compliance.evaluate import evaluate as evaluate_node
from exectrail.compliance.model import ExitCode, Report
from exectrail.compliance.render import console, diff, html, json, junit
from exectrail.compliance.render.write import write_reports
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.verdict import build_report
from exectrail.errors import UsageError

_EXIT_CODES = """\b
Exit codes:
  0  every node is fit
  1  warnings (with --strict)
  2  a node is unfit: it fails a requirement that gates
  3  a node or a gating requirement could not be checked
  4  the request itself is wrong, or no host matched
"""
_profile = options.profile("The requirements to check.")
_strict = click.option("--strict", is_flag=True, help="Let warnings fail the run.")


@click.command(epilog=_EXIT_CODES + options.ANSIBLE, short_help="Check whether nodes are fit.")
@options.inventory
@options.limit
@_profile
@options.waivers
@_strict
@options.report_dir(run.DEFAULT_DIRECTORY)
@options.ansible_arguments
def preflight(**given: Any) -> int:
    """Check whether the nodes of an inventory are fit, over ssh, changing nothing."""
    return _judge("preflight", **given)


@click.command(
    epilog=_EXIT_CODES + options.ANSIBLE, short_help="Prove that agents and policy work."
)
@options.inventory
@options.limit
@click.option(
    "--profile",
    metavar="installed|FILE",
    help="The requirements to check.  [default: installed]",
)
@options.waivers
@_strict
@options.report_dir(run.VERIFY_DIRECTORY)
@click.option(
    "--canary-image", help="Make a pod of this image on every node, enter it, and remove it."
)
@options.masters_group
@options.ansible_arguments
def verify(**given: Any) -> int:
    """Prove that the agent and the audit policy work on the nodes of an inventory.

    By their effects: the agent tests itself once more, and each API server gets five requests.
    """
    return _judge("verify", **given)


def _judge(
    name: str,
    *,
    inventory: Sequence[str],
    limit: str | None,
    report_dir: Path,
    ansible_args: Sequence[str],
    **given: Any,
) -> int:
    """Run the playbook `name`, and give the run's exit code; close it here if that could not.

    The other options are called like the variables of its role, which has the same name.
    """
    run_id = uuid.uuid4().hex
    given |= {"report_dir": report_dir, "run_id": run_id}
    variables = {f"{name}_{key}": value for key, value in given.items()}
    arguments = [*playbook.selecting(inventory, limit), *ansible_args]
    interrupted = playbook.run(name, variables, arguments)
    if not run.is_of(report_dir, run_id):
        return ExitCode.USAGE
    path = report_dir / "report.json"
    if path.exists():
        made = json.load(path)
        if made.run_id == run_id:
            return made.exit_code
    return _deliver(run.finish(report_dir, interrupted=interrupted), report_dir)


def _deliver(report: Report, directory: Path) -> int:
    """Show the report before writing it: a full disk must not hide what was learnt."""
    click.echo(console.render(report, colour=sys.stdout.isatty()), nl=False)
    files = write_reports(report, directory)
    click.echo(f"Reports: {' '.join(map(str, files.values()))}", err=True)
    return report.exit_code


@click.command(epilog=_EXIT_CODES, short_help="Judge saved evidence.")
@_profile
@options.waivers
@_strict
@options.report_dir(run.DEFAULT_DIRECTORY)
@click.argument("files", metavar="EVIDENCE.json...", nargs=-1, required=True, type=options.FILE)
def evaluate(
    profile: str | None,
    waivers: Path | None,
    strict: bool,  # noqa: FBT001
    report_dir: Path,
    files: tuple[Path, ...],
) -> int:
    """Judge saved evidence, with the same verdicts as a live run.

    EVIDENCE.json is a file of a report folder's evidence/, or what `python3 node_evidence.py`
    printed on the node.
    """
    started = dt.datetime.now(dt.UTC)
    requirements = load_profile(profile or "self_managed")
    nodes = [evidence.load(path) for path in files]
    groups = {node.host: node.groups for node in nodes}
    if len(groups) < len(nodes):
        raise UsageError("Two of the evidence files are of the same host; give one of them.")
    book = run.waiver_book(str(waivers or ""), requirements, groups)
    report = build_report(
        [evaluate_node(node, requirements, book, today=started.date()) for node in nodes],
        requirements,
        run_id=uuid.uuid4().hex,
        started=started,
        finished=dt.datetime.now(dt.UTC),
        strict=strict,
    )
    return _deliver(report, report_dir)


@click.group()
def report() -> None:
    """Render and compare reports."""


@report.command()
@click.argument("path", metavar="REPORT.json", type=options.FILE)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["console", "junit", "html"]),
    default="console",
    show_default=True,
)
@options.output
def render(path: Path, kind: str, output: TextIO) -> int:
    """Print a saved report in another form."""
    loaded = json.load(path)
    if kind == "console":
        text = console.render(loaded, colour=output.isatty())
    else:
        text = {"junit": junit, "html": html}[kind].render(loaded)
    output.write(text)
    return ExitCode.FIT


@report.command("diff")
@click.argument("old", metavar="OLD.json", type=options.FILE)
@click.argument("new", metavar="NEW.json", type=options.FILE)
def diff_(old: Path, new: Path) -> int:
    """Say what changed between two reports. Exit code: that of NEW.json."""
    later = json.load(new)
    click.echo(diff.render_diff(diff.compare(json.load(old), later)), nl=False)
    return later.exit_code
