"""What the linter can say: one row a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """Kubernetes refuses the file, or reads something else than what is written."""
    WARNING = "warning"
    """The policy works, but hardly as it was meant, or it endangers secrets."""
    INFO = "info"


SEVERITIES = {
    # Kubernetes refuses the file
    "type": Severity.ERROR,
    "json": Severity.ERROR,
    "api-version": Severity.ERROR,
    "kind": Severity.ERROR,
    "no-rules": Severity.ERROR,
    "level": Severity.ERROR,
    "stage": Severity.ERROR,
    "group": Severity.ERROR,
    "url": Severity.ERROR,
    "names-without-resources": Severity.ERROR,
    "mixed-rule": Severity.ERROR,
    # Kubernetes reads something else than what is written
    "unknown-key": Severity.ERROR,
    "ambiguous-text": Severity.ERROR,
    "metadata": Severity.ERROR,
    # Hardly meant so
    "kind-missing": Severity.WARNING,
    "empty-condition": Severity.WARNING,
    "literal-wildcard": Severity.WARNING,
    "verb": Severity.WARNING,
    "unknown-group": Severity.WARNING,
    "resource": Severity.WARNING,
    "unreachable": Severity.WARNING,
    "all-stages-omitted": Severity.WARNING,
    "bodies": Severity.WARNING,
    "exec-unrecorded": Severity.WARNING,
    # Worth knowing
    "old-api-version": Severity.INFO,
    "managed-fields-ignored": Severity.INFO,
    "url-bodies": Severity.INFO,
    "access-unrecorded": Severity.INFO,
}
"""Every check of the linter."""

REFUSED = frozenset(list(SEVERITIES)[: list(SEVERITIES).index("unknown-key")])
"""The checks that find what Kubernetes refuses to load."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the linter has to say."""

    check: str
    line: int
    message: str
    rule: int | None = None
    """Number of the rule it is about, from 1."""

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return SEVERITIES[self.check]
