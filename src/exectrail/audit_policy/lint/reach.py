"""Which requests a rule is left with, once the rules before it have taken theirs.

Exact, not by sampling. Where a rule leaves something open (any user, any path), it is enough to ask
about a value that no rule names: whatever takes that one takes all others too. Where a rule lists
values, each is asked about. So a handful of cases stands for all requests. None is the unnamed
value throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exectrail.audit_policy.policy import Rule, resource_matches, url_matches


@dataclass(frozen=True, slots=True)
class Target:
    """Resource requests of one kind, or paths that `url` means."""

    group: str | None = None
    resource: str | None = None
    subresource: str | None = None
    name: str | None = None
    url: str | None = None
    is_path: bool = False


_Dimension = tuple[Sequence[Any], Callable[[Rule, Any], bool]]


def takers(rules: Sequence[Rule], position: int) -> tuple[int, ...] | None:
    """Name the earlier rules that take all that the rule at `position` could match.

    As few of them as possible; None if something is left for it. A rule that names no possible
    resource at all is not judged.
    """
    rule = rules[position]
    cases = _cases(rule, targets(rule), rule.verbs or (None,))
    earlier = tuple(range(position))
    if not cases[0][0] or _is_left(rules, cases, earlier):
        return None
    for single in earlier:
        if not _is_left(rules, cases, (single,)):
            return (single,)
    needed = earlier
    for candidate in earlier:
        fewer = tuple(index for index in needed if index != candidate)
        if not _is_left(rules, cases, fewer):
            needed = fewer
    return needed


def decides(rules: Sequence[Rule], position: int, target: Target, verbs: Sequence[str]) -> bool:
    """Say whether the rule at `position` decides some request for `target` with one of `verbs`."""
    rule = rules[position]
    found = [verb for verb in verbs if not rule.verbs or verb in rule.verbs]
    narrowed = _narrow(rule, target)
    return _is_left(rules, _cases(rule, narrowed, found), tuple(range(position)))


def targets(rule: Rule) -> list[Target]:
    """List the cases that stand for all that `rule` says about resources and paths."""
    if rule.urls:
        return [Target(url=url, is_path=True) for url in rule.urls]
    if rule.resources:
        return [
            Target(item.group, resource, subresource, name)
            for item in rule.resources
            for pattern in item.resources or ("*",)
            for resource, subresource in _meaning(pattern)
            for name in item.names or (None,)
        ]
    return [Target()] if rule.namespaces else [Target(), Target(is_path=True)]


def _meaning(pattern: str) -> list[tuple[str | None, str | None]]:
    """Turn a pattern into its case; none for one that no real request can match."""
    if pattern == "*":
        return [(None, None)]
    resource, slash, subresource = pattern.partition("/")
    if not resource or (slash and not subresource) or "/" in subresource:
        return []
    if resource == "*":
        return [] if subresource == "*" else [(None, subresource)]
    return [(resource, None if subresource == "*" else subresource)]


def _narrow(rule: Rule, target: Target) -> list[Target]:
    """Keep of `target` what `rule` applies to: all of it, or only some names."""
    if not rule.resources:
        return [] if rule.urls else [target]
    return [
        Target(target.group, target.resource, target.subresource, name)
        for item in rule.resources
        for name in item.names or (None,)
        if _means(item.group, item.resources, target)
    ]


def _cases(
    rule: Rule, places: Sequence[Target], verbs: Sequence[str | None]
) -> tuple[_Dimension, ...]:
    return (
        (places, _takes_target),
        (rule.users or (None,), lambda other, user: not other.users or user in other.users),
        (
            rule.user_groups or (None,),
            lambda other, group: not other.user_groups or group in other.user_groups,
        ),
        (verbs, lambda other, verb: not other.verbs or verb in other.verbs),
        (
            rule.namespaces or (None,),
            lambda other, namespace: not other.namespaces or namespace in other.namespaces,
        ),
    )


def _takes_target(rule: Rule, target: Target) -> bool:
    if target.is_path:
        if rule.resources or rule.namespaces:
            return False
        return not rule.urls or any(_includes(url, target.url) for url in rule.urls)
    if rule.urls:
        return False
    return not rule.resources or any(
        (not item.names or target.name in item.names) and _means(item.group, item.resources, target)
        for item in rule.resources
    )


def _means(group: str, patterns: tuple[str, ...], target: Target) -> bool:
    return group == target.group and (
        not patterns
        or any(
            resource_matches(pattern, target.resource, target.subresource) for pattern in patterns
        )
    )


def _includes(wider: str, narrower: str | None) -> bool:
    """Say whether every path that `narrower` means is one that `wider` means."""
    if wider == "*":
        return True
    if narrower is None or narrower == "*":
        return False
    if narrower.endswith("*"):
        return wider.endswith("*") and narrower[:-1].startswith(wider[:-1])
    return url_matches(wider, narrower)


def _is_left(
    rules: Sequence[Rule], cases: tuple[_Dimension, ...], earlier: tuple[int, ...]
) -> bool:
    """Say whether some combination of `cases` is taken by none of the `earlier` rules."""
    known: dict[tuple[int, tuple[int, ...]], bool] = {}

    def left(depth: int, remaining: tuple[int, ...]) -> bool:
        if depth == len(cases):
            return not remaining
        if (depth, remaining) not in known:
            values, takes = cases[depth]
            known[depth, remaining] = any(
                left(depth + 1, tuple(index for index in remaining if takes(rules[index], value)))
                for value in values
            )
        return known[depth, remaining]

    return left(0, earlier)
