"""The commands that judge nodes, and those about their reports."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import TextIO

import click

from exectrail.compliance import evidence, live, run
from exectrail.compliance.evaluate import evaluate as evaluate_node
from exectrail.compliance.model import ExitCode
from exectrail.compliance.render import console, diff, html, json, junit
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.verdict import build_report
from exectrail.errors import UsageError

profile_option = click.option(
    "--profile",
    metavar="ack|self_managed|FILE",
    help="The requirements to check.  [default: self_managed]",
)


@click.command(epilog=live.EXIT_CODES + live.ANSIBLE, short_help="Check whether nodes are fit.")
@live.inventory_option
@live.limit_option
@profile_option
@live.waivers_option
@live.strict_option
@live.report_dir_option(run.DEFAULT_DIRECTORY)
@live.ansible_arguments
def preflight(  # noqa: PLR0913, PLR0917  one parameter per option
    inventory: tuple[str, ...],
    limit: str | None,
    profile: str | None,
    waivers: Path | None,
    strict: bool,  # noqa: FBT001
    report_dir: Path,
    ansible_args: tuple[str, ...],
) -> int:
    """Check whether the nodes of an inventory are fit, over ssh, changing nothing."""
    return live.judge(
        "preflight",
        inventory,
        limit,
        ansible_args,
        report_dir=report_dir,
        variables={"profile": profile, "waivers": waivers, "strict": strict},
    )


@click.command(
    epilog=live.EXIT_CODES + live.ANSIBLE, short_help="Prove that agents and policy work."
)
@live.inventory_option
@live.limit_option
@click.option(
    "--profile",
    metavar="installed|FILE",
    help="The requirements to check.  [default: installed]",
)
@live.waivers_option
@live.strict_option
@live.report_dir_option(run.VERIFY_DIRECTORY)
@click.option(
    "--canary-image", help="Make a pod of this image on every node, enter it, and remove it."
)
@click.option("--masters-group", help="Inventory group of the masters.  [default: masters]")
@live.ansible_arguments
def verify(  # noqa: PLR0913, PLR0917  one parameter per option
    inventory: tuple[str, ...],
    limit: str | None,
    profile: str | None,
    waivers: Path | None,
    strict: bool,  # noqa: FBT001
    report_dir: Path,
    canary_image: str | None,
    masters_group: str | None,
    ansible_args: tuple[str, ...],
) -> int:
    """Prove that the agent and the audit policy work on the nodes of an inventory.

    By their effects: the agent tests itself once more, and each API server gets five requests.
    """
    return live.judge(
        "verify",
        inventory,
        limit,
        ansible_args,
        report_dir=report_dir,
        variables={
            "profile": profile,
            "waivers": waivers,
            "strict": strict,
            "canary_image": canary_image,
            "masters_group": masters_group,
        },
    )


@click.command(epilog=live.EXIT_CODES, short_help="Judge saved evidence.")
@profile_option
@live.waivers_option
@live.strict_option
@live.report_dir_option(run.DEFAULT_DIRECTORY)
@click.argument("files", metavar="EVIDENCE.json...", nargs=-1, required=True, type=live.FILE)
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
    return live.deliver(report, report_dir)


@click.group()
def report() -> None:
    """Render and compare reports."""


@report.command()
@click.argument("path", metavar="REPORT.json", type=live.FILE)
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
@click.argument("old", type=live.FILE)
@click.argument("new", type=live.FILE)
def diff_(old: Path, new: Path) -> int:
    """Say what changed between two reports. Exit code: that of NEW."""
    later = json.load(new)
    click.echo(diff.render_diff(diff.compare(json.load(old), later)), nl=False)
    return later.exit_code
