from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from exectrail.audit_policy.lint import LintedPolicy, load
from exectrail.audit_policy.lint.findings import SEVERITIES, Finding
from exectrail.errors import UsageError

HEAD = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "audit-policy-lint.md"
ROW = re.compile(
    r"^\| `(?P<check>[a-z-]+)` \| (?P<severity>\w+) \| (?P<example>`.*?`) \| ", re.MULTILINE
)


def linted(tmp_path: Path, text: str, kubernetes: Any = (1, 35, 0)) -> list[Finding]:
    path = tmp_path / "policy.yml"
    path.write_text(text, encoding="utf-8")
    return LintedPolicy(path, kubernetes).findings


def policy(*rules: str, **top: str) -> str:
    """A file whose first rule is in line 4, each rule and its keys given as flow YAML."""
    lines = [f"{key}: {value}" for key, value in {**HEAD, **top}.items()]
    return "\n".join([*lines, "rules:", *(f"- {rule}" for rule in rules), ""])


def in_file(example: str) -> str:
    """Put an example of the reference into a file that is good otherwise."""
    if example.startswith("{"):
        return example
    if example.startswith("- "):
        return f"{policy()}{example}\n- level: Metadata\n"
    key = example.partition(":")[0]
    head = {name: value for name, value in HEAD.items() if name != key}
    rules = "" if key == "rules" else "rules:\n- level: Metadata\n"
    return "".join(f"{name}: {value}\n" for name, value in head.items()) + f"{example}\n{rules}"


ROWS = list(ROW.finditer(REFERENCE.read_text(encoding="utf-8")))


def test_the_reference_has_every_check_once() -> None:
    assert {row["check"]: row["severity"] for row in ROWS} == SEVERITIES
    assert len(ROWS) == len(SEVERITIES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["check"])
def test_the_example_of_the_reference(tmp_path: Path, row: re.Match[str]) -> None:
    example = "\n".join(re.findall(r"`([^`]*)`", row["example"]))
    versions = {"managed-fields-ignored": (1, 22, 0), "old-api-version": None}
    findings = linted(tmp_path, in_file(example), versions.get(row["check"], (1, 35, 0)))
    assert row["check"] in {finding.check for finding in findings}
    if row["severity"] == "info":
        assert {finding.severity for finding in findings} == {"info"}


@pytest.mark.parametrize(
    "rule",
    [
        '{level: Metadata, users: ["system:kube-proxy", "1e3", "no"]}',
        '{level: Metadata, resources: [{group: "", resources: ["*"]}]}',
        '{level: Metadata, resources: [{group: "", resources: ["pods/*", "*/status"]}]}',
        "{level: Metadata, resources: [{group: example.com, resources: [Anything, a/b]}]}",
        "{level: Metadata, resources: [{group: metrics.k8s.io, resources: [pods]}]}",
        "{level: Metadata, verbs: [head, get], nonResourceURLs: [/healthz*]}",
        "{level: Metadata, verbs: [deletecollection, post]}",
        "{level: Metadata, namespaces: [v1.2.3, 10-a, 1-2]}",
        '{level: None, resources: [{group: "", resources: [secrets], resourceNames: [a]}]}',
        '{level: Request, verbs: [get, list], resources: [{group: "", resources: [secrets]}]}',
        '{level: Request, resources: [{group: "", resources: [serviceaccounts/token]}]}',
        "{level: RequestResponse, verbs: [watch]}",
        "{level: None, users: [robot]}",
        "{level: Metadata, omitStages: [ResponseComplete]}",
        '{level: None, resources: [{group: apps}, {group: "", resources: [pods/log]}]}',
        "{level: Metadata, omitManagedFields: true}",
    ],
)
def test_nothing_to_say(tmp_path: Path, rule: str) -> None:
    rules = [rule, '{level: Metadata, resources: [{group: ""}]}', "{level: Metadata, users: [z]}"]
    found = [f for f in linted(tmp_path, policy(*rules)) if f.rule == 1 or f.check != "unreachable"]
    assert found == []


RULES = [
    ("level: Metadata\n  users:\n  - a\n  - 5", "type", 7, "put it in quotes"),
    ("level: Metadata\n  users: [no]", "type", 5, "the truth value false"),
    ("level: Metadata\n  verbs: {get: 1}", "type", 5, "verbs is a list, not a mapping"),
    ("level: Metadata\n  resources: [pods]", "type", 5, "an entry of resources is a mapping"),
    ("level: None\n  omitManagedFields: 'yes'", "type", 5, "true or false"),
    ("users: [a]", "level", 4, "a rule needs a level"),
    ("level: requestresponse", "level", 4, "case counts: 'RequestResponse'"),
    ("level: Everything", "level", 4, "unknown level 'Everything'"),
    ("level: None\n  omitStages: [Panics]", "stage", 5, "did you mean 'Panic'?"),
    ("level: None\n  resources:\n  - group: apps/v1", "group", 6, "write 'apps'"),
    ('level: None\n  resources:\n  - group: "*"', "group", 6, "no wildcard"),
    ("level: None\n  nonResourceURLs: [healthz]", "url", 5, "begin with a slash"),
    ("level: None\n  nonResourceURLs: [/a**]", "url", 5, "only the last"),
    ("level: None\n  Users: [a]", "unknown-key", 5, "case counts: 'users'"),
    ("level: None\n  users: [2024-01-31]", "ambiguous-text", 5, "2024-01-31"),
    ("level: None\n  users:\n  verbs: [get]", "empty-condition", 5, "every user"),
    ("level: None\n  users: [~]", "empty-condition", 5, "matches nothing"),
    ("level: None\n  resources:\n  - group:", "empty-condition", 6, "the core group"),
    ("level: None\n  resources:\n  - resources: [pods]", "empty-condition", 6, "core group"),
    ("level: None\n  resources: [~]", "empty-condition", 5, "the core group"),
    (
        'level: None\n  resources:\n  - group: ""\n    resources: []',
        "empty-condition",
        7,
        "every resource of the group",
    ),
    ('level: None\n  verbs: ["*"]', "literal-wildcard", 5, "leave verbs out"),
    ("level: None\n  verbs: [GET]", "verb", 5, "did you mean 'get'?"),
    ("level: None\n  verbs: [list]\n  nonResourceURLs: ['*']", "verb", 5, "for a URL"),
    ("level: None\n  verbs: [post]\n  namespaces: [a]", "verb", 5, "for a resource"),
    ("level: None\n  verbs: [escalate]", "verb", 5, "RBAC"),
    ("level: None\n  resources: [{group: rbac}]", "unknown-group", 5, "rbac.authorization.k8s.io"),
    ("level: None\n  resources: [{group: app}]", "unknown-group", 5, "'apps'"),
    ("level: None\n  resources: [{group: storage.k8s}]", "unknown-group", 5, "'storage.k8s.io'"),
    ("level: None\n  resources: [{group: zzz}]", "unknown-group", 5, "no dot"),
    (
        "level: None\n  resources: [{group: apps, resources: [pods]}]",
        "resource",
        5,
        "not in 'apps' but in the core group",
    ),
    ("level: None\n  resources: [{group: '', resources: [ingresses]}]", "resource", 5, "but in '"),
    ("level: None\n  resources: [{group: '', resources: [pod]}]", "resource", 5, "'pods'"),
    ("level: None\n  resources: [{group: '', resources: [Secrets]}]", "resource", 5, "'secrets'"),
    ("level: None\n  resources: [{group: '', resources: [exec]}]", "resource", 5, "pods/exec"),
    ("level: None\n  resources: [{group: '', resources: [pods/exe]}]", "resource", 5, "exec"),
    ("level: None\n  resources: [{group: '', resources: ['*/exe']}]", "resource", 5, "exec"),
    ("level: None\n  resources: [{group: '', resources: ['pod*']}]", "resource", 5, "whole name"),
    ("level: None\n  resources: [{group: a.b, resources: ['*/*']}]", "resource", 5, "write"),
    ("level: None\n- level: Metadata", "unreachable", 5, "rule 1 takes all of it"),
    (
        (
            "{level: None, verbs: [get]}\n- {level: None, verbs: [list]}"
            "\n- {level: None, users: [a]}\n- {level: Metadata, verbs: [get, list]}"
        ),
        "unreachable",
        7,
        "rules 1 and 2 together",
    ),
    (
        "{level: Metadata, nonResourceURLs: [/a*]}\n- {level: None, nonResourceURLs: [/ab, /a/*]}",
        "unreachable",
        5,
        "rule 1",
    ),
    (
        "level: RequestResponse",
        "bodies",
        4,
        "secrets, configmaps, the tokens of tokenreviews, the tokens of serviceaccounts/token",
    ),
    (
        "level: Request\n  users: [a]",
        "bodies",
        4,
        "secrets, configmaps, the tokens of tokenreviews;",
    ),
    ("level: RequestResponse\n  namespaces: [a]", "bodies", 4, "secrets"),
    ("level: None", "exec-unrecorded", 4, "nothing of pods/exec"),
    (
        "level: Metadata\n  users: [a]\n  resources: [{group: apps}]",
        "exec-unrecorded",
        3,
        "nothing of",
    ),
    ("level: Metadata\n  verbs: [create]", "exec-unrecorded", 4, "not with get"),
]
FILES = [
    ("- a\n", "type", 1, "a policy is a mapping, not a list"),
    (policy("level: Metadata", apiVersion="v1"), "api-version", 1, "audit.k8s.io/v1"),
    (
        policy("level: Metadata", apiVersion="audit.k8s.io/v1beta1"),
        "api-version",
        1,
        "1.35 refuses",
    ),
    ("kind: Policy\nrules: [{level: None}]\n", "api-version", 1, "missing"),
    (policy("level: None", ApiVersion="x"), "unknown-key", 3, "case counts"),
    ("%YAML 1.2\n---\n" + policy("level: None"), "ambiguous-text", 1, "directive"),
    (
        policy(
            "level: Metadata", omitStages="[RequestReceived, ResponseStarted, ResponseComplete]"
        ),
        "exec-unrecorded",
        5,
        "nothing of pods/exec",
    ),
]


@pytest.mark.parametrize(
    ("text", "check", "line", "part"),
    [*((policy(rules), *found) for rules, *found in RULES), *FILES],
)
def test_check_line_and_message(
    tmp_path: Path, text: str, check: str, line: int, part: str
) -> None:
    found = [finding for finding in linted(tmp_path, text) if finding.check == check]
    assert found, linted(tmp_path, text)
    assert any(finding.line == line and part in finding.message for finding in found), found


@pytest.mark.parametrize(
    ("api_version", "kubernetes", "refused"),
    [
        ("v1", None, False),
        ("v1beta1", None, False),
        ("v1alpha1", None, False),
        ("v1beta2", None, True),
        ("v1", (1, 12, 0), False),
        ("v1", (1, 11, 9), True),
        ("v1beta1", (1, 11, 9), False),
        ("v1beta1", (1, 23, 17), False),
        ("v1beta1", (1, 24, 0), True),
        ("v1alpha1", (1, 24, 0), True),
        ("v1", (1, 35, 4), False),
    ],
)
def test_which_release_reads_which_version(
    tmp_path: Path,
    api_version: str,
    kubernetes: Any,
    refused: bool,  # noqa: FBT001  a table
) -> None:
    text = policy("level: Metadata", apiVersion=f"audit.k8s.io/{api_version}")
    checks = {finding.check for finding in linted(tmp_path, text, kubernetes)}
    assert ("api-version" in checks) is refused


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: the file is empty"),
        ("a: [\n", ":2: "),
        ("a: 1\nb: 2\na: 3\n", ":3: the key 'a' is here twice (first in line 1)"),
        ("a: 1\n---\nb: 2\n", ":2: "),
        ("on: 1\n", ":1: a key must be text"),
    ],
)
def test_what_is_no_yaml_is_one_message(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        linted(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'policy.yml'}{problem}")


def test_only_a_policy_without_errors_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "policy.yml"
    path.write_text(policy("level: None"))
    assert load(path).policy.rules[0].level == "None"
    path.write_text(policy("level: None\n  user: [a]"))
    with pytest.raises(UsageError, match=r"policy.yml:5: unknown key 'user'.*\[unknown-key\]"):
        load(path)
