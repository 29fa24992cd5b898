"""Options that commands have in common, and what their help says alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

FILE = click.Path(path_type=Path)
ANSIBLE = """

\b
Arguments after -- go to ansible-playbook:
  -- --ask-become-pass
  -- --forks 100 -e VARIABLE=VALUE
"""

inventory = click.option(
    "-i",
    "--inventory",
    multiple=True,
    type=click.Path(),
    help="Ansible inventory; may be given again. Without it, that of ansible.cfg.",
)
limit = click.option("-l", "--limit", help="Only these hosts and groups.")
waivers = click.option("--waivers", type=FILE, help="File of accepted failures.")
masters_group = click.option(
    "--masters-group", help="Inventory group of the masters.  [default: masters]"
)
output = click.option(
    "-o",
    "--output",
    type=click.File("w", encoding="utf-8", atomic=True),
    default="-",
    help="File to write instead of printing.",
)
ansible_arguments = click.argument("ansible_args", nargs=-1, type=click.UNPROCESSED)


def profile(text: str) -> Callable[[_Command], _Command]:
    """Return the option for the requirements; `text` says what they are for."""
    return click.option(
        "--profile", metavar="ack|self_managed|FILE", help=f"{text}  [default: self_managed]"
    )


def report_dir(
    default: Path, text: str = "Folder for report.json, report.html, junit.xml and the evidence."
) -> Callable[[_Command], _Command]:
    """Return the option for the report folder."""
    return click.option("--report-dir", type=FILE, default=default, show_default=True, help=text)


def several(*groups: Sequence[Callable[[_Command], _Command]]) -> Callable[[_Command], _Command]:
    """Give a command the options of all groups, in their order."""

    def add(command: _Command) -> _Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add
