from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail.audit_policy import profiles
from exectrail.audit_policy.lint import LintedPolicy
from exectrail.errors import UsageError

KNOWN_GROUPS = [
    "", "admissionregistration.k8s.io", "apps", "authentication.k8s.io", "authorization.k8s.io",
    "autoscaling", "batch", "certificates.k8s.io", "extensions", "networking.k8s.io", "policy",
    "rbac.authorization.k8s.io", "settings.k8s.io", "storage.k8s.io",
]  # fmt: skip


def core(*resources: str) -> list[dict[str, Any]]:
    return [{"group": "", "resources": list(resources)}]


def vendor_rules(*more_written_groups: str) -> list[dict[str, Any]]:
    """The published policy, written down a second time."""
    none: dict[str, Any] = {"level": "None"}
    return [
        none
        | {"users": ["system:kube-proxy"], "verbs": ["watch"]}
        | {"resources": core("endpoints", "services")},
        none
        | {"users": ["system:unsecured"], "namespaces": ["kube-system"], "verbs": ["get"]}
        | {"resources": core("configmaps")},
        none | {"users": ["kubelet"], "verbs": ["get"], "resources": core("nodes")},
        none | {"userGroups": ["system:nodes"], "verbs": ["get"], "resources": core("nodes")},
        none
        | {
            "users": [
                "system:kube-controller-manager",
                "system:kube-scheduler",
                "system:serviceaccount:kube-system:endpoint-controller",
            ],
            "verbs": ["get", "update"],
            "namespaces": ["kube-system"],
            "resources": core("endpoints"),
        },
        none | {"users": ["system:apiserver"], "verbs": ["get"], "resources": core("namespaces")},
        none | {"nonResourceURLs": ["/healthz*", "/version", "/swagger*"]},
        none | {"resources": core("events")},
        {
            "level": "Metadata",
            "resources": [
                *core("secrets", "configmaps"),
                {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
            ],
        },
        {
            "level": "Request",
            "verbs": ["get", "list", "watch"],
            "resources": [{"group": group} for group in KNOWN_GROUPS],
        },
        {
            "level": "RequestResponse",
            "resources": [{"group": group} for group in (*KNOWN_GROUPS, *more_written_groups)],
        },
        {"level": "Metadata"},
    ]


@pytest.mark.parametrize(
    ("profile", "rules"),
    [
        ("registered", vendor_rules()),
        ("ack", vendor_rules("autoscaling.alibabacloud.com")),
    ],
)
@pytest.mark.parametrize(
    ("kubernetes", "api_version"),
    [
        ("1.20.4", "audit.k8s.io/v1beta1"),
        ("1.23", "audit.k8s.io/v1beta1"),
        ("v1.23.17-aliyun.1", "audit.k8s.io/v1beta1"),
        ("1.24.0", "audit.k8s.io/v1"),
        ("v1.35.4+k3s1", "audit.k8s.io/v1"),
    ],
)
def test_a_profile_is_the_vendors_policy(
    profile: str, rules: list[dict[str, Any]], kubernetes: str, api_version: str
) -> None:
    assert yaml.safe_load(profiles.render(profile, kubernetes)) == {
        "apiVersion": api_version,
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": rules,
    }


def test_the_text_changes_only_with_the_policy() -> None:
    assert profiles.render("ack", "1.24") == profiles.render("ack", "v1.35.4")


@pytest.mark.parametrize("profile", profiles.profile_names())
def test_a_profile_keeps_only_the_tokens_that_the_vendors_policy_keeps(
    profile: str, tmp_path: Path
) -> None:
    path = tmp_path / "policy.yml"
    path.write_text(profiles.render(profile, "1.35"))
    findings = LintedPolicy(path, (1, 35, 0)).findings
    assert [(finding.check, finding.rule) for finding in findings] == [("bodies", 11)]


def test_own_rules_come_first() -> None:
    own = [
        {"level": "Metadata", "resources": [{"group": "", "resources": ["serviceaccounts/token"]}]},
        {"level": "None", "users": ["é: '#"]},
    ]
    plain = yaml.safe_load(profiles.render("ack", "1.30"))
    rendered = yaml.safe_load(profiles.render("ack", "1.30", own))
    assert rendered == plain | {"rules": own + plain["rules"]}


def test_rules_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "first.yml"
    path.write_text("# ours\n- level: None\n  users: [robot]\n")
    assert profiles.load_rules(path) == [{"level": "None", "users": ["robot"]}]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("- level: None\n- level: none\n", ":2: unknown level 'none'; case counts: 'None' [level]"),
        ("- level: None\n  user: [a]\n", ":2: unknown key 'user'"),
        ("- level: None\n  users: [1e3]\n", ":2: not every reader"),
        ("rules:\n- level: None\n", ":1: a file of rules is a list, not a mapping"),
        ("[]\n", ":1: a policy needs at least one rule"),
        ("", ":1: the file is empty"),
    ],
)
def test_bad_rules_of_a_file(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "first.yml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        profiles.load_rules(path)
    assert str(caught.value).startswith(f"{path}{problem}")


@pytest.mark.parametrize(
    ("profile", "kubernetes", "rules", "problem"),
    [
        ("akc", "1.30", (), "unknown profile 'akc'; did you mean 'ack'?"),
        ("ack", "latest", (), "'latest' is no version of Kubernetes"),
        ("ack", "2.1", (), "'2.1' is no version of Kubernetes"),
        ("ack", "", (), "'' is no version of Kubernetes"),
        ("ack", "1.30", ({"level": "All"},), "rules_first.0.level: unknown level 'All'"),
        (
            "ack",
            "1.30",
            ({"level": "None", "users": "me"},),
            "rules_first.0.users: users is a list",
        ),
    ],
)
def test_what_cannot_be_rendered(profile: str, kubernetes: str, rules: Any, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        profiles.render(profile, kubernetes, rules)
    assert str(caught.value).startswith(problem)
