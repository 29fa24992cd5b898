"""The linter: everything about a policy file that its author should hear, with line numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exectrail import yamlfile
from exectrail.audit_policy.lint.conditions import check_conditions
from exectrail.audit_policy.lint.coverage import observe
from exectrail.audit_policy.lint.findings import REFUSED, Finding, Severity
from exectrail.audit_policy.lint.schema import ONLY_V1_FROM, SchemaReader
from exectrail.audit_policy.lint.source import Source
from exectrail.errors import UsageError
from exectrail.versions import Version
from exectrail.yamlfile import Location

_MANAGED_FIELDS_FROM: Version = (1, 23, 0)


class LintedPolicy:
    """A policy file and what there is to say about it."""

    def __init__(self, path: Path, kubernetes: Version | None = None) -> None:
        """Read `path` for that release of Kubernetes, or for any; UsageError if it is no YAML."""
        document = yamlfile.load(path)
        self.source = Source(document)
        self.findings: list[Finding] = []
        reader = SchemaReader()
        self.policy = reader.policy(document.data, kubernetes)
        self._written(reader)
        self._each_rule(document.data)
        if not self.has_errors:
            self._older_releases(document.data, kubernetes)
            for seen in observe(self.policy):
                where: Location = ("rules",) if seen.rule is None else ("rules", seen.rule)
                self._add(seen.check, where, seen.message)
        self.findings.sort(key=lambda finding: (finding.line, finding.check, finding.message))

    @property
    def has_errors(self) -> bool:
        """Whether the policy must not be used as it is."""
        return any(finding.severity is Severity.ERROR for finding in self.findings)

    @property
    def is_refused(self) -> bool:
        """Whether Kubernetes would refuse to load it."""
        return any(finding.check in REFUSED for finding in self.findings)

    def rule_line(self, position: int) -> int:
        """Give the line in which the rule at `position`, from 0, begins."""
        return self.source.line(("rules", position))

    def _written(self, reader: SchemaReader) -> None:
        ambiguous = dict(self.source.ambiguities())
        for line, message in ambiguous.items():
            self.findings.append(Finding("ambiguous-text", line, message))
        no_json = self.source.json_error()
        if no_json:
            self.findings.append(Finding("json", *no_json))
        for problem in reader.problems:
            # What a value of unclear type is to Kubernetes is unclear too.
            if problem.check not in {"type", "level", "stage"} or (
                self.source.line(problem.where) not in ambiguous
            ):
                self._add(problem.check, problem.where, problem.message)

    def _each_rule(self, data: Any) -> None:
        for position, rule in enumerate(self.policy.rules):
            for remark in check_conditions(rule, data["rules"][position]):
                self._add(remark.check, ("rules", position, *remark.where), remark.message)

    def _older_releases(self, data: Any, kubernetes: Version | None) -> None:
        version = data.get("apiVersion", "")
        if kubernetes is None and version != "audit.k8s.io/v1":
            last = ".".join(map(str, ONLY_V1_FROM[:2]))
            self._add("old-api-version", ("apiVersion",), f"Kubernetes {last} refuses {version}")
        if kubernetes is not None and kubernetes < _MANAGED_FIELDS_FROM:
            places: list[Location] = [("omitManagedFields",)]
            places += [("rules", n, "omitManagedFields") for n in range(len(self.policy.rules))]
            for where in places:
                if _has(data, where):
                    self._add(
                        "managed-fields-ignored",
                        where,
                        "Kubernetes reads omitManagedFields from 1.23 on",
                    )

    def _add(self, check: str, where: Location, message: str) -> None:
        rule = where[1] if where[:1] == ("rules",) and len(where) > 1 else None
        number = rule + 1 if isinstance(rule, int) else None
        self.findings.append(Finding(check, self.source.line(where), message, number))


def load(path: Path, kubernetes: Version | None = None) -> LintedPolicy:
    """Read a policy that has no errors; raise UsageError with the first of them if it has some."""
    linted = LintedPolicy(path, kubernetes)
    for finding in linted.findings:
        if finding.severity is Severity.ERROR:
            raise UsageError(f"{path}:{finding.line}: {finding.message} [{finding.check}]")
    return linted


def _has(data: Any, where: Location) -> bool:
    for step in where[:-1]:
        data = data[step]
    return isinstance(data, dict) and where[-1] in data
