"""The linter and `explain` against the code that the API server itself runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail.audit_policy import profiles
from exectrail.audit_policy.lint import LintedPolicy
from exectrail.audit_policy.lint.findings import REFUSED
from exectrail.audit_policy.policy import Request, decide
from exectrail.errors import UsageError
from tests.oracle import ORACLES, Oracle, generate

SEED = 20260401
POLICIES = 800
REQUESTS = 20
SPOILT = 2000


@pytest.fixture(params=ORACLES, ids=lambda oracle: oracle.kubernetes)
def oracle(request: pytest.FixtureRequest) -> Oracle:
    return request.param


@pytest.fixture
def lint(tmp_path: Path, oracle: Oracle) -> Any:
    def lint(text: str) -> LintedPolicy | None:
        path = tmp_path / "policy.yml"
        path.write_text(text, encoding="utf-8")
        try:
            return LintedPolicy(path, profiles.kubernetes_version(oracle.kubernetes))
        except UsageError:
            return None

    return lint


def as_question(text: str, requests: list[Request]) -> dict[str, Any]:
    return {
        "policy": text,
        "requests": [
            {**asdict(request), "is_resource": bool(request.resource)} for request in requests
        ],
    }


def own_decisions(linted: LintedPolicy, requests: list[Request]) -> Iterator[dict[str, Any]]:
    for request in requests:
        decision = decide(linted.policy, request)
        yield {
            "level": decision.level,
            "omit_stages": sorted(decision.omitted),
            "omit_managed_fields": decision.omit_managed_fields,
        }


def test_every_decision_is_that_of_kubernetes(oracle: Oracle, lint: Any) -> None:
    random = generate.seeded(SEED)
    cases = []
    for _ in range(POLICIES):
        text = yaml.safe_dump(generate.policy(random, oracle.api_version))
        cases.append((text, [generate.request(random) for _ in range(REQUESTS)]))
    for profile in profiles.profile_names():
        requests = [generate.request(random) for _ in range(REQUESTS)]
        cases.append((profiles.render(profile, oracle.kubernetes), requests))
    answers = oracle.ask(as_question(*case) for case in cases)
    seen: Counter[str] = Counter()
    for (text, requests), answer in zip(cases, answers, strict=True):
        linted = lint(text)
        assert linted is not None
        assert linted.findings == [] or not linted.has_errors, text
        decisions = list(own_decisions(linted, requests))
        assert answer == {"decisions": decisions}, text
        seen.update(decision["level"] for decision in decisions)
    assert min(seen[level] for level in ("Metadata", "Request", "RequestResponse")) > POLICIES / 2


def test_accepts_what_kubernetes_loads_and_rejects_what_it_refuses(
    oracle: Oracle, lint: Any
) -> None:
    random = generate.seeded(SEED)
    texts = [
        generate.spoilt(random, generate.policy(random, oracle.api_version)) for _ in range(SPOILT)
    ]
    requests = [generate.request(random) for _ in range(REQUESTS)]
    answers = oracle.ask(as_question(text, requests) for text in texts)
    seen: Counter[str] = Counter()
    for text, answer in zip(texts, answers, strict=True):
        linted = lint(text)
        if linted is None:
            seen["no YAML"] += 1
            continue
        checks = {finding.check for finding in linted.findings}
        if linted.is_refused:
            assert "refused" in answer, f"{checks}\n{text}"
            seen.update(checks & REFUSED)
        elif not linted.has_errors:
            assert answer == {"decisions": list(own_decisions(linted, requests))}, text
            seen["accepted"] += 1
        elif not checks & {"ambiguous-text", "metadata"} and not re.search("apiversion|Kind", text):
            # Kubernetes doesn't see the error: it loads the file and reads something else.
            assert answer == {"decisions": list(own_decisions(linted, requests))}, text
            seen["ignored"] += 1
    assert set(seen) >= {*REFUSED, "accepted", "ignored"}, seen
    assert seen["accepted"] > SPOILT / 10, seen
    assert seen["no YAML"] < SPOILT / 10, seen


@pytest.mark.parametrize(
    ("text", "loads"),
    [
        ("apiVersion: @\nkind: Policy\nrules: [{level: Metadata}]\n", True),
        ("apiVersion: @\nkind: Policy\nrules: &r\n- level: None\nmetadata: {name: x}\n", True),
        ("apiVersion: @\r\nkind: Policy\r\nrules:\r\n- level: None\r\n", True),
        ("\ufeffapiVersion: @\nkind: Policy\nrules: [{level: Metadata}]\n", True),
        ("apiVersion: @\nrules: [{level: Metadata}]\n", True),
        ('{"apiVersion": "@", "kind": "Policy", "rules": [{"level": "None"}]}', True),
        ("{apiVersion: @, kind: Policy, rules: [{level: None}]}", False),
        ("  {apiVersion: @, kind: Policy, rules: [{level: None}]}", False),
        ('{"apiVersion": "@", "kind": "Policy", "rules": [{"level": "None"},]}', False),
        ('{"apiVersion": "@", "kind": "Policy", "rules": [{"level": "None"}], "x": NaN}', False),
        ("apiVersion: @\nkind: policy\nrules: [{level: Metadata}]\n", False),
        ("apiVersion: @\nkind: Event\nrules: [{level: Metadata}]\n", False),
        ("apiVersion: v1\nkind: Policy\nrules: [{level: Metadata}]\n", False),
        ("apiVersion: audit.k8s.io/v2\nkind: Policy\nrules: [{level: Metadata}]\n", False),
        ("apiVersion: @\nkind: Policy\nrules: []\n", False),
        ("apiVersion: @\nkind: Policy\n", False),
        ("apiVersion: @\nkind: Policy\nrules:\n-\n", False),
        ("- apiVersion: @\n", False),
    ],
)
def test_forms_of_a_file(oracle: Oracle, lint: Any, text: str, loads: bool) -> None:  # noqa: FBT001  a table
    written = text.replace("@", oracle.api_version)
    linted = lint(written)
    assert linted is not None
    assert linted.is_refused is not loads
    assert linted.has_errors is not loads
    assert ("refused" not in oracle.ask([as_question(written, [])])[0]) is loads


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
def test_versions_of_the_format(oracle: Oracle, lint: Any, version: str) -> None:
    text = f"apiVersion: audit.k8s.io/{version}\nkind: Policy\nrules: [{{level: Metadata}}]\n"
    refused = "refused" in oracle.ask([as_question(text, [])])[0]
    assert lint(text).is_refused is refused
