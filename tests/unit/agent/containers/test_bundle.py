from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.containers import bundle, containerd, crio
from exectrail_agent.containers.model import Container
from tests.unit.agent.containers.tree import A, config
from tests.unit.agent.corpus import damaged, kept

REAL = kept("*/*.json")
"""Bundles of real runtimes, cut down to what says whose they are."""

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
@example(b'{"linux": {"namespaces": true}}')
@example(b'{"linux": NaN, "process": {"terminal": 1}, "annotations": -Infinity}')
@example(b'{"linux": {}, "linux": []}')
@example(b"\xef\xbb\xbf{}")
@example(b"{}{}")
@example(b"\xff")
def test_any_bytes_are_a_bundle_or_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        bundle.parse(raw)


@pytest.mark.parametrize("name", REAL)
def test_a_real_bundle_says_where_it_is(name: str) -> None:
    found = bundle.parse(REAL[name])
    ours = found.annotation("io.kubernetes.cri.container-type", "io.container.manager")
    assert ours in {"container", "sandbox", "cri-o", "libpod"}
    assert found.cgroups_path.startswith(("/kubepods/", "/libpod_parent/"))
    assert found.shares_pids is False


def described(found: bundle.Bundle) -> None:
    for one in (containerd, crio):
        told = one.describe(Container(A, "", A, "", ""), found)
        assert told.kind in {"container", "sandbox"}
        # Or it could not be written down.
        repr(told).encode()


@given(damaged(list(REAL.values())))
def test_damaged_real_bundles_are_read_or_refused(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        described(bundle.parse(raw))


PLACES: list[list[Any]] = [
    ["annotations"],
    ["linux"],
    ["linux", "cgroupsPath"],
    ["linux", "namespaces"],
    ["linux", "namespaces", 0],
    ["linux", "namespaces", 0, "type"],
    ["linux", "namespaces", 0, "path"],
    ["process"],
    ["process", "terminal"],
]
ANNOTATIONS: list[list[Any]] = [
    ["annotations", name] for raw in REAL.values() for name in bundle.parse(raw).annotations
]


@given(
    st.sampled_from(list(REAL.values())),
    st.sampled_from(PLACES) | st.sampled_from(ANNOTATIONS),
    JSON,
)
def test_anything_may_be_in_the_place_of_what_is_read_of_a_real_bundle(
    raw: bytes, place: list[Any], instead: Any
) -> None:
    whole = json.loads(raw)
    inner = whole
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = instead

    described(bundle.parse(json.dumps(whole).encode()))
