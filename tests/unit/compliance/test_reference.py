"""The reference pages and the schemas say what the program does."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from exectrail.compliance import reference

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "reference"
POLICIES = ROOT / "src" / "exectrail" / "policies"


@pytest.mark.parametrize(("page", "text"), reference.pages().items(), ids=lambda value: value[:24])
def test_the_pages_are_up_to_date(page: str, text: str) -> None:
    assert (DOCS / page).read_text() == text, (
        "Run: python -m exectrail.compliance.reference docs/reference"
    )


def complaints(schema: str, data: Any) -> list[str]:
    loaded = json.loads((DOCS / f"{schema}.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(
        loaded, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.check_schema(loaded)
    return [error.message for error in validator.iter_errors(data)]


def written(path: Path) -> Any:
    data = yaml.safe_load(path.read_text())
    return json.loads(json.dumps(data, default=dt.date.isoformat))


@pytest.mark.parametrize("path", sorted(POLICIES.glob("requirements/*.yml")), ids=lambda p: p.stem)
def test_the_profiles_are_of_their_schema(path: Path) -> None:
    assert complaints("requirements", written(path)) == []


def test_the_example_waivers_are_of_their_schema() -> None:
    assert complaints("waivers", written(POLICIES / "waivers" / "example.yml")) == []


@pytest.mark.parametrize(
    ("row", "valid"),
    [
        ({"id": "node.log-space", "parameters": {"min_free_bytes": 1}}, True),
        ({"id": "node.log-space", "parameters": {"min_free_bytes": "1"}}, False),
        ({"id": "node.log-space", "parameters": {"min_free": 1}}, False),
        ({"id": "a.b", "check": "node.log-space", "parameters": {"min_free": 1}}, False),
        ({"id": "node.log-space", "check": "node.systemd", "parameters": {"minimum": 1}}, True),
        ({"id": "a.b", "check": "node.nothing"}, False),
        ({"id": "a.b", "colour": "red"}, False),
    ],
)
def test_the_schema_knows_the_parameters_of_each_check(row: dict[str, Any], *, valid: bool) -> None:
    document = {"name": "n", "title": "t", "gates": ["blocker"], "requirements": [row]}
    assert (complaints("requirements", document) == []) == valid


@pytest.mark.parametrize(
    "change", [{"owner": ""}, {"expires": "soon"}, {"hosts": []}, {"until": "x"}, {"reason": None}]
)
def test_the_schema_of_waivers_refuses_what_the_program_refuses(change: dict[str, Any]) -> None:
    row = written(POLICIES / "waivers" / "example.yml")[0]
    assert complaints("waivers", [row]) == []
    assert complaints("waivers", [{**row, **change}])
