"""What can be wrong with a single rule that Kubernetes would load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from exectrail.audit_policy.lint.api import group_problem, resource_problem
from exectrail.audit_policy.policy import Rule
from exectrail.yamlfile import Location, suggest

_CONDITIONS = {
    "users": "every user",
    "userGroups": "every user",
    "verbs": "every verb",
    "resources": "every resource, and every other path too",
    "namespaces": "every namespace, and what is in none",
    "nonResourceURLs": "every path, and every resource too",
}
_ENTRY_CONDITIONS = {"resources": "every resource of the group", "resourceNames": "every name"}
_NO_WILDCARDS = ("users", "userGroups", "verbs", "namespaces")
_RESOURCE_VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy",
)  # fmt: skip
"""Of requests for resources; `proxy` only in releases that serve the old /api/v1/proxy paths."""

_URL_VERBS = ("get", "head", "post", "put", "patch", "delete", "options", "connect", "trace")
"""Of requests for other paths: the HTTP method."""

_PERMISSION_VERBS = ("approve", "attest", "bind", "escalate", "impersonate", "sign", "use")
"""Verbs of RBAC rules that no request has; they are asked about beside the request's own."""


class Remark(NamedTuple):
    """A finding of this module; `where` is inside the rule."""

    check: str
    where: Location
    message: str


def check_conditions(rule: Rule, raw: Any) -> Iterator[Remark]:
    """Give what is odd about a rule, read and as it stands in the file."""
    if isinstance(raw, dict):
        yield from _empty_or_wild(raw)
    yield from _verbs(rule)
    yield from _resources(rule)
    if rule.urls and rule.level in {"Request", "RequestResponse"}:
        message = f"only resources have bodies in the log: for URLs {rule.level} is Metadata"
        yield Remark("url-bodies", ("level",), message)


def _empty_or_wild(raw: dict[str, Any]) -> Iterator[Remark]:
    for key, everything in _CONDITIONS.items():
        if key in raw and raw[key] in (None, []):
            yield Remark("empty-condition", (key,), f"an empty {key} means {everything}")
        for position, value in enumerate(_items(raw.get(key))):
            if value is None:
                nothing = "it means the core group" if key == "resources" else "it matches nothing"
                yield Remark(
                    "empty-condition", (key, position), f"an empty item in {key}: {nothing}"
                )
            elif key in _NO_WILDCARDS and isinstance(value, str) and "*" in value:
                yield Remark("literal-wildcard", (key, position), _wildcard(key, value))
            elif key == "resources" and isinstance(value, dict):
                yield from _entry(value, (key, position))


def _entry(entry: dict[str, Any], where: Location) -> Iterator[Remark]:
    if entry.get("group") is None:
        message = 'without a group it is the core group; write group: ""'
        yield Remark("empty-condition", (*where, "group"), message)
    for key, everything in _ENTRY_CONDITIONS.items():
        if key in entry and entry[key] in (None, []):
            message = f"an empty {key} means {everything}"
            yield Remark("empty-condition", (*where, key), message)
    for position, name in enumerate(_items(entry.get("resourceNames"))):
        if isinstance(name, str) and "*" in name:
            message = _wildcard("resourceNames", name)
            yield Remark("literal-wildcard", (*where, "resourceNames", position), message)


def _wildcard(key: str, value: str) -> str:
    message = f"{key} has no wildcards, so {value!r} matches nothing"
    return f"{message}; to mean all, leave {key} out" if value == "*" else message


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _verbs(rule: Rule) -> Iterator[Remark]:
    known: tuple[str, ...] = (*_RESOURCE_VERBS, *_URL_VERBS)
    what = "a request"
    if rule.urls:
        known, what = _URL_VERBS, "a request for a URL"
    elif rule.resources or rule.namespaces:
        known, what = _RESOURCE_VERBS, "a request for a resource"
    for position, verb in enumerate(rule.verbs):
        if verb in known or "*" in verb or not verb:
            continue
        if verb in _PERMISSION_VERBS:
            why = "it is a verb of RBAC rules, not of requests"
        else:
            hint = suggest(verb.lower(), known)
            hint = hint if "did you mean" in hint else f"; there are: {', '.join(known)}"
            why = f"{what} has no such verb{hint}"
        yield Remark("verb", ("verbs", position), f"{verb!r} matches nothing: {why}")


def _resources(rule: Rule) -> Iterator[Remark]:
    for position, item in enumerate(rule.resources):
        where = ("resources", position)
        odd = group_problem(item.group)
        if odd:
            yield Remark("unknown-group", (*where, "group"), f"{item.group!r}: {odd}")
        for number, pattern in enumerate(item.resources):
            problem = resource_problem(item.group, pattern)
            if problem:
                message = f"{pattern!r} matches nothing: {problem}"
                yield Remark("resource", (*where, "resources", number), message)
