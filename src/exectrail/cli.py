"""The command ``exectrail``."""

from __future__ import annotations

import sys

import click

import exectrail
from exectrail.audit_policy.commands import audit_policy
from exectrail.audit_policy.manifest.commands import manifest
from exectrail.compliance.commands import evaluate, preflight, report, verify
from exectrail.compliance.model import ExitCode
from exectrail.errors import UsageError
from exectrail.remediation.commands import remediate
from exectrail.site.commands import install, site, uninstall, upgrade
from exectrail.status.commands import status


class _InOrder(click.Group):
    """Shows its commands in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(exectrail.__version__)
def cli() -> None:
    """Answer who opened a shell in which container, and what they did there."""


for command in (
    *(site, preflight, install, verify, status, remediate, upgrade, uninstall),
    *(evaluate, report, audit_policy, manifest),
):
    cli.add_command(command)


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
