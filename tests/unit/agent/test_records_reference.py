"""The reference says what the schemas say."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.agent.world import SCHEMAS, validator

PAGE = (SCHEMAS.parent / "records.md").read_text()
FIELDS = PAGE[PAGE.index("## Fields") : PAGE.index("### Names")]
FILES = sorted(SCHEMAS.glob("*.schema.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_field_is_in_the_reference(file: object) -> None:
    schema = json.loads((SCHEMAS / str(file)).read_text())
    rows = dict(re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", FIELDS, re.MULTILINE))

    validator(schema["title"])
    assert schema["additionalProperties"] is False
    for field in schema["properties"]:
        assert rows[field].strip() == "all" or schema["title"] in rows[field].strip().split(", "), (
            field
        )


def test_each_entry_type_is_explained() -> None:
    schema = json.loads((SCHEMAS / "kubernetes.schema.json").read_text())

    for name in schema["properties"]["entry.type"]["enum"]:
        assert f"| `{name}` |" in PAGE


def test_there_is_a_schema_for_each_kind() -> None:
    assert {json.loads(file.read_text())["title"] for file in FILES} == {
        "Command",
        "CommandExit",
        "Health",
        "Kubernetes",
        "Loss",
        "SessionEnd",
        "Throttle",
    }
