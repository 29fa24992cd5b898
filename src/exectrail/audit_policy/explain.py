"""Which rule of a policy decides about a request, in words and as data."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from exectrail.audit_policy.lint import LintedPolicy
from exectrail.audit_policy.policy import Decision, Request, decide

_SERVICE_ACCOUNT = "system:serviceaccount:"


def as_authenticated(request: Request) -> Request:
    """Add what the API server adds to every request by itself.

    Those are the groups of whoever has logged in and of service accounts; and a namespace counts as
    being in itself.
    """
    added = []
    if request.user.startswith(_SERVICE_ACCOUNT):
        namespace = request.user.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
        added += ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
    anonymous = request.user == "system:anonymous"
    added.append(f"system:{'un' * anonymous}authenticated")
    groups = tuple(dict.fromkeys((*request.groups, *added)))
    namespace = request.namespace
    if (request.api_group, request.resource) == ("", "namespaces") and not namespace:
        namespace = request.name
    return replace(request, groups=groups, namespace=namespace)


class Explanation:
    """What a policy decides about a request, and where."""

    def __init__(self, linted: LintedPolicy, request: Request) -> None:
        self.request = request
        self.decision: Decision = decide(linted.policy, request)
        position = self.decision.rule
        self._path = linted.source.path
        self._line = None if position is None else linted.rule_line(position)

    def data(self) -> dict[str, Any]:
        """Give it as plain data; `rule` counts from 1 and is null if no rule matched."""
        position = self.decision.rule
        return {
            "level": self.decision.level,
            "rule": None if position is None else position + 1,
            "line": self._line,
            "stages": list(self.decision.stages),
            "omit_managed_fields": self.decision.omit_managed_fields,
            "request": asdict(self.request),
        }

    def text(self) -> str:
        """Give it for people, in lines."""
        position = self.decision.rule
        rule = (
            "none matches, so nothing is recorded"
            if position is None
            else f"{position + 1} ({self._path}:{self._line})"
        )
        return (
            f"level:  {self.decision.level}\n"
            f"rule:   {rule}\n"
            f"stages: {', '.join(self.decision.stages) or 'none'}\n"
            f"groups: {', '.join(self.request.groups)}\n"
        )
