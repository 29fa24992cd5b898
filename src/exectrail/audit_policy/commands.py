"""The commands ``exectrail audit-policy ...``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TextIO

import click

from exectrail import options
from exectrail.audit_policy import profiles
from exectrail.audit_policy.explain import Explanation, as_authenticated
from exectrail.audit_policy.lint import LintedPolicy, load
from exectrail.audit_policy.lint.findings import Severity
from exectrail.audit_policy.policy import Request
from exectrail.compliance.model import ExitCode
from exectrail.errors import UsageError
from exectrail.printable import printable

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("audit-policy")
def audit_policy() -> None:
    """Make, check and explain the API server's audit policy."""


@audit_policy.command()
@click.option(
    "--profile",
    required=True,
    metavar="|".join(profiles.profile_names()),
    help="The policy to render.",
)
@click.option(
    "--kubernetes-version",
    required=True,
    metavar="VERSION",
    help="Version of the API server that will read it, like 1.30.",
)
@click.option("--rules-first", type=options.FILE, help="File of rules to be asked first.")
@options.output
def render(profile: str, kubernetes_version: str, rules_first: Path | None, output: TextIO) -> int:
    """Print the policy file of a profile."""
    own = profiles.load_rules(rules_first) if rules_first else ()
    output.write(profiles.render(profile, kubernetes_version, own))
    return ExitCode.FIT


@audit_policy.command(
    epilog="""\b
Exit codes:
  0  no errors
  1  warnings (with --strict)
  2  errors: Kubernetes refuses the file, or reads something else than what is written
  4  the file can't be read, or is no YAML
"""
)
@click.argument("path", metavar="FILE", type=options.FILE)
@click.option(
    "--kubernetes-version",
    metavar="VERSION",
    help="Judge for this release; without it, for any release.",
)
@click.option("--strict", is_flag=True, help="Let warnings fail the run.")
@_json_option
def lint(
    path: Path,
    kubernetes_version: str | None,
    strict: bool,  # noqa: FBT001  click passes flags so
    as_json: bool,  # noqa: FBT001  click passes flags so
) -> int:
    """Check a policy file."""
    version = profiles.kubernetes_version(kubernetes_version) if kubernetes_version else None
    linted = LintedPolicy(path, version)
    counts = Counter(finding.severity for finding in linted.findings)
    if as_json:
        click.echo(json.dumps(_report(path, linted, counts), indent=2))
    else:
        for finding in linted.findings:
            about = f"rule {finding.rule}: " if finding.rule else ""
            click.echo(
                f"{path}:{finding.line}: {finding.severity}: {about}{printable(finding.message)}"
                f" [{finding.check}]"
            )
        words = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "notes"}
        summary = ", ".join(f"{word}: {counts[severity]}" for severity, word in words.items())
        click.echo(f"{path}: rules: {len(linted.policy.rules)}; {summary}")
    if counts[Severity.ERROR]:
        return ExitCode.UNFIT
    return ExitCode.WARNINGS if strict and counts[Severity.WARNING] else ExitCode.FIT


def _report(path: Path, linted: LintedPolicy, counts: Counter[Severity]) -> dict[str, object]:
    return {
        "file": str(path),
        "rules": len(linted.policy.rules),
        "counts": {str(severity): counts[severity] for severity in Severity},
        "findings": [
            {
                "check": finding.check,
                "severity": str(finding.severity),
                "line": finding.line,
                "rule": finding.rule,
                "message": finding.message,
            }
            for finding in linted.findings
        ],
    }


@audit_policy.command(short_help="Say how a request is recorded.")
@click.argument("path", metavar="FILE", type=options.FILE)
@click.option("--user", required=True, help="Name of the user, like system:serviceaccount:ns:name.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Group of the user; may be given again. Those that the API server adds to every user of "
    "its kind, such as system:authenticated, are added here too.",
)
@click.option("--verb", required=True, help="Like get, create, watch; for URLs the HTTP method.")
@click.option("--api-group", default="", help="API group of the resource; none for the core.")
@click.option("--resource", metavar="RESOURCE[/SUBRESOURCE]", help="Like pods or pods/exec.")
@click.option("--namespace", default="", help="Namespace of the object.")
@click.option("--name", default="", help="Name of the object.")
@click.option("--url", metavar="PATH", help="Instead of a resource: a path like /healthz.")
@_json_option
def explain(  # noqa: PLR0913, PLR0917  one parameter per option
    path: Path,
    user: str,
    groups: tuple[str, ...],
    verb: str,
    api_group: str,
    resource: str | None,
    namespace: str,
    name: str,
    url: str | None,
    as_json: bool,  # noqa: FBT001  click passes flags so
) -> int:
    """Say at which level a request is recorded, which rule decides, and in which stages."""
    kind, slash, subresource = (resource or "").partition("/")
    if bool(resource) == bool(url):
        raise UsageError("say what is asked for: either --resource or --url")
    if url is not None and (api_group or namespace or name):
        raise UsageError("--api-group, --namespace and --name belong to --resource, not to --url")
    if resource and (not kind or bool(slash) != bool(subresource) or "/" in subresource):
        raise UsageError(f"--resource {resource}: write RESOURCE or RESOURCE/SUBRESOURCE")
    if url and not url.startswith("/"):
        raise UsageError(f"--url {url}: a path begins with a slash")
    request = Request(user, verb, groups, api_group, kind, subresource, namespace, name, url or "")
    explanation = Explanation(load(path), as_authenticated(request))
    if as_json:
        click.echo(json.dumps(explanation.data(), indent=2))
    else:
        click.echo(explanation.text(), nl=False)
    return ExitCode.FIT
