"""What each runtime's own words for a container become."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.containers import bundle, containerd, crio, docker, storage
from exectrail_agent.containers.model import Container, Pod, Probe
from tests.unit.agent.containers.test_bundle import JSON
from tests.unit.agent.containers.tree import A, B, config, cri

UNKNOWN = Container(A, "containerd", A, "", "")
POD = Pod("shop", "web", "uid-1")
KUBELET = {
    "io.kubernetes.pod.name": "web",
    "io.kubernetes.pod.namespace": "shop",
    "io.kubernetes.pod.uid": "uid-1",
}
REAL = Path(__file__).parents[3] / "fixtures/agent/cri-o-1.36"
"""Bundles that CRI-O 1.36.3 has made, cut down to what says whose they are."""
CRIO_CONTAINER = json.loads((REAL / "container.json").read_text())
CRIO_SANDBOX = json.loads((REAL / "sandbox.json").read_text())
CRIO_POD = Pod("shop", "web", "6b1c5d2e-3f0a-4a51-9c7e-1d2f3a4b5c6d")


def made(data: dict[str, Any]) -> bundle.Bundle:
    return bundle.parse(json.dumps(data).encode())


def test_containerd_container_of_a_pod() -> None:
    found = containerd.describe(UNKNOWN, made(config(f"/kubepods/pod1/{A}", cri("main"))))
    assert found == Container(
        A, "containerd", "main", "registry/image:1", f"/kubepods/pod1/{A}", pod=POD
    )


def test_containerd_sandbox() -> None:
    found = containerd.describe(UNKNOWN, made(config("", cri())))
    assert (found.kind, found.name, found.pod) == ("sandbox", "POD", POD)


def test_containerd_without_a_pod_goes_by_its_own_name() -> None:
    assert containerd.describe(UNKNOWN, made(config())).name == A
    named = made(config(annotations={"nerdctl/name": "web"}))
    found = containerd.describe(UNKNOWN, named)
    assert (found.name, found.pod, found.kind) == ("web", None, "container")


def test_crio_container() -> None:
    found = crio.describe(UNKNOWN, made(CRIO_CONTAINER))
    image = "registry.example/tools:1"
    assert found == Container(A, "cri-o", "seat", image, "", interactive=True, pod=CRIO_POD)


def test_crio_container_without_a_standard_input_is_not_interactive() -> None:
    own = {**CRIO_CONTAINER["annotations"], "io.kubernetes.cri-o.Stdin": "false"}
    assert not crio.describe(UNKNOWN, made(config(annotations=own, terminal=True))).interactive


def test_crio_sandbox_has_the_pods_labels() -> None:
    found = crio.describe(UNKNOWN, made(CRIO_SANDBOX))
    assert found.kind == "sandbox"
    assert found.pod == replace(CRIO_POD, labels={"app": "web"})


def test_a_pods_author_cannot_make_its_sandbox_anothers() -> None:
    forged = {
        **CRIO_SANDBOX["annotations"],
        "io.container.manager": "libpod",
        "io.kubernetes.cri-o.Namespace": "kube-system",
        "io.kubernetes.cri-o.KubeName": "etcd",
        "io.kubernetes.cri-o.Labels": "[",
        "io.kubernetes.cri.sandbox-name": "etcd",
    }
    sandbox = made(config(annotations=forged))
    assert crio.made(sandbox)
    assert crio.describe(UNKNOWN, sandbox).pod == CRIO_POD


def test_docker_layout_fixture() -> None:
    data = {"Name": "/web", "Config": {"Image": "nginx:1", "Tty": True, "OpenStdin": True}}
    found = docker.describe(UNKNOWN, json.dumps(data).encode())
    assert (found.name, found.image, found.interactive, found.pod) == ("web", "nginx:1", True, None)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        ({"Healthcheck": {"Test": ["CMD", "cat", "/ok"]}}, ("cat", "/ok")),
        ({"Healthcheck": {"Test": ["CMD-SHELL", "cat /ok"]}}, ("/bin/sh", "-c", "cat /ok")),
        (
            {"Healthcheck": {"Test": ["CMD-SHELL", "cat /ok"]}, "Shell": ["/bin/bash", "-c"]},
            ("/bin/bash", "-c", "cat /ok"),
        ),
        ({"Healthcheck": {"Test": ["NONE"]}}, None),
        ({"Healthcheck": {"Test": "CMD"}}, None),
        ({}, None),
    ],
)
def test_dockers_health_check_is_a_probe(
    config: dict[str, Any], command: tuple[str, ...] | None
) -> None:
    found = docker.describe(UNKNOWN, json.dumps({"Config": config}).encode())
    assert found.probes == ((Probe("health", command),) if command else ())


@pytest.mark.parametrize(("kind", "name"), [("container", "main"), ("podsandbox", "POD")])
def test_docker_under_a_kubelet_layout_fixture(kind: str, name: str) -> None:
    labels = {
        **KUBELET,
        "io.kubernetes.docker.type": kind,
        "io.kubernetes.container.name": "main" if kind == "container" else "POD",
    }
    data = {"Name": "/k8s_main_web", "Config": {"Image": "sha256:1", "Labels": labels}}
    found = docker.describe(UNKNOWN, json.dumps(data).encode())
    assert (found.name, found.pod) == (name, POD)
    assert found.kind == ("container" if kind == "container" else "sandbox")


def test_podman_names_come_from_the_storages_table() -> None:
    table = [
        {"id": B, "names": ["other"], "metadata": "{}"},
        {"id": A, "names": ["web"], "metadata": json.dumps({"image-name": "nginx:1"})},
    ]
    found = storage.named(UNKNOWN, json.dumps(table).encode())
    assert (found.name, found.image) == ("web", "nginx:1")
    assert storage.named(Container("x", "podman", "x", "", ""), b"[]").name == "x"


@pytest.mark.parametrize("row", [{}, {"names": "x"}, {"names": [1]}, {"metadata": "["}])
def test_podman_rows_of_a_strange_kind(row: dict[str, Any]) -> None:
    found = storage.named(UNKNOWN, json.dumps([1, None, {"id": A, **row}]).encode())
    assert (found.name, found.image) == (A, "")


@given(JSON)
def test_no_runtimes_words_are_too_strange(data: Any) -> None:
    raw = json.dumps(data).encode()
    try:
        docker.describe(UNKNOWN, raw)
        docker.describe(UNKNOWN, b'{"Config": ' + raw + b"}")
        storage.named(UNKNOWN, raw)
    except ValueError:
        assert not isinstance(data, dict)


@given(
    st.dictionaries(
        st.sampled_from([*CRIO_CONTAINER["annotations"], *CRIO_SANDBOX["annotations"], *cri("x")]),
        st.text(),
    ),
    st.text(),
)
def test_no_annotations_are_too_strange(annotations: dict[str, str], path: str) -> None:
    strange = bundle.Bundle(annotations, path)
    for found in (containerd.describe(UNKNOWN, strange), crio.describe(UNKNOWN, strange)):
        assert found.kind in ("container", "sandbox")
        assert found.name
        assert found.pod is None or found.pod.name
