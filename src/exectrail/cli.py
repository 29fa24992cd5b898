"""The command ``exectrail``."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from pathlib import Path
from typing import TextIO

import click

import exectrail
from exectrail import playbook
from exectrail.audit_policy.commands import audit_policy
from exectrail.audit_policy.manifest_commands import manifest
from exectrail.compliance import diff, evidence, run
from exectrail.compliance.evaluate import evaluate as evaluate_node
from exectrail.compliance.model import ExitCode, Report
from exectrail.compliance.render import console, html, json, junit
from exectrail.compliance.render.write import write_reports
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.verdict import build_report
from exectrail.errors import UsageError

_FILE = click.Path(path_type=Path)
_EXIT_CODES = """\b
Exit codes:
  0  every node is fit
  1  warnings (with --strict)
  2  a requirement gates
  3  a node or a gating requirement could not be checked
  4  the request itself is wrong, or no host matched
"""

profile_option = click.option(
    "--profile",
    default="self_managed",
    show_default=True,
    metavar="ack|self_managed|FILE",
    help="The requirements to check.",
)
waivers_option = click.option("--waivers", type=_FILE, help="File of accepted failures.")
strict_option = click.option("--strict", is_flag=True, help="Let warnings fail the run.")
report_dir_option = click.option(
    "--report-dir",
    type=_FILE,
    default=run.DEFAULT_DIRECTORY,
    show_default=True,
    help="Folder for report.json, report.html, junit.xml and the evidence.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(exectrail.__version__)
def cli() -> None:
    """Answer who opened a shell in which container, and what they did there."""


@cli.command(
    epilog=_EXIT_CODES,
)
@click.option("-i", "--inventory", multiple=True, help="Ansible inventory; may be given again.")
@click.option("-l", "--limit", help="Only these hosts and groups.")
@profile_option
@waivers_option
@strict_option
@report_dir_option
@click.argument("ansible_args", nargs=-1, type=click.UNPROCESSED)
def preflight(  # noqa: PLR0913, PLR0917  one parameter per option
    inventory: tuple[str, ...],
    limit: str | None,
    profile: str,
    waivers: Path | None,
    strict: bool,  # noqa: FBT001
    report_dir: Path,
    ansible_args: tuple[str, ...],
) -> int:
    """Check whether the nodes of an inventory are fit, over ssh, changing nothing.

    ANSIBLE_ARGS after -- go to ansible-playbook (-- --ask-become-pass, -- --forks 100).
    """
    playbook.check_inventories(inventory)
    run_id = uuid.uuid4().hex
    arguments = [argument for source in inventory for argument in ("-i", source)]
    arguments += ["--limit", limit] if limit else []
    interrupted = playbook.run(
        "preflight",
        {
            "preflight_profile": profile,
            "preflight_waivers": str(waivers or ""),
            "preflight_strict": strict,
            "preflight_report_dir": str(report_dir.absolute()),
            "preflight_run_id": run_id,
        },
        [*arguments, *ansible_args],
    )
    return _outcome(report_dir, run_id, interrupted=interrupted)


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
    return _deliver(run.finish(report_dir, interrupted=interrupted), report_dir)


@cli.command(epilog=_EXIT_CODES)
@profile_option
@waivers_option
@strict_option
@report_dir_option
@click.argument("files", metavar="EVIDENCE.json...", nargs=-1, required=True, type=_FILE)
def evaluate(
    profile: str,
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
    requirements = load_profile(profile)
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


cli.add_command(audit_policy)
cli.add_command(manifest)


@cli.group()
def report() -> None:
    """Render and compare reports."""


@report.command()
@click.argument("path", metavar="REPORT.json", type=_FILE)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["console", "junit", "html"]),
    default="console",
    show_default=True,
)
@click.option("-o", "--output", type=click.File("w", encoding="utf-8", atomic=True), default="-")
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
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
def diff_(old: Path, new: Path) -> int:
    """Say what changed between two reports. Exit code: that of NEW."""
    later = json.load(new)
    click.echo(diff.render_diff(diff.compare(json.load(old), later)), nl=False)
    return later.exit_code


def _deliver(report: Report, directory: Path) -> int:
    """Show the report before writing it: a full disk must not hide what was learnt."""
    click.echo(console.render(report, colour=sys.stdout.isatty()), nl=False)
    files = write_reports(report, directory)
    click.echo(f"Reports: {' '.join(map(str, files.values()))}", err=True)
    return report.exit_code


def main() -> None:
    """Run the command line; every message is one clear error and every code is of the contract."""
    try:
        code = cli.main(standalone_mode=False)
    except UsageError as error:
        click.echo(f"exectrail: {error}", err=True)
        code = ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        code = ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("exectrail: interrupted", err=True)
        code = ExitCode.UNKNOWN
    sys.exit(code)
