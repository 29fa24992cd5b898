"""Random policies, good and bad, and random requests; of few words, so that they often meet."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

import yaml

from exectrail.audit_policy.policy import LEVELS, STAGES, Request

USERS = ["alice", "bob", "system:kube-proxy", "system:serviceaccount:web:ci", ""]
GROUPS = ["system:masters", "system:nodes", "system:authenticated", "devs"]
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
NAMESPACES = ["", "kube-system", "web", "default"]
API_GROUPS = ["", "apps", "batch", "rbac.authorization.k8s.io", "example.com"]
RESOURCES = ["pods", "secrets", "configmaps", "deployments"]
SUBRESOURCES = ["", "", "exec", "status", "scale"]
NAMES = ["", "a", "b", "web-0"]
PATHS = ["/", "/healthz", "/healthz/etcd", "/version", "/swagger.json", "/apis", "/apis/apps"]
PATTERNS = [
    "*", "pods", "pods/exec", "pods/*", "*/status", "*/exec", "secrets", "configmaps",
    "deployments", "deployments/scale", "pod", "pods/", "/exec", "*/*", "*/", "", "pods/exec/more",
]  # fmt: skip
URLS = ["*", "/*", "/healthz", "/healthz*", "/healthz/*", "/version", "/swagger*", "/apis*", "/"]

# Text as it stands in the file, where some readers see numbers, truth values, dates or nothing.
TRAPS = [
    "no", "on", "Yes", "y", "N", "true", "~", "null", "Null", "", "12", "-3", "+7", "012", "0o17",
    "0x1F", "0b11", "1_000", "12:30", "12:30:45", "1.5", ".5", "5.", "1e3", "1e+3", "1.5e3", ".inf",
    "-.INF", ".nan", "2024-01-31", "2024-01-31T10:00:00Z", "2024-1-1 10:00:00", "1.2.3.4", "1-2",
    "99999999999999999999", "0x99999999999999999999", "!!str 5", "!!int '5'", "!!null 'x'",
    "!!bool 'yes'", "!!binary aGk=", "'yes'", '"5"', "&a get", "=", "089", "_1", "1_", "0_7", "-",
    "tRUE", "nO", "deadbeef", "1e", "+", ".", "..", "-.5", "+.5e1", "0.", "1__2.3", "--", "- 1",
]  # fmt: skip
VALUES = [
    None, True, False, 3, 2.5, "", "*", "none", "metadata", "None", "RequestResponse", [], {},
    ["x"], [None], [3], [["get"]], {"a": 1}, [{}], [{"group": ""}], "requestReceived", "Panic",
    "apps/v1", "Apps", "-a", "a..b", "a" * 254, "/a*b", "/a**", "healthz", "/é*", "/healthz", "**",
    ["/x"], ["web"],
]  # fmt: skip
KEYS = [
    "user", "Users", "Level", "usergroups", "apiversion", "Kind", "metadata", "level", "users",
    "omitManagedFields", "nonResourceUrls", "nonResourceURLs", "namespaces", "resources",
    "resourceNames", "omitStages", "verbs", "rules", "group", "kind", "apiVersion",
]  # fmt: skip


def seeded(seed: int) -> Random:
    return Random(seed)  # noqa: S311  repeatable, and nothing here is secret


def request(random: Random) -> Request:
    user, groups = random.choice(USERS), tuple(_some(random, GROUPS))
    if random.random() < 0.25:
        return Request(user, random.choice(VERBS), groups, path=random.choice(PATHS))
    return Request(
        user,
        random.choice(VERBS),
        groups,
        random.choice(API_GROUPS[:3]),
        random.choice(RESOURCES),
        random.choice(SUBRESOURCES),
        random.choice(NAMESPACES),
        random.choice(NAMES),
    )


def policy(random: Random, api_version: str) -> dict[str, Any]:
    """Give the data of a policy that Kubernetes loads."""
    made: dict[str, Any] = {"apiVersion": api_version, "kind": "Policy"}
    _maybe(random, made, "omitStages", _some(random, STAGES))
    _maybe(random, made, "omitManagedFields", random.random() < 0.5)
    made["rules"] = [_rule(random) for _ in range(random.randint(1, 8))]
    return made


def spoilt(random: Random, good: dict[str, Any]) -> str:
    """Give the text of a policy with something changed, which may or may not make it bad."""
    data = copy.deepcopy(good)
    if random.random() < 0.03:
        random.choice(data["rules"])["nonResourceURLs"] = ["/x"]
    for _ in range(random.choice([1, 1, 1, 2])):
        place = random.choice(list(_containers(data)))
        kind = random.randrange(4)
        if isinstance(place, dict):
            key = random.choice([*place, random.choice(KEYS), random.choice(KEYS)])
            if kind == 0 and key in place:
                del place[key]
            elif kind == 1 and place:
                place[random.choice(KEYS)] = place.pop(random.choice(list(place)))
            else:
                place[key] = _odd(random)
        elif place and kind:
            place[random.randrange(len(place))] = _odd(random)
        else:
            place.append(_odd(random))
    if random.random() < 0.1:
        text = json.dumps(data, indent=random.choice([None, 1]))
    else:
        text = yaml.safe_dump(
            data, sort_keys=False, default_flow_style=random.choice([True, False, None])
        )
        if random.random() < 0.8:
            text = f"---\n{text}"
    for number, trap in enumerate(TRAPS):
        text = text.replace(f"TRAP{number}x", trap)
    return text


def _odd(random: Random) -> Any:
    if random.random() < 0.5:
        return f"TRAP{random.randrange(len(TRAPS))}x"
    return copy.deepcopy(random.choice(VALUES))


def _containers(data: Any) -> Any:
    if isinstance(data, dict | list):
        yield data
        for item in data.values() if isinstance(data, dict) else data:
            yield from _containers(item)


def _rule(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {"level": random.choice(LEVELS)}
    _maybe(random, made, "users", _some(random, USERS))
    _maybe(random, made, "userGroups", _some(random, GROUPS))
    _maybe(random, made, "verbs", _some(random, VERBS))
    if random.random() < 0.25:
        made["nonResourceURLs"] = _some(random, URLS) or ["/x"]
    else:
        _maybe(random, made, "namespaces", _some(random, NAMESPACES))
        _maybe(random, made, "resources", [_entry(random) for _ in range(random.randint(1, 3))])
    _maybe(random, made, "omitStages", _some(random, STAGES))
    _maybe(random, made, "omitManagedFields", random.choice([True, False, None]))
    return made


def _entry(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {"group": random.choice(API_GROUPS[:3])}
    _maybe(random, made, "resources", _some(random, PATTERNS) or ["pods"])
    if "resources" in made:
        _maybe(random, made, "resourceNames", _some(random, NAMES))
    return made


def _maybe(random: Random, made: dict[str, Any], key: str, value: Any) -> None:
    if random.random() < 0.4:
        made[key] = value


def _some(random: Random, words: Any) -> list[Any]:
    return random.sample(list(words), random.randint(0, min(3, len(words))))
