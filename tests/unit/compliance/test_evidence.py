from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.compliance import evidence
from exectrail.compliance.model import Evidence, HostState
from exectrail.errors import UsageError

TEXT = st.text() | st.characters(categories=["Cs"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda values: st.lists(values) | st.dictionaries(TEXT, values),
    max_leaves=8,
)  # fmt: skip


@given(
    st.builds(
        Evidence,
        host=TEXT,
        state=st.sampled_from(HostState),
        groups=st.lists(TEXT).map(tuple),
        variables=st.dictionaries(TEXT, JSON),
        items=st.dictionaries(TEXT, JSON),
        problem=TEXT,
        fix=TEXT,
    )
)
def test_what_is_saved_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, saved: Evidence
) -> None:
    path = tmp_path_factory.mktemp("evidence") / "node.json"
    evidence.save(saved, path)
    assert evidence.load(path) == saved


def test_saved_evidence_is_its_owners_only_and_replaces_the_old_whole(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.write_text("old")
    path.chmod(0o644)
    evidence.save(Evidence(host="n"), path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["n.json"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        evidence.save(Evidence(host="n"), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["n.json"]


def test_the_output_of_the_script_is_evidence_of_the_node_that_the_file_is_called_after(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node7.example.json"
    printed = {"changed": False, "evidence": {"schema": 1, "items": {"clock": None}}}
    path.write_text(json.dumps(printed) + "\n")
    assert evidence.load(path) == Evidence(host="node7.example", items={"clock": None})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no evidence of a node"),
        ("[]", "no evidence of a node"),
        ("{}", "missing required field `host`"),
        ('{"host": 7}', "Expected `str`"),
        ('{"host": "n", "state": "well"}', "Invalid enum value"),
        ('{"evidence": {"items": {}}}', "missing required field `schema`"),
        ('{"evidence": {"schema": 2, "items": {}}}', "evidence of schema 2"),
        ('{"evidence": {"schema": 1, "items": []}}', "Expected `object`"),
        ('{"host": "n", "items": {"a": NaN}}', "NaN is not JSON"),
        ("\xff", "no evidence of a node"),
        ("[" * 100_000, "no evidence of a node"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "n.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as caught:
        evidence.load(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        evidence.load(tmp_path / "none.json")
