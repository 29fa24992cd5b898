"""The command ``exectrail verify``."""

from __future__ import annotations

from pathlib import Path

import click

from exectrail.compliance import installation, live


@click.command(epilog=live.EXIT_CODES)
@live.inventory_option
@live.limit_option
@click.option(
    "--profile",
    default="installed",
    show_default=True,
    metavar="installed|FILE",
    help="The requirements to check.",
)
@live.waivers_option
@live.strict_option
@live.report_dir_option(installation.DEFAULT_DIRECTORY)
@click.option("--canary-image", default="", help="Enter a pod of this image on every node.")
@click.option(
    "--masters-group", default="masters", show_default=True, help="Inventory group of the masters."
)
@live.ansible_arguments
def verify(  # noqa: PLR0913, PLR0917  one parameter per option
    inventory: tuple[str, ...],
    limit: str | None,
    profile: str,
    waivers: Path | None,
    strict: bool,  # noqa: FBT001
    report_dir: Path,
    canary_image: str,
    masters_group: str,
    ansible_args: tuple[str, ...],
) -> int:
    """Prove that the agent and the audit policy work on the nodes of an inventory.

    By their effects: the agent tests itself once more, and each API server gets five requests.
    ANSIBLE_ARGS after -- go to ansible-playbook (-- --ask-become-pass, -- --forks 100).
    """
    return live.judge(
        "verify",
        inventory,
        limit,
        ansible_args,
        report_dir=report_dir,
        variables={
            "profile": profile,
            "waivers": str(waivers or ""),
            "strict": strict,
            "canary_image": canary_image,
            "masters_group": masters_group,
        },
    )
