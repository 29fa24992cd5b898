"""The checks of the cluster's version and type, and of the static-pod folder."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.compliance.nodes import judge, node


@pytest.mark.parametrize(
    ("system", "version", "status"),
    [
        ("alinux", "1.18.0", "pass"),
        ("alinux", "1.17.17", "fail"),
        ("lifsea", "1.24.6-aliyun.1", "pass"),
        ("lifsea", "1.23.9", "fail"),
        ("ubuntu", "v1.30.0", "pass"),
        ("ubuntu", "1.30.2+k3s1", "pass"),
        ("ubuntu", "1.29.15", "fail"),
        ("ubuntu", "2.0.0", "pass"),
        ("ubuntu", None, "skip"),
        ("ubuntu", "latest", "error"),
        ("ubuntu", {"unreadable": "x"}, "error"),
        ("debian", "1.10.0", "skip"),
    ],
)
def test_cluster_version_of_ack(system: str, version: Any, status: str) -> None:
    items = {"os.release": {"ID": system}, "kubernetes.version": version}
    result = judge("cluster.version", node(items=items), "ack")
    assert result.status == status, result


@pytest.mark.parametrize(
    ("version", "status"), [("1.18.0", "pass"), ("1.17.9", "fail"), (None, "skip")]
)
def test_cluster_version_for_every_system(version: str | None, status: str) -> None:
    result = judge("cluster.version", node(items={"kubernetes.version": version}))
    assert result.status == status
    assert result.expected == "Kubernetes 1.18 or later"


def test_cluster_version_lists_what_is_expected_where() -> None:
    assert judge("cluster.version", node(), "ack").expected == (
        "Kubernetes 1.18 or later on alinux, 1.24 or later on lifsea, 1.30 or later on ubuntu"
    )


def test_an_unreadable_system_does_not_matter_without_a_kubelet() -> None:
    items = {"os.release": {"unreadable": "x"}}
    assert judge("cluster.version", node(items=items), "ack").status == "skip"


KUBELET = {"version": "1.30.2"}


@pytest.mark.parametrize(
    ("declared", "kubelet", "distribution", "role", "status", "says"),
    [
        ("managed-pro", KUBELET, "ack", "worker", "pass", "is managed-pro, as declared"),
        ("managed-basic", KUBELET, "unknown", "worker", "pass", "as declared"),
        ("dedicated", KUBELET, "ack", "master", "pass", "as declared"),
        ("dedicated", KUBELET, "kubeadm", "master", "pass", "as declared"),
        ("dedicated", None, "none", "none", "pass", "no kubelet yet"),
        ("managed-pro", KUBELET, "ack", "master", "fail", "has a control plane"),
        ("managed-basic", KUBELET, "ack", "master", "fail", "has a control plane"),
        ("dedicated", KUBELET, "k3s", "master", "fail", "runs k3s, not dedicated"),
        ("managed-pro", KUBELET, "managed", "worker", "fail", "runs managed, not managed-pro"),
        ("managed-pro", KUBELET, "rke2", "worker", "fail", "runs rke2"),
        ("managed-pro", KUBELET, "k0s", "worker", "fail", "runs k0s"),
        ("edge", KUBELET, "ack", "worker", "fail", "'edge' is not supported"),
        ("edge", None, "none", "none", "fail", "'edge' is not supported"),
        (7, KUBELET, "ack", "worker", "error", "not text but 7"),
        (None, None, "none", "none", "skip", "no kubelet on this node yet"),
        (None, KUBELET, "ack", "master", "pass", "is dedicated"),
        (None, KUBELET, "ack", "worker", "error", "not declared"),
        (None, KUBELET, "unknown", "worker", "error", "not declared"),
        (None, KUBELET, "unknown", "master", "error", "not declared"),
        (None, KUBELET, "?", "master", "error", "not declared"),
        (None, KUBELET, "ack", "?", "error", "not declared"),
        ("managed-pro", KUBELET, "ack", "?", "pass", "as declared"),
        (None, KUBELET, "kubeadm", "worker", "fail", "a cluster of kubeadm"),
        (None, KUBELET, "k3s", "worker", "fail", "a cluster of k3s"),
        (None, KUBELET, "managed", "worker", "fail", "a cluster of managed"),
        ("managed-pro", {"unreadable": "x"}, "ack", "worker", "error", "kubelet: x"),
        ("managed-pro", KUBELET, {"unreadable": "x"}, "worker", "error", "distribution: x"),
        ("managed-pro", KUBELET, "ack", {"unreadable": "x"}, "error", "role: x"),
        (None, KUBELET, "ack", {"unreadable": "x"}, "error", "role: x"),
        (None, KUBELET, "k3s", {"unreadable": "x"}, "fail", "a cluster of k3s"),
    ],
)
def test_cluster_type(  # noqa: PLR0913, PLR0917  one column each
    declared: Any, kubelet: Any, distribution: Any, role: Any, status: str, says: str
) -> None:
    judged = node(
        items={
            "kubelet": kubelet,
            "kubernetes.distribution": distribution,
            "kubernetes.role": role,
        },
        variables={} if declared is None else {"cluster_type": declared},
    )
    result = judge("cluster.type", judged, "ack")
    assert (result.status, says in result.message) == (status, True), result


def test_an_undeclared_type_is_answered_by_how_to_declare_it() -> None:
    judged = node(items={"kubelet": KUBELET, "kubernetes.distribution": "ack"})
    fix = judge("cluster.type", judged, "ack").remediation
    assert "preflight_cluster_type" in fix
    assert "managed-pro" in fix


def entry(name: str, pod: str | None = None, kind: str = "file") -> dict[str, Any]:
    return {"name": name, "type": kind, "pod": pod, "hidden": name.startswith(".")}


API = entry("kube-apiserver.yaml", "kube-apiserver")


@pytest.mark.parametrize(
    ("files", "status", "says"),
    [
        ([], "pass", "empty"),
        ([API, entry("etcd.yaml", "etcd")], "pass", "kube-apiserver; etcd"),
        ([API, entry(".kube-apiserver.yaml.swp")], "pass", "kube-apiserver"),
        ([API, entry(".backup", kind="directory")], "pass", "kube-apiserver"),
        ([entry("vip", "kube-vip", kind="symlink")], "pass", "kube-vip"),
        ([API, entry("kube-apiserver.yaml.bak", "kube-apiserver")], "fail", "one of 2 files"),
        ([API, entry("kube-apiserver.yaml~", "kube-apiserver")], "fail", "kube-apiserver.yaml~"),
        ([API, entry("notes.txt")], "fail", "notes.txt (no pod)"),
        ([entry("link", kind="symlink")], "fail", "link (no pod)"),
        ([API, entry("miner.yaml", "miner")], "fail", "miner.yaml (the pod miner)"),
        ([entry("miner.yaml", "miner"), entry("x", kind="fifo")], "fail", "the pod miner"),
        ([API, entry("old", kind="directory")], "warn", "old (directory)"),
        ([API, entry("pipe", kind="fifo")], "warn", "pipe (fifo)"),
        ([API, entry("s", kind="socket")], "warn", "s (socket)"),
    ],
)
def test_static_pods(files: list[dict[str, Any]], status: str, says: str) -> None:
    folder = {"path": "/etc/kubernetes/manifests", "files": files}
    result = judge("node.static-pods", node(items={"kubelet.static_pods": folder}))
    assert (result.status, says in result.observed) == (status, True), result


def test_both_files_of_one_pod_are_named() -> None:
    files = [API, entry("copy.yaml", "kube-apiserver")]
    folder = {"path": "/etc/kubernetes/manifests", "files": files}
    result = judge("node.static-pods", node(items={"kubelet.static_pods": folder}))
    assert "kube-apiserver.yaml (" in result.observed
    assert "copy.yaml (" in result.observed
    assert result.message == (
        "/etc/kubernetes/manifests holds what does not belong there: kube-apiserver.yaml "
        "(one of 2 files of the pod kube-apiserver); and 1 more."
    )


def test_a_node_without_the_folder_is_skipped() -> None:
    assert judge("node.static-pods", node(items={"kubelet.static_pods": None})).status == "skip"
