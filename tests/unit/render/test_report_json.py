"""report.json: written, read back, refused when it is none, and as its schema says."""

from __future__ import annotations

import json as plain
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.compliance.render import json
from exectrail.errors import UsageError
from tests.unit.render.reports import FIXTURES, HOSTILE, hostile_report, node, report, result, saved

SCHEMA = Path(__file__).parents[3] / "docs" / "reference" / "report.schema.json"
GOOD = (FIXTURES / "fit.json").read_bytes()


@pytest.mark.parametrize("name", ["mixed", "fit", "hostile", "earlier"])
def test_a_report_survives_writing_and_reading(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(json.render(saved(name)))
    assert json.load(path) == saved(name)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_written_as_json(text: str) -> None:
    assert plain.loads(json.render(hostile_report(text)))["schema_version"] == 1


def test_half_a_surrogate_pair_becomes_an_escape(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(json.render(report(node(result(observed="a\ud800é")))))
    assert json.load(path).hosts[0].results[0].observed == "a\\ud800é"


def changed(**changes: Any) -> bytes:
    return plain.dumps({**plain.loads(GOOD), **changes}).encode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"not json", "not complete JSON"),
        (GOOD[: len(GOOD) // 2], "not complete JSON"),
        (b"\xff\xfe\x00", "not complete JSON"),
        (b"[" * 100_000, "no report"),
        (b'{"schema_version": 1, "x": ' + b"[" * 100_000, "not complete JSON"),
        (b"[]", "no report"),
        (b"{}", "schema_version"),
        (b'{"schema_version": 1}', "no report"),
        (changed(schema_version=2), "schema version 2; this Exectrail reads version 1"),
        (changed(schema_version="1"), "no report"),
        (changed(verdict="\x1b[31mfine"), r"'\x1b[31mfine'"),
        (changed(hosts=[{"host": 1}]), "hosts[0]"),
        (changed(started="yesterday"), "started"),
        (changed(started="2026-11-20T10:00:00"), "not in UTC"),
        (changed(finished="2026-11-20T10:00:00+02:00"), "not in UTC"),
    ],
)
def test_what_is_no_report_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        json.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert says in message
    assert message.isprintable()


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, says in (
        (tmp_path / "none.json", "does not exist"),
        (tmp_path, "no regular file"),
        (tmp_path / "fifo", "no regular file"),
    ):
        with pytest.raises(UsageError, match=says):
            json.load(path)


@pytest.mark.parametrize("name", ["mixed", "fit", "hostile", "earlier"])
def test_reports_are_as_the_schema_says(name: str) -> None:
    jsonschema.validate(plain.loads(json.render(saved(name))), plain.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_reports_are_as_the_schema_says(text: str) -> None:
    written = plain.loads(json.render(hostile_report(text)))
    jsonschema.validate(written, plain.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    "change", [{"verdict": "fine"}, {"schema_version": 2}, {"hosts": {}}, {"counts": {}}]
)
def test_the_schema_refuses_what_is_no_report(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain.loads(changed(**change)), plain.loads(SCHEMA.read_text()))
