from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.containers import pods
from tests.unit.agent.containers.tree import probe

POD = {
    "metadata": {
        "uid": "uid-1",
        "labels": {"app": "web"},
        "annotations": {"kubernetes.io/config.hash": "hash-1"},
    },
    "spec": {
        "containers": [
            {
                "name": "main",
                "livenessProbe": {"exec": {"command": ["cat", "/live"]}, "periodSeconds": 5},
                "readinessProbe": {"httpGet": {"path": "/"}},
                "startupProbe": {"exec": {"command": ["/bin/true"]}},
                "lifecycle": {
                    "postStart": {"exec": {"command": ["a", "b c"]}},
                    "preStop": {"exec": {"command": ["z"]}},
                },
            }
        ],
        "initContainers": [{"name": "prepare"}],
        "ephemeralContainers": [{"name": "look", "targetContainerName": "main"}],
    },
}


def parse(*items: Any) -> dict[str, pods.PodFacts]:
    return pods.parse(json.dumps({"kind": "PodList", "items": items}).encode())


def test_what_a_specification_says() -> None:
    facts = parse(POD)["uid-1"]
    assert facts.labels == {"app": "web"}
    assert facts.kinds == {"main": "container", "prepare": "init", "look": "ephemeral"}
    assert facts.probes == {
        "main": (
            probe("liveness", "cat", "/live"),
            probe("startup", "/bin/true"),
            probe("postStart", "a", "b c"),
            probe("preStop", "z"),
        ),
        "prepare": (),
        "look": (),
    }


def test_a_static_pod_is_also_found_by_the_uid_on_the_node() -> None:
    found = parse(POD)
    assert found["hash-1"] is found["uid-1"]


def test_nobody_takes_anothers_uid_by_a_forged_hash() -> None:
    other: Any = {
        "metadata": {"uid": "evil", "annotations": {"kubernetes.io/config.hash": "uid-1"}}
    }
    assert parse(POD, other)["uid-1"].labels == {"app": "web"}
    assert parse(other, POD)["uid-1"].labels == {"app": "web"}
    other["metadata"]["annotations"] = {"kubernetes.io/config.hash": "hash-1"}
    assert "hash-1" not in parse(other, POD)


@pytest.mark.parametrize("raw", [b'{"items": null}', b"{}", b'{"items": [1, {"spec": []}]}'])
def test_lists_without_pods(raw: bytes) -> None:
    assert pods.parse(raw) == {}


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"items": {}}', b"<html>"])
def test_what_is_no_list_of_pods(raw: bytes) -> None:
    with pytest.raises(ValueError):
        pods.parse(raw)


STRANGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "uid", "labels", "spec", "containers", "name", "command"])
            | st.sampled_from(["livenessProbe", "lifecycle", "exec", "postStart", "annotations"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(st.lists(STRANGE, max_size=3))
def test_no_pod_is_too_strange(items: list[Any]) -> None:
    for facts in parse(*items).values():
        assert set(facts.probes) == set(facts.kinds)
