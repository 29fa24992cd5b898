from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail import yamlfile
from exectrail.errors import UsageError


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "file.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yamlfile.load(path).data


def test_plain_data(tmp_path: Path) -> None:
    text = "\ufeffa: [1, 'x', true, null, 1.5]\nb: {c: |\n    two\n    lines\n  }\n"
    data = read(tmp_path, text.replace("{c: |\n    two\n    lines\n  }", "{c: d}"))
    assert data == {"a": [1, "x", True, None, 1.5], "b": {"c": "d"}}


def test_an_alias_stands_for_a_copy(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x [1]\nb: *x\n") == {"a": [1], "b": [1]}


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n"
    for before, name in itertools.pairwise("abcdefg")
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\n\tb: 2\n", 2, "a tab"),
        ("a:\n\t- b\n", 2, "a tab"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is here twice (first in line 1)"),
        ("a: {b: 1, b: 2}\n", 1, "'b' is here twice"),
        ("a: 1\n1: 2\n", 2, "a key must be text"),
        ("a: 1\nyes: 2\n", 2, "a key must be text"),
        ("a: 1\n? [x]\n: 2\n", 2, "a key must be text"),
        ("a: 1\n<<: {b: 1}\n", 2, "merge"),
        ("a: [1\nb: 2\n", 2, "expected ',' or ']'"),
        ("a: *nobody\n", 1, "undefined alias"),
        ("a: 1\n---\nb: 2\n", 2, "found another document"),
        ("a: &x [*x]\n", 1, "nested too deeply"),
        (BOMB, 1, "alias repeats too many"),
        ("[" * 1000, 1, "nested too deeply"),
        ("a: !!python/object:os.system x\n", 1, "could not determine a constructor"),
        ("a: 1\nb: !vault {x: 1}\n", 2, "the tag !vault has no meaning here"),
        ("a: 1\nb: !!binary x\n", 2, "base64"),
        ("a: 1\nb: !!int x\n", 2, "can't be read as the number or date"),
        ("a: 1\nb: !!bool x\n", 2, "can't be read as the number or date"),
        ("a: 1\nb: !!timestamp x\n", 2, "can't be read as the number or date"),
        ("a: 1\nb: 2026-02-30\n", 2, "can't be read as the number or date"),
        ('a: 1\nb: "\\ud800"\n', 2, "can't be read"),
        ("a: 1\nb: \x00\n", 2, "control character"),
        ("a: 1\nb: \x1b[31m\n", 2, "control character"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        ("", 1, "empty"),
        ("# nothing\n", 1, "empty"),
    ],
)
def test_everything_else_is_refused_by_line(
    tmp_path: Path, text: str | bytes, line: int, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/file.yml:{line}: "), caught.value
    assert says in str(caught.value)


@given(st.binary() | st.text("ab:-[]{}&*!#'\"\n\t |>0,", max_size=40).map(str.encode))
def test_any_bytes_are_data_or_one_usage_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    with contextlib.suppress(UsageError):
        read(tmp_path_factory.mktemp("yaml"), raw)


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("clok", ["clock", "python"], "; did you mean 'clock'?"),
        ("zzz", ["b", "a"], "; there are: a, b"),
        ("zzz", [], ""),
        ("zzz", [f"n{i:02}" for i in range(24)], "n22, n23"),
        ("zzz", [f"n{i:02}" for i in range(25)], "n22, n23, …"),
    ],
)
def test_suggest(name: str, known: list[str], says: str) -> None:
    assert yamlfile.suggest(name, known).endswith(says)
