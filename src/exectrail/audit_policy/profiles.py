"""Audit policies that Exectrail comes with, made into the file for one release of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from exectrail import versions, yamlfile
from exectrail.audit_policy.lint.findings import SEVERITIES, Severity
from exectrail.audit_policy.lint.schema import ONLY_V1_FROM, SchemaReader
from exectrail.audit_policy.lint.source import Source
from exectrail.errors import UsageError
from exectrail.yamlfile import suggest

_FOLDER = resources.files("exectrail").joinpath("policies", "audit")
_VERSION_LINE = "apiVersion: audit.k8s.io/v1\n"
_RULES_LINE = "rules:\n"
_OWN = "  # Own rules; the first rule that matches decides.\n"


def profile_names() -> tuple[str, ...]:
    """Name the profiles."""
    return tuple(sorted(entry.name.removesuffix(".yml") for entry in _FOLDER.iterdir()))


def kubernetes_version(text: str) -> versions.Version:
    """Read a version such as ``1.30``, ``v1.30.2`` or ``1.30.2+k3s1``; raise UsageError."""
    version = versions.parse(text)
    if version is None or version[0] != 1:
        raise UsageError(f"{text!r} is no version of Kubernetes; write it like 1.30 or v1.30.2")
    return version


def render(profile: str, kubernetes: str, rules_first: Sequence[Mapping[str, Any]] = ()) -> str:
    """Give the text of a policy file.

    `kubernetes` is the version of the API server that will read it. `rules_first` are rules as in
    a policy file, asked before those of the profile. The text depends on nothing else, so that its
    checksum only changes when the policy does. Raise UsageError for an unknown profile, a version
    that is none, or rules that have errors.
    """
    if profile not in profile_names():
        raise UsageError(f"unknown profile {profile!r}{suggest(profile, profile_names())}")
    version = kubernetes_version(kubernetes)
    text = _FOLDER.joinpath(f"{profile}.yml").read_text(encoding="utf-8")
    if version < ONLY_V1_FROM:
        text = text.replace(_VERSION_LINE, "apiVersion: audit.k8s.io/v1beta1\n", 1)
    if not rules_first:
        return text
    reader = SchemaReader()
    reader.rules(list(rules_first), ("rules_first",))
    for problem in reader.problems:
        if SEVERITIES[problem.check] is Severity.ERROR:
            place = ".".join(str(step) for step in problem.where)
            raise UsageError(f"{place}: {problem.message} [{problem.check}]")
    dumped = yaml.safe_dump(
        [dict(rule) for rule in rules_first], sort_keys=False, allow_unicode=True, width=1000
    )
    own = "".join(f"  {line}\n" for line in dumped.splitlines())
    head, rules, rest = text.partition(_RULES_LINE)
    return f"{head}{rules}{_OWN}{own}{rest}"


def load_rules(path: Path) -> list[dict[str, Any]]:
    """Read a file that holds a list of rules; raise UsageError with the line of its first error."""
    document = yamlfile.load(path)
    source = Source(document)
    reader = SchemaReader()
    reader.rules(document.data, ())
    problems = list(source.ambiguities())
    problems += [
        (source.line(problem.where), f"{problem.message} [{problem.check}]")
        for problem in reader.problems
        if SEVERITIES[problem.check] is Severity.ERROR
    ]
    for line, message in sorted(problems):
        raise UsageError(f"{path}:{line}: {message}")
    rules: list[dict[str, Any]] = document.data
    return rules
