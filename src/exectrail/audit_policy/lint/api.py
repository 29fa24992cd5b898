"""What the API groups that Kubernetes comes with serve."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml

_CLOSE = 0.8


@cache
def known_groups() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Map group names to their resources and those to their subresources."""
    text = Path(__file__).with_name("api_resources.yml").read_text(encoding="utf-8")
    return {
        group: {resource: tuple(subresources) for resource, subresources in resources.items()}
        for group, resources in yaml.safe_load(text).items()
    }


def group_problem(group: str) -> str | None:
    """Say what is odd about the name of a group that Kubernetes does not come with."""
    groups = known_groups()
    if group in groups:
        return None
    if group in {"core", "v1"}:
        return 'the core group has no name; write group: ""'
    longer = [name for name in groups if name.startswith(f"{group}.")]
    near = longer or difflib.get_close_matches(group, groups, n=1, cutoff=_CLOSE)
    if near:
        return f"did you mean {near[0]!r}?"
    if "." not in group:
        return "only Kubernetes' own groups have no dot in their name, and this is none of them"
    return None


def resource_problem(group: str, pattern: str) -> str | None:
    """Say why `pattern` matches nothing in a group that Kubernetes comes with."""
    resource, slash, subresource = pattern.partition("/")
    if not resource or (slash and not subresource) or "/" in subresource or pattern == "*/*":
        return "write RESOURCE, RESOURCE/SUBRESOURCE, RESOURCE/*, */SUBRESOURCE or *"
    if any("*" in part and part != "*" for part in (resource, subresource)):
        return "a wildcard stands for a whole name: RESOURCE/*, */SUBRESOURCE or *"
    resources = known_groups().get(group)
    if resources is None or pattern == "*":
        return None
    if resource != "*" and resource not in resources:
        return _other_resource(group, resource, slash)
    possible = (
        sorted({name for names in resources.values() for name in names})
        if resource == "*"
        else resources[resource]
    )
    if slash and subresource not in (*possible, "*"):
        return f"no such subresource; there are: {', '.join(possible) or 'none'}"
    return None


def _other_resource(group: str, resource: str, slash: str) -> str:
    groups = known_groups()
    label = repr(group) if group else "the core group"
    owners = [name for name in groups if resource in groups[name]]
    if owners:
        owner = repr(owners[0]) if owners[0] else 'the core group ""'
        return f"not in {label} but in {owner}"
    parents = [name for name, subresources in groups[group].items() if resource in subresources]
    if parents and not slash:
        return f"a subresource; write {parents[0]}/{resource}"
    lower = resource.lower()
    near = [name for name in groups[group] if name in {lower, f"{lower}s", f"{lower}es"}]
    near = near or difflib.get_close_matches(lower, groups[group], n=1, cutoff=_CLOSE)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{label} has no such resource{hint}"
