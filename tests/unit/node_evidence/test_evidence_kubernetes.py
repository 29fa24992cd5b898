"""Container runtimes, image accelerators, kubelet and Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import Directory, Fifo, Link, Program, Socket, Sparse, systemctl

# --- runtimes ---

CONTAINERD = {
    "/usr/bin/containerd": Program(
        "echo containerd github.com/containerd/containerd v1.7.2 0cae528dd6cb"
    ),
    "/run/containerd/containerd.sock": Socket(),
}
CRI = 'plugins."io.containerd.grpc.v1.cri".containerd'


def runtime(**values: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("binary", "version", "socket", "config", "snapshotter", "cgroup_driver"))
    return {**empty, "proxy_plugins": [], **values}


def test_no_runtime(item: Callable[..., Any]) -> None:
    assert item("runtimes") == []


def test_containerd_without_a_configuration(item: Callable[..., Any]) -> None:
    assert item("runtimes", CONTAINERD) == [
        runtime(
            name="containerd",
            binary="/usr/bin/containerd",
            version="1.7.2",
            socket="/run/containerd/containerd.sock",
            snapshotter="overlayfs",
            cgroup_driver="cgroupfs",
        )
    ]


@pytest.mark.parametrize(
    ("config", "snapshotter", "driver"),
    [
        (f'[{CRI}]\nsnapshotter = "overlaybd"\n', "overlaybd", "cgroupfs"),
        (f"[{CRI}.runtimes.runc.options]\nSystemdCgroup = true\n", "overlayfs", "systemd"),
        (f'[{CRI}.runtimes.kata]\nsnapshotter = "nydus"\n', "overlayfs", "cgroupfs"),
        (
            "version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'nydus'\n",
            "nydus",
            "cgroupfs",
        ),
        ('[plugins.cri.containerd]\nsnapshotter = "zfs"\n', "zfs", "cgroupfs"),
        ("snapshotter = 1\n[=]\n= 3\n\x1b[", "overlayfs", "cgroupfs"),
    ],
)
def test_containerd_settings(
    item: Callable[..., Any], config: str, snapshotter: str, driver: str
) -> None:
    (got,) = item("runtimes", {**CONTAINERD, "/etc/containerd/config.toml": config})
    assert (got["snapshotter"], got["cgroup_driver"]) == (snapshotter, driver)
    assert got["config"] == "/etc/containerd/config.toml"


def test_containerd_imports_and_proxy_plugins(item: Callable[..., Any]) -> None:
    files = {
        **CONTAINERD,
        "/etc/containerd/config.toml": 'imports = ["/etc/containerd/conf.d/*.toml", "b.toml"]\n',
        "/etc/containerd/conf.d/a.toml": '[proxy_plugins.nydus]\ntype = "snapshot"\n'
        'address = "/run/containerd-nydus/containerd-nydus-grpc.sock"\n',
        "/etc/containerd/conf.d/a.toml.bak": '[proxy_plugins.no]\ntype = "snapshot"\n',
        "/etc/containerd/b.toml": "[proxy_plugins.odd]\ntype = 3\n",
    }
    (got,) = item("runtimes", files)
    assert got["proxy_plugins"] == [
        {
            "name": "nydus",
            "type": "snapshot",
            "address": "/run/containerd-nydus/containerd-nydus-grpc.sock",
        },
        {"name": "odd", "type": "3", "address": None},
    ]


def test_other_runtimes(item: Callable[..., Any]) -> None:
    files = {
        "/usr/bin/crio": Program("echo crio version 1.28.1"),
        "/etc/crio/crio.conf": "[crio.runtime]\n",
        "/etc/crio/crio.conf.d/01.conf": '[crio.runtime]\ncgroup_manager = "cgroupfs"\n',
        "/usr/bin/dockerd": Program("echo Docker version 24.0.5, build ced0996"),
        "/etc/docker/daemon.json": '{"exec-opts": [1, "native.cgroupdriver=systemd"]}',
        "/usr/bin/podman": Program("echo podman version 4.3.1"),
    }
    got = {row["name"]: (row["version"], row["cgroup_driver"]) for row in item("runtimes", files)}
    assert got == {
        "cri-o": ("1.28.1", "cgroupfs"),
        "docker": ("24.0.5", "systemd"),
        "podman": (None, None),  # a third program would be one too many
    }


def test_a_runtime_that_fails_has_no_version(item: Callable[..., Any]) -> None:
    (got,) = item("runtimes", {"/usr/bin/containerd": Program("exit 1")})
    assert got["version"] is None


def test_a_configuration_that_cannot_be_read(item: Callable[..., Any]) -> None:
    files = {**CONTAINERD, "/etc/containerd/config.toml": Fifo()}
    for name in ("runtimes", "accelerators"):
        assert "not a regular file but a fifo" in item(name, files)["unreadable"]
        files = {"/proc/1/mountinfo": ""}


# --- accelerators ---


@pytest.mark.parametrize(
    ("files", "name", "where"),
    [
        (
            {"/etc/containerd/config.toml": f'[{CRI}]\nsnapshotter = "overlaybd"\n'},
            "overlaybd",
            "snapshotter = overlaybd",
        ),
        (
            {
                "/etc/containerd/config.toml": "[proxy_plugins.dadi]\ntype = 'snapshot'\n"
                "address = '/run/overlaybd-snapshotter/overlaybd.sock'\n"
            },
            "overlaybd",
            "proxy_plugins.dadi.address",
        ),
        (
            systemctl({"nydus-snapshotter.service": ("loaded", "enabled", "active")}),
            "nydus",
            "unit nydus-snapshotter.service (active)",
        ),
        ({"/opt/overlaybd/bin/overlaybd-tcmu": Program("")}, "overlaybd", "overlaybd-tcmu"),
        (
            {
                "/etc/containers/storage.conf": "[storage.options]\n"
                'additionallayerstores = ["/var/lib/stargz-store/store:ref"]\n'
            },
            "stargz",
            "/etc/containers/storage.conf",
        ),
        (
            {
                "/proc/1/mountinfo": "1 2 0:3 / /var/lib/soci-snapshotter-grpc/snapshotter/1/fs"
                " rw - fuse.rawBridge soci rw\n"
            },
            "soci",
            "mount /var/lib/soci-snapshotter-grpc/snapshotter/1/fs",
        ),
    ],
)
def test_accelerator(
    item: Callable[..., Any], files: dict[str, Any], name: str, where: str
) -> None:
    (got,) = item("accelerators", {"/proc/1/mountinfo": "", **files})
    assert got["name"] == name
    assert where in got["where"]


def test_no_accelerator(item: Callable[..., Any]) -> None:
    files = {
        **systemctl({"stargz-snapshotter.service": ("masked", "masked", "inactive")}),
        **CONTAINERD,
        "/proc/1/mountinfo": "",
    }
    assert item("accelerators", files) == []


# --- kubelet ---

KUBELET: dict[str, Any] = {
    "/usr/bin/kubelet": Program("echo Kubernetes v1.30.2"),
    "/proc/1/comm": "systemd\n",
    "/proc/50/comm": "kubelet\n",
    "/proc/50/cmdline": b"/usr/bin/kubelet\0--config=/var/lib/kubelet/config.yaml\0"
    b"--kubeconfig\0/etc/kubernetes/kubelet.conf\0--bootstrap-token=abc\0",
    "/var/lib/kubelet/config.yaml": "cgroupDriver: systemd\n"
    "staticPodPath: /etc/kubernetes/manifests\n"
    "providerID: cn-hangzhou.i-bp1abc\n",
    "/etc/kubernetes/kubelet.conf": "clusters:\n- cluster:\n    server: https://10.0.0.1:6443\n",
}
APISERVER = "metadata:\n  name: kube-apiserver\nspec:\n  containers:\n  - image: {}\n"
MASTER: dict[str, Any] = {
    **KUBELET,
    "/etc/kubernetes/manifests/kube-apiserver.yaml": APISERVER.format(
        "r.k8s.io/kube-apiserver:v1.31.4"
    ),
}


def test_no_kubelet(item: Callable[..., Any]) -> None:
    files = {"/proc/1/comm": "systemd\n"}
    assert item("kubelet", files) is None
    assert item("kubelet.static_pods") is None
    assert item("kubernetes.role") == "none"
    assert item("kubernetes.version") is None
    assert item("kubernetes.distribution") == "none"
    assert item("kubernetes.storage") is None


def test_kubelet(item: Callable[..., Any]) -> None:
    assert item("kubelet", KUBELET) == {
        "binary": "/usr/bin/kubelet",
        "version": "1.30.2",
        "running": True,
        "arguments": [
            "/usr/bin/kubelet",
            "--config=/var/lib/kubelet/config.yaml",
            "--kubeconfig",
            "/etc/kubernetes/kubelet.conf",
            "--bootstrap-token=***",
        ],
        "config": "/var/lib/kubelet/config.yaml",
        "static_pod_path": "/etc/kubernetes/manifests",
        "cgroup_driver": "systemd",
        "kubeconfig": "/etc/kubernetes/kubelet.conf",
        "server": "https://10.0.0.1:6443",
        "provider_id": "cn-hangzhou.i-bp1abc",
    }


def test_a_kubelet_that_does_not_run(item: Callable[..., Any]) -> None:
    files = {"/usr/bin/kubelet": Program("exit 1"), "/proc/1/comm": "systemd\n"}
    assert item("kubelet", files) == {
        "binary": "/usr/bin/kubelet",
        "version": None,
        "running": False,
        "arguments": [],
        "config": None,
        "static_pod_path": None,
        "cgroup_driver": "cgroupfs",
        "kubeconfig": None,
        "server": None,
        "provider_id": None,
    }
    assert item("kubernetes.role") == "worker"
    assert list(item("kubernetes.version")) == ["unreadable"]


def test_flags_and_drop_ins_win_over_the_configuration_file(item: Callable[..., Any]) -> None:
    files = {
        **KUBELET,
        "/proc/50/cmdline": b"kubelet\0--config-dir=/etc/kubelet.d\0--pod-manifest-path=/pods\0",
        "/etc/kubelet.d/10.conf": "cgroupDriver: cgroupfs\nstaticPodPath: /other\n",
    }
    got = item("kubelet", files)
    assert (got["static_pod_path"], got["cgroup_driver"]) == ("/pods", "cgroupfs")


def test_a_kubelet_of_a_container_is_not_the_nodes(item: Callable[..., Any]) -> None:
    files = {
        "/proc/1/comm": "systemd\n",
        "/proc/1/ns/pid": Link("pid:[1]"),
        "/proc/50/comm": "kubelet\n",
        "/proc/50/ns/pid": Link("pid:[2]"),
    }
    assert item("kubelet", files) is None


@pytest.mark.parametrize(
    "path", ["/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet.conf", "/proc/50/cmdline"]
)
def test_an_unreadable_file_makes_everything_about_the_kubelet_unreadable(
    item: Callable[..., Any], path: str
) -> None:
    files = {**KUBELET, path: Sparse(1 << 30)}
    for name in ("kubelet", "kubernetes.role", "kubernetes.version", "kubernetes.distribution"):
        assert path in item(name, files)["unreadable"]
        files = {}


def test_static_pods(item: Callable[..., Any]) -> None:
    manifests = "/etc/kubernetes/manifests/"
    files = {
        **MASTER,
        manifests + ".etcd.yaml.swp": "metadata:\n  name: hidden\n",
        manifests + "README": "not a pod\n",
        manifests + "backup": Directory(),
        manifests + "binary": b"\0\1",
        manifests + "link.yaml": Link("kube-apiserver.yaml"),
        manifests + "pipe": Fifo(),
        manifests + "sparse": Sparse(1 << 30),
        manifests + "dangling": Link("/nowhere"),
    }
    got = item("kubelet.static_pods", files)
    assert got["path"] == "/etc/kubernetes/manifests"
    image = "r.k8s.io/kube-apiserver:v1.31.4"
    assert [
        (row["name"], row["type"], row["pod"], row["image"], row["hidden"], "problem" in row)
        for row in got["files"]
    ] == [
        (".etcd.yaml.swp", "file", "hidden", None, True, False),
        ("README", "file", None, None, False, False),
        ("backup", "directory", None, None, False, False),
        ("binary", "file", None, None, False, True),
        ("dangling", "symlink", None, None, False, True),
        ("kube-apiserver.yaml", "file", "kube-apiserver", image, False, False),
        ("link.yaml", "symlink", "kube-apiserver", image, False, False),
        ("pipe", "fifo", None, None, False, False),
        ("sparse", "file", None, None, False, True),
    ]
    assert got["files"][-1]["size"] == 1 << 30


# --- Kubernetes ---


@pytest.mark.parametrize(
    ("files", "role"),
    [
        (MASTER, "master"),
        (KUBELET, "worker"),
        ({**KUBELET, "/proc/60/comm": "kube-apiserver\n"}, "master"),
        (
            {
                **KUBELET,
                "/etc/kubernetes/manifests/.kube-apiserver.yaml": APISERVER.format(
                    "kube-apiserver:1"
                ),
            },
            "worker",
        ),
        (
            {
                "/proc/1/comm": "systemd\n",
                "/usr/local/bin/k3s": Program("echo k3s version v1.30.2+k3s1"),
                "/proc/9/comm": "k3s-server\n",
                "/proc/9/cmdline": b"/usr/local/bin/k3s server\0",
                **systemctl({"k3s.service": ("loaded", "enabled", "active")}),
            },
            "master",
        ),
    ],
)
def test_role(item: Callable[..., Any], files: dict[str, Any], role: str) -> None:
    assert item("kubernetes.role", files) == role


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("registry.k8s.io/kube-apiserver:v1.31.4", "1.31.4"),
        ("registry:5000/x/kube-apiserver-amd64:v1.28.0-aliyun.1", "1.28.0"),
        ("registry.k8s.io/kube-apiserver:v1.31.4@sha256:" + "0" * 64, "1.31.4"),
        ("registry.k8s.io/kube-apiserver@sha256:" + "0" * 64, "1.30.2"),
        ("registry.k8s.io/kube-apiserver:latest", "1.30.2"),
    ],
)
def test_version(item: Callable[..., Any], image: str, version: str) -> None:
    files = {**MASTER, "/etc/kubernetes/manifests/kube-apiserver.yaml": APISERVER.format(image)}
    assert item("kubernetes.version", files) == version


def with_arguments(*arguments: str) -> dict[str, Any]:
    command = "\0".join(("kubelet", *arguments)).encode()
    config = {"/var/lib/kubelet/config.yaml": "cgroupDriver: systemd\n"}
    return {**KUBELET, **config, "/proc/50/cmdline": command}


@pytest.mark.parametrize(
    ("files", "distribution"),
    [
        (with_arguments(), "unknown"),
        ({**with_arguments(), "/var/lib/kubelet/kubeadm-flags.env": ""}, "kubeadm"),
        (
            {
                **with_arguments("--provider-id=aws:///us-east-1a/i-0abc"),
                "/var/lib/kubelet/kubeadm-flags.env": "",
            },
            "kubeadm",
        ),
        (with_arguments("--provider-id=gce://project/zone/name"), "managed"),
        (with_arguments("--node-labels=x=y,eks.amazonaws.com/nodegroup=a"), "managed"),
        (with_arguments("--node-labels", "ack.aliyun.com=c1234"), "ack"),
        (
            {
                **with_arguments("--provider-id=cn-hangzhou.i-bp1abc"),
                "/var/lib/kubelet/kubeadm-flags.env": "",
            },
            "ack",
        ),
        ({**with_arguments(), "/etc/rancher/rke2": Directory()}, "rke2"),
        ({**with_arguments(), "/etc/k0s": Directory()}, "k0s"),
        (
            {
                "/proc/1/comm": "init\n",
                "/usr/local/bin/k3s": Program("echo k3s version v1.30.2+k3s1"),
            },
            "k3s",
        ),
    ],
)
def test_distribution(item: Callable[..., Any], files: dict[str, Any], distribution: str) -> None:
    assert item("kubernetes.distribution", files) == distribution


KUBECTL = r"""
for argument; do case $argument in
  --kubeconfig=*/admin.conf) config=yes;; --cache-dir=/dev/null) cache=yes;; esac; done
[ "$config$cache" = yesyes ] || exit 9
printf 'PersistentVolume\tdata\tcpfsplugin.csi.alibabacloud.com\tcpfs-1.example\n'
printf 'PersistentVolume\told\t\t10.0.0.9\nPersistentVolume\tdisk\t\t\n'
printf 'StorageClass\tfast\tdiskplugin.csi.alibabacloud.com\t\n'
"""
ADMIN = {"/etc/kubernetes/admin.conf": "server: x\n"}


def test_storage(item: Callable[..., Any]) -> None:
    files = {**MASTER, **ADMIN, "/usr/bin/kubectl": Program(KUBECTL)}
    assert item("kubernetes.storage", files) == {
        "persistent_volumes": [
            {
                "name": "data",
                "driver": "cpfsplugin.csi.alibabacloud.com",
                "server": "cpfs-1.example",
            },
            {"name": "old", "driver": "nfs", "server": "10.0.0.9"},
            {"name": "disk", "driver": "in-tree"},
        ],
        "storage_classes": [{"name": "fast", "provisioner": "diskplugin.csi.alibabacloud.com"}],
    }


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({**ADMIN}, "no kubectl on this master"),
        ({"/usr/bin/kubectl": Program("")}, "no administrator's kubeconfig on this master"),
        (
            {**ADMIN, "/usr/bin/kubectl": Program("echo refused >&2; exit 1")},
            "exit code 1: refused",
        ),
        ({"/etc/kubernetes/admin.conf": Fifo(), "/usr/bin/kubectl": Program("")}, "fifo"),
    ],
)
def test_storage_that_cannot_be_asked_for(
    item: Callable[..., Any], files: dict[str, Any], why: str
) -> None:
    got = item("kubernetes.storage", {**MASTER, **files})
    assert list(got) == ["unreadable"]
    assert why in got["unreadable"]


def test_a_rare_driver_is_kept_among_many_volumes(ne: ModuleType) -> None:
    rows = [{"name": str(n), "driver": "common"} for n in range(500)]
    rows.append({"name": "x", "driver": "rare"})
    kept = ne.fewer(rows, "driver")
    assert len(kept) == 100
    assert {"name": "x", "driver": "rare"} in kept
