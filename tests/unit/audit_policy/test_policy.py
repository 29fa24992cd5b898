from __future__ import annotations

import pytest

from exectrail.audit_policy.policy import (
    Decision,
    GroupResources,
    Policy,
    Request,
    Rule,
    decide,
    resource_matches,
    url_matches,
)


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["pods", "pods/exec", "nodes"], []),
        ("pods", ["pods"], ["pods/exec", "podtemplates", "nodes"]),
        ("pods/exec", ["pods/exec"], ["pods", "pods/attach"]),
        ("pods/*", ["pods", "pods/exec"], ["nodes", "nodes/exec"]),
        ("*/status", ["pods/status", "nodes/status"], ["pods", "pods/exec"]),
        ("pods/", [], ["pods", "pods/exec"]),
        ("*/*", [], ["pods", "pods/exec"]),
        ("*/", [], ["pods", "pods/exec"]),
        ("", [], ["pods", "pods/exec"]),
        ("Pods", [], ["pods"]),
    ],
)
def test_resources(pattern: str, matching: list[str], other: list[str]) -> None:
    for resource in (*matching, *other):
        name, _, subresource = resource.partition("/")
        assert resource_matches(pattern, name, subresource) is (resource in matching), resource


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["/", "/healthz"], []),
        ("/healthz", ["/healthz"], ["/healthz/", "/healthz/etcd"]),
        ("/healthz*", ["/healthz", "/healthz/etcd", "/healthzz"], ["/health"]),
        ("/healthz/*", ["/healthz/", "/healthz/etcd"], ["/healthz"]),
    ],
)
def test_urls(pattern: str, matching: list[str], other: list[str]) -> None:
    for path in (*matching, *other):
        assert url_matches(pattern, path) is (path in matching), path


PODS = GroupResources("", ("pods", "pods/exec"))


@pytest.mark.parametrize(
    ("rule", "matching", "other"),
    [
        (
            Rule("Metadata"),
            [Request("u", "get", resource="pods"), Request("u", "get", path="/")],
            [],
        ),
        (
            Rule("Metadata", users=("a",)),
            [Request("a", "get", path="/")],
            [Request("b", "get", path="/")],
        ),
        (
            Rule("Metadata", user_groups=("g", "h")),
            [Request("a", "get", ("x", "h"), path="/")],
            [Request("g", "get", path="/"), Request("a", "get", ("x",), path="/")],
        ),
        (
            Rule("Metadata", verbs=("get",)),
            [Request("a", "get", path="/")],
            [Request("a", "put", path="/")],
        ),
        (
            Rule("Metadata", namespaces=("",)),
            [Request("a", "get", resource="nodes")],
            [Request("a", "get", resource="pods", namespace="x"), Request("a", "get", path="/")],
        ),
        (
            Rule("Metadata", resources=(PODS,)),
            [Request("a", "get", resource="pods", subresource="exec")],
            [
                Request("a", "get", resource="pods", subresource="log"),
                Request("a", "get", api_group="metrics.k8s.io", resource="pods"),
                Request("a", "get", path="/pods"),
            ],
        ),
        (
            Rule("Metadata", resources=(GroupResources("apps"),)),
            [Request("a", "get", api_group="apps", resource="deployments", subresource="scale")],
            [Request("a", "get", resource="pods")],
        ),
        (
            Rule("Metadata", resources=(GroupResources("", ("secrets",), ("one",)),)),
            [Request("a", "get", resource="secrets", name="one")],
            [
                Request("a", "list", resource="secrets"),
                Request("a", "get", resource="secrets", name="x"),
            ],
        ),
        (
            Rule("Metadata", urls=("/x",)),
            [Request("a", "get", path="/x")],
            [Request("a", "get", path="/y"), Request("a", "get", resource="x")],
        ),
    ],
)
def test_conditions(rule: Rule, matching: list[Request], other: list[Request]) -> None:
    for request in matching:
        assert decide(Policy((rule,)), request).rule == 0, request
    for request in other:
        assert decide(Policy((rule,)), request) == Decision("None", None), request


def test_the_first_rule_that_matches_decides() -> None:
    policy = Policy(
        (
            Rule("None", users=("quiet",)),
            Rule("Request", omit_stages=("Panic",), omit_managed_fields=False),
            Rule("RequestResponse"),
        ),
        omit_stages=("RequestReceived",),
        omit_managed_fields=True,
    )
    quiet = decide(policy, Request("quiet", "get", path="/"))
    assert (quiet.level, quiet.rule, quiet.stages) == ("None", 0, ())
    assert quiet.omit_managed_fields
    other = decide(policy, Request("loud", "get", path="/"))
    assert (other.level, other.rule) == ("Request", 1)
    assert other.stages == ("ResponseStarted", "ResponseComplete")
    assert not other.omit_managed_fields


def test_no_rule_means_nothing_is_recorded() -> None:
    policy = Policy((Rule("Metadata", users=("a",)),), omit_stages=("Panic",))
    decision = decide(policy, Request("b", "get", path="/"))
    assert (decision.level, decision.rule, decision.stages) == ("None", None, ())
    assert decision.omitted == {"Panic"}
