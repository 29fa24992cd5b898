from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.compliance.items.access import Unreadable, observed
from exectrail.versions import parse, required

NUMBER = st.integers(0, 999_999)
VERSION = st.tuples(NUMBER, NUMBER, NUMBER)
SUFFIX = st.sampled_from(["", "-30-cloud-amd64", "-rc1", "+k3s1", "-aliyun.1", ".7", "~", " "])


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("5", (5, 0, 0)),
        ("4.19", (4, 19, 0)),
        ("v1.30.2", (1, 30, 2)),
        ("5.10.0-30-cloud-amd64", (5, 10, 0)),
        ("4.19.91-27.al7.x86_64", (4, 19, 91)),
        ("1.30.2.1", (1, 30, 2)),
        ("1.", (1, 0, 0)),
        ("", None),
        (".1", None),
        ("vv1", None),
        ("-1.2", None),
        ("1234567", None),
        ("x5.10", None),
    ],
)
def test_parse(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse(text) == version


@given(VERSION, VERSION, SUFFIX)
def test_versions_are_ordered_by_number_whatever_follows(
    one: tuple[int, int, int], other: tuple[int, int, int], suffix: str
) -> None:
    texts = [".".join(map(str, version)) + suffix for version in (one, other)]
    left, right = (observed(text, "item") for text in texts)
    assert (left < right, left == right, left > right) == (one < other, one == other, one > other)


@given(st.text())
def test_any_text_is_a_version_or_none(text: str) -> None:
    version = parse(text)
    if version is None:
        with pytest.raises(Unreadable, match="is no version"):
            observed(text, "item")
        with pytest.raises(ValueError):
            required(text)
    else:
        assert observed(text, "item") == required(text) == version
