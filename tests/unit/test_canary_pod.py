"""The canary pods' script without a cluster: its kubectl is played."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exectrail.compliance import canary
from exectrail.errors import UsageError
from tests.unit.scripts import load

IMAGE = "registry.example.org/tools:1"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    loaded = load("canary_pod")
    loaded.READY_SECONDS = 0  # type: ignore[attr-defined]
    return loaded


def _node(name: str, *addresses: str, label: str = "") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": label} if label else {}},
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }


def _status(**container: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"state": container}]}}


READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


class Cluster:
    """Plays kubectl; `seen` is what the pods look like, `broken` are words that fail."""

    def __init__(self, failed: type[Exception], seen: dict[str, Any], **broken: str) -> None:
        self.failed = failed
        self.seen = seen
        self.broken = broken
        self.pods: dict[str, Any] = {}
        self.old: list[dict[str, Any]] = []
        self.entered: list[tuple[str, ...]] = []
        self.removed: list[str] = []

    def __call__(self, *words: str, data: str = "") -> str:
        if words[0] in self.broken:
            raise self.failed(self.broken[words[0]])
        if words[0] == "apply":
            self.pods = {each["metadata"]["name"]: each for each in json.loads(data)["items"]}
        elif words[0] == "exec":
            self.entered.append(words)
        elif words[0] == "delete":
            names = [word for word in words[2:] if not word.startswith("--")]
            self.removed += names
            self.pods = {name: each for name, each in self.pods.items() if name not in names}
        return ""

    def json(self, *words: str) -> dict[str, Any]:
        if words[1] == "nodes":
            return {"items": [_node("k1", "192.0.2.1"), _node("k2", "192.0.2.2")]}
        rows = [
            {"metadata": each["metadata"], **self.seen.get(each["spec"]["nodeName"], READY)}
            for each in self.pods.values()
        ]
        return {"items": self.old + rows}


@pytest.fixture
def play(module: ModuleType) -> Callable[..., tuple[dict[str, Any], Cluster]]:
    def run(
        seen: dict[str, Any] | None = None, old: Any = (), **broken: str
    ) -> tuple[dict[str, Any], Cluster]:
        cluster = Cluster(module.Failed, seen or {}, **broken)
        cluster.old = list(old)
        hosts = {"one": ["one", "192.0.2.1"], "two": ["two", "192.0.2.2"], "logs": ["192.0.2.9"]}
        return module.run(canary.request(IMAGE, "audit", hosts), cluster), cluster

    return run


def test_every_node_of_the_cluster_is_entered_and_the_pod_removed(play: Any) -> None:
    rows, cluster = play()

    assert {host: row["node"] for host, row in rows.items()} == {"one": "k1", "two": "k2"}
    assert not any(row["problem"] for row in rows.values())
    assert len({row["pod"] for row in rows.values()}) == 2
    assert sorted(cluster.removed) == sorted(row["pod"] for row in rows.values())
    assert cluster.pods == {}
    for row in rows.values():
        (words,) = [each for each in cluster.entered if each[1] == row["pod"]]
        assert any(row["mark"] in word for word in words[words.index("--") :])


def test_a_pod_that_never_comes_says_why_and_the_other_is_entered(play: Any) -> None:
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    rows, cluster = play({"k2": _status(waiting=waiting)})

    assert rows["one"]["problem"] == ""
    assert IMAGE in rows["two"]["problem"]
    assert "not found" in rows["two"]["problem"]
    assert len(cluster.removed) == 2


@pytest.mark.parametrize("word", ["exec", "apply"])
def test_what_kubectl_refuses_is_passed_on_and_everything_removed(play: Any, word: str) -> None:
    rows, cluster = play(**{word: "forbidden: because"})

    assert {row["problem"] for row in rows.values()} == {"forbidden: because"}
    assert len(cluster.removed) == 2


def test_pods_that_can_not_be_removed_are_told_of(play: Any) -> None:
    rows, _ = play(delete="no answer")

    assert {row["problem"] for row in rows.values()} == {"its pod can't be removed: no answer"}


def test_pods_are_removed_when_the_run_is_ended(module: ModuleType, play: Any) -> None:
    def stop(*_: Any) -> None:
        raise SystemExit

    enter, module.enter = module.enter, stop  # type: ignore[attr-defined]
    removed: list[str] = []
    remove, module.remove = module.remove, lambda _, names: removed.extend(names)  # type: ignore[attr-defined]
    try:
        with pytest.raises(SystemExit):
            play()
    finally:
        module.enter, module.remove = enter, remove  # type: ignore[attr-defined]

    assert len(removed) == 2


def test_only_pods_whose_time_is_over_are_left_overs(play: Any) -> None:
    def old(name: str, made: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "creationTimestamp": made}}

    _, cluster = play(
        old=[old("old", "2020-01-01T00:00:00Z"), old("at-work", "2999-01-01T00:00:00Z")]
    )

    assert "old" in cluster.removed
    assert "at-work" not in cluster.removed


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (READY, "ready"),
        ({"status": {}}, "waiting"),
        ({}, "waiting"),
        (_status(waiting={"reason": "ContainerCreating"}), "waiting"),
        (
            _status(waiting={"reason": "InvalidImageName", "message": "bad"}),
            f"the image {IMAGE} can't be pulled: bad",
        ),
        (
            _status(waiting={"reason": "RunContainerError", "message": "no sh"}),
            "its container can't be started: no sh",
        ),
        (
            _status(terminated={"reason": "Error", "exitCode": 1}),
            "its container has ended at once: Error",
        ),
        (
            {"status": {"phase": "Failed", "message": "Too many pods"}},
            "the node did not take it: Too many pods",
        ),
    ],
)
def test_what_a_pod_looks_like(module: ModuleType, seen: dict[str, Any], told: str) -> None:
    assert module.state(seen, IMAGE) == told


@pytest.mark.parametrize(
    ("names", "node"),
    [
        (["k1"], "k1"),
        (["other", "192.0.2.1"], "k1"),
        (["host-1"], "k1"),
        (["k2", "192.0.2.1"], "k2"),
        (["192.0.2.7"], None),
        (["192.0.2.99"], None),
    ],
)
def test_a_host_is_the_node_that_has_a_name_of_it(
    module: ModuleType, names: list[str], node: str | None
) -> None:
    nodes = [
        _node("k1", "192.0.2.1", "192.0.2.7", label="host-1"),
        _node("k2", "192.0.2.2", "192.0.2.7"),
    ]

    assert module.nodes_of({"h": names}, nodes).get("h") == node


def test_a_pod_may_do_nothing(module: ModuleType) -> None:
    made = module.pod("p", "k1", "m", canary.request(IMAGE, "audit", {}))
    (container,) = made["spec"]["containers"]

    # What the restricted pod security standard asks for.
    assert made["spec"]["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert made["spec"]["automountServiceAccountToken"] is False
    assert 0 < made["spec"]["activeDeadlineSeconds"] <= 300
    assert not {"hostNetwork", "hostPID", "hostIPC", "volumes"} & made["spec"].keys()


def test_a_machine_that_is_no_master_says_so_for_every_host(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KUBECONFIG", "/nonexistent")
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)

    answer = module.main(canary.request(IMAGE, "audit", {"a": ["a"], "b": ["b"]}))

    assert {each["problem"] for each in answer["hosts"].values()} == {
        "this master has no /nonexistent"
    }


def test_what_became_of_them_is_kept_with_the_run(tmp_path: Path) -> None:
    assert canary.load(tmp_path) == {}
    row = {"mark": "m", "namespace": "n", "pod": "p", "container": "c", "node": "k", "problem": ""}

    canary.keep(tmp_path, {"hosts": {"one": row}})

    assert canary.load(tmp_path)["one"].pod == "p"
    with pytest.raises(UsageError):
        canary.keep(tmp_path, {"hosts": {"one": {}}})
