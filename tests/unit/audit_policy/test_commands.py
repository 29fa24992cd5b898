"""The commands as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail.audit_policy.commands import audit_policy
from exectrail.errors import UsageError

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  userGroups: ["system:serviceaccounts:ci"]
- level: RequestResponse
  resources:
  - group: ""
    resources: ["pods/*"]
- level: Metadata
  namespaces: [web]
- level: Metadata
  nonResourceURLs: ["/metrics*"]
  userGroups: ["system:authenticated"]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yml"
    path.write_text(POLICY)
    return path


def run(*arguments: str | Path) -> int:
    code: int = audit_policy.main(list(map(str, arguments)), standalone_mode=False)
    return code


def explain(policy: Path, arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run("explain", policy, "--json", *arguments.split()) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_render_prints_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render", "--profile", "ack", "--kubernetes-version", "1.22") == 0
    assert yaml.safe_load(capsys.readouterr().out)["apiVersion"] == "audit.k8s.io/v1beta1"


def test_render_writes_a_policy_that_lints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, made = tmp_path / "first.yml", tmp_path / "policy.yml"
    own.write_text(
        '- level: Metadata\n  resources: [{group: "", resources: [serviceaccounts/token]}]\n'
    )
    options = ("--profile", "registered", "--kubernetes-version", "1.35", "--rules-first", own)
    assert run("render", *options, "-o", made) == 0
    assert run("lint", made, "--strict", "--kubernetes-version", "1.35") == 0
    assert capsys.readouterr().out == f"{made}: rules: 13; errors: 0, warnings: 0, notes: 0\n"


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        (POLICY, (), 0),
        (POLICY, ("--strict",), 0),
        (POLICY.replace("/v1\n", "/v1beta1\n"), ("--strict",), 0),
        (POLICY.replace("/v1\n", "/v1beta1\n"), ("--kubernetes-version", "1.24"), 2),
        (POLICY.replace("[web]", '["*"]'), (), 0),
        (POLICY.replace("[web]", '["*"]'), ("--strict",), 1),
        (POLICY.replace("namespaces", "namespace"), (), 2),
        (POLICY.replace("namespaces", "namespace"), ("--strict",), 2),
    ],
)
def test_exit_codes_of_lint(policy: Path, text: str, options: tuple[str, ...], code: int) -> None:
    policy.write_text(text)
    assert run("lint", policy, *options) == code


def test_lint_names_file_line_and_rule(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY.replace("namespaces: [web]", 'users: ["\\e[2Jx*"]'))
    run("lint", policy)
    assert f"{policy}:12: warning: rule 3: users has no wildcards" in capsys.readouterr().out


def test_lint_keeps_control_characters_from_the_terminal(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(POLICY.replace("level: None", 'level: "\\e[2J"'))
    run("lint", policy)
    assert "\x1b" not in capsys.readouterr().out


def test_lint_as_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(POLICY.replace("[web]", '["*"]'))
    assert run("lint", policy, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    (finding,) = answer.pop("findings")
    assert answer == {
        "file": str(policy),
        "rules": 4,
        "counts": {"error": 0, "warning": 1, "info": 0},
    }
    assert (finding["check"], finding["severity"]) == ("literal-wildcard", "warning")
    assert (finding["line"], finding["rule"]) == (12, 3)


@pytest.mark.parametrize(
    ("arguments", "level", "rule", "line"),
    [
        ("--user ann --verb get --resource pods/exec --namespace a", "RequestResponse", 2, 7),
        ("--user ann --verb get --resource pods", "RequestResponse", 2, 7),
        ("--user ann --verb get --api-group apps --resource deployments", "None", None, None),
        (
            "--user ann --verb get --api-group apps --resource x --namespace web",
            "Metadata",
            3,
            11,
        ),
        ("--user ann --verb get --resource namespaces --name web", "Metadata", 3, 11),
        ("--user system:serviceaccount:ci:bot --verb get --resource pods", "None", 1, 5),
        ("--user ann --group system:serviceaccounts:ci --verb get --url /x", "None", 1, 5),
        ("--user ann --verb get --url /metrics/x", "Metadata", 4, 13),
        ("--user system:anonymous --verb get --url /metrics/x", "None", None, None),
    ],
)
def test_explain(  # noqa: PLR0913, PLR0917  a table
    policy: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    level: str,
    rule: int | None,
    line: int | None,
) -> None:
    answer = explain(policy, arguments, capsys)
    assert (answer["level"], answer["rule"], answer["line"]) == (level, rule, line)
    recorded = ["ResponseStarted", "ResponseComplete", "Panic"]
    assert answer["stages"] == ([] if level == "None" else recorded)


@pytest.mark.parametrize(
    ("user", "groups"),
    [
        ("ann", ["system:authenticated"]),
        ("system:anonymous", ["system:unauthenticated"]),
        (
            "system:serviceaccount:web:bot",
            ["system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated"],
        ),
    ],
)
def test_explain_adds_the_groups_that_the_api_server_adds(
    policy: Path, capsys: pytest.CaptureFixture[str], user: str, groups: list[str]
) -> None:
    answer = explain(policy, f"--user {user} --verb get --url /x --group devs", capsys)
    assert answer["request"]["groups"] == ["devs", *groups]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            "--resource pods/exec",
            (
                "level:  RequestResponse\nrule:   2 ({}:7)\n"
                "stages: ResponseStarted, ResponseComplete, Panic\n"
            ),
        ),
        (
            "--url /x",
            "level:  None\nrule:   none matches, so nothing is recorded\nstages: none\n",
        ),
    ],
)
def test_explain_in_words(
    policy: Path, capsys: pytest.CaptureFixture[str], arguments: str, text: str
) -> None:
    assert run("explain", policy, "--user", "ann", "--verb", "get", *arguments.split()) == 0
    assert capsys.readouterr().out == text.format(policy) + "groups: system:authenticated\n"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("explain {policy} --user a --verb get", "either --resource or --url"),
        ("explain {policy} --user a --verb get --resource pods --url /x", "either"),
        ("explain {policy} --user a --verb get --url x", "begins with a slash"),
        ("explain {policy} --user a --verb get --url /x --namespace web", "belong to --resource"),
        ("explain {policy} --user a --verb get --resource pods/", "RESOURCE/SUBRESOURCE"),
        ("explain {policy} --user a --verb get --resource a/b/c", "RESOURCE/SUBRESOURCE"),
        ("explain {bad} --user a --verb get --url /x", "bad.yml:5: unknown level 'x'"),
        ("lint {policy} --kubernetes-version latest", "no version of Kubernetes"),
        ("lint {policy}.none", "No such file"),
        ("render --profile x --kubernetes-version 1.30", "unknown profile 'x'"),
        ("render --profile ack --kubernetes-version 1.30 --rules-first {bad}", "is a list"),
    ],
)
def test_a_wrong_request_is_one_message(policy: Path, arguments: str, problem: str) -> None:
    bad = policy.with_name("bad.yml")
    bad.write_text(POLICY.replace("level: None", "level: x"))
    with pytest.raises(UsageError) as caught:
        run(*arguments.format(policy=policy, bad=bad).split())
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
