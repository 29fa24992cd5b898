"""An audit policy as Kubernetes understands it, and what it decides about a request."""

from __future__ import annotations

from dataclasses import dataclass, field

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
"""From nothing to everything."""
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
"""In the order in which a request passes them."""


@dataclass(frozen=True, slots=True)
class GroupResources:
    """Resources of one API group; no `resources` means all of the group."""

    group: str = ""
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; an empty condition is no condition."""

    level: str
    users: tuple[str, ...] = ()
    user_groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    urls: tuple[str, ...] = ()
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in the order in which they are asked; the first that matches decides."""

    rules: tuple[Rule, ...]
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What the API server knows of a request when it asks the policy.

    Either `resource` is set (with `api_group`, `subresource`, `namespace`, `name`) or `path` is.
    """

    user: str
    verb: str
    groups: tuple[str, ...] = ()
    api_group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """How a request is recorded."""

    level: str
    rule: int | None
    """Position of the rule that decided, from 0; None if none matched."""
    omitted: frozenset[str] = field(default_factory=frozenset)
    omit_managed_fields: bool = False

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that leave a line in the log, should the request come to them."""
        if self.level == "None":
            return ()
        return tuple(stage for stage in STAGES if stage not in self.omitted)


def decide(policy: Policy, request: Request) -> Decision:
    """Say how `policy` records `request`."""
    for position, rule in enumerate(policy.rules):
        if matches(rule, request):
            managed = rule.omit_managed_fields
            return Decision(
                rule.level,
                position,
                frozenset(policy.omit_stages) | frozenset(rule.omit_stages),
                policy.omit_managed_fields if managed is None else managed,
            )
    return Decision("None", None, frozenset(policy.omit_stages), policy.omit_managed_fields)


def matches(rule: Rule, request: Request) -> bool:
    """Say whether `rule` applies to `request`."""
    if rule.users and request.user not in rule.users:
        return False
    if rule.user_groups and not set(rule.user_groups).intersection(request.groups):
        return False
    if rule.verbs and request.verb not in rule.verbs:
        return False
    if rule.namespaces or rule.resources:
        return bool(request.resource) and _matches_resource(rule, request)
    if rule.urls:
        return not request.resource and any(url_matches(url, request.path) for url in rule.urls)
    return True


def _matches_resource(rule: Rule, request: Request) -> bool:
    if rule.namespaces and request.namespace not in rule.namespaces:
        return False
    return not rule.resources or any(
        item.group == request.api_group
        and (not item.names or request.name in item.names)
        and (
            not item.resources
            or any(
                resource_matches(pattern, request.resource, request.subresource)
                for pattern in item.resources
            )
        )
        for item in rule.resources
    )


def resource_matches(pattern: str, resource: str | None, subresource: str | None) -> bool:
    """Say whether ``pods``, ``pods/exec``, ``pods/*``, ``*/exec`` or ``*`` means this resource.

    None stands for a name that no pattern mentions.
    """
    if pattern == "*":
        return True
    wanted, slash, wanted_sub = pattern.partition("/")
    if not slash:
        return pattern == resource and subresource == ""
    if wanted_sub == "*":
        return wanted == resource
    return bool(subresource) and wanted_sub == subresource and wanted in {"*", resource}


def url_matches(pattern: str, path: str) -> bool:
    """Say whether ``/healthz``, ``/healthz*`` or ``*`` means this path."""
    if pattern.endswith("*"):
        return path.startswith(pattern.rstrip("*"))
    return pattern == path
