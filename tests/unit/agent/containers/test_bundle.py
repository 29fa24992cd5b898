from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.containers import bundle
from tests.unit.agent.containers.tree import config

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["annotations", "linux", "process", "terminal", "namespaces", "cgroupsPath", "type"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def parse(data: object) -> bundle.Bundle:
    return bundle.parse(json.dumps(data).encode())


def test_what_is_taken_out() -> None:
    found = parse(config("/a", {"k": "v"}, terminal=True))
    assert found == bundle.Bundle({"k": "v"}, "/a", terminal=True, shares_pids=False)


@pytest.mark.parametrize(("pid", "shares"), [("", False), (None, True), ("/proc/7/ns/pid", True)])
def test_a_pid_namespace_of_its_own(pid: str | None, shares: bool) -> None:  # noqa: FBT001
    assert parse(config(pid=pid)).shares_pids is shares


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "Expecting value"),
        (b"[1]", "not a JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_no_config(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bundle.parse(raw)


def test_huge_numbers_cost_nothing() -> None:
    assert bundle.parse(b'{"process": {"terminal": ' + b"9" * 3_000_000 + b"}}").terminal is False


def test_text_is_bounded_and_can_be_encoded() -> None:
    found = bundle.parse(rb'{"annotations": {"a": "\ud800", "b": 1, "c": "' + b"x" * 9999 + b'"}}')
    assert found.annotations == {"a": "?", "c": "x" * 4096}


@given(JSON)
def test_wrong_types_are_left_out(data: object) -> None:
    raw = json.dumps(data).encode()
    if isinstance(data, dict):
        found = bundle.parse(raw)
        assert isinstance(found.cgroups_path, str)
        assert all(isinstance(value, str) for value in found.annotations.values())
    else:
        with pytest.raises(ValueError):
            bundle.parse(raw)


@given(st.binary(max_size=100))
@example(b"")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b'{"annotations": {"a": ' + b"9" * 100_000 + b"}}")
@example(b'{"annotations": {"\\ud800": "\\udfff"}, "linux": {"cgroupsPath": "\\u0000"}}')
@example(b'{"linux": {"namespaces": [{"type": "pid", "path": 1}, null, [], "pid"]}}')
@example(b'{"linux": NaN, "process": {"terminal": 1}, "annotations": -Infinity}')
@example(b'{"linux": {}, "linux": []}')
@example(b"\xef\xbb\xbf{}")
@example(b"{}{}")
@example(b"\xff")
def test_any_bytes_are_a_bundle_or_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        bundle.parse(raw)
