from __future__ import annotations

from pathlib import Path

import pytest

from exectrail import yamlfile
from exectrail.audit_policy.lint.source import Source


def source(tmp_path: Path, text: str) -> Source:
    path = tmp_path / "policy.yml"
    path.write_text(text, encoding="utf-8")
    return Source(yamlfile.load(path))


@pytest.mark.parametrize(
    "word",
    [
        *("y", "N", "1e3", "0o17", "012", "0x1F", "0b11", "1_000", "12:30", ".5", "5.", ".inf"),
        *("2024-01-31", "2024-1-1 10:00:00", "99999999999999999999", "!!str 5", "!!null 'x'"),
        *("!!binary aGk=", "089", "+.5e1"),
    ],
)
def test_words_that_readers_differ_about(tmp_path: Path, word: str) -> None:
    found = list(source(tmp_path, f"users:\n- a\n- {word}\n").ambiguities())
    assert [line for line, _ in found] == [3]


@pytest.mark.parametrize(
    "word",
    [
        *("alice", "get", "v1.2.3", "1.2.3.4", "1-2", "10-a", "'y'", '"1e3"', "'2024-01-31'"),
        *("no", "true", "~", "12", "-3", "1.5", "null", "system:nodes", "deadbeef", "_1"),
    ],
)
def test_words_that_all_take_for_the_same(tmp_path: Path, word: str) -> None:
    assert list(source(tmp_path, f"users:\n- {word}\n").ambiguities()) == []


def test_a_directive_is_found_where_it_stands(tmp_path: Path) -> None:
    found = list(source(tmp_path, "# ours\n%YAML 1.1\n---\nkind: Policy\n").ambiguities())
    assert [line for line, _ in found] == [2]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": [1, 2]}', None),
        ("a: {b: 1}\n", None),
        ("# not JSON\n{a: 1}\n", None),
        ("{a: 1}\n", 1),
        ('\n{"a": 1,\n "b": [1,]}\n', 3),
        ('{"a": NaN}', 1),
    ],
)
def test_what_begins_with_a_brace_is_json(tmp_path: Path, text: str, line: int | None) -> None:
    error = source(tmp_path, text).json_error()
    assert (error and error[0]) == line


def test_lines(tmp_path: Path) -> None:
    read = source(tmp_path, "a:\n- b:\n    c: 1\n-\n  - x\nd: &anchor\n  e: 1\nf: *anchor\n")
    assert read.line(()) == 1
    assert read.line(("a", 0)) == 2
    assert read.line(("a", 0, "b", "c")) == 3
    assert read.line(("a", 0, "b", "missing", 7)) == 2
    assert read.line(("a", 1, 0)) == 5
    assert read.line(("f", "e")) == 7
