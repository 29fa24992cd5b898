"""The command ``exectrail verify``."""

from __future__ import annotations

from pathlib import Path

import click

from exectrail.compliance import installation, live


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
@live.report_dir_option(installation.DEFAULT_DIRECTORY)
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
