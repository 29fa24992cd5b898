"""kubeadm's configuration, and the steps by which nodes become a cluster."""

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import yaml

from lab.cluster import podman
from lab.cluster.layout import API_PORT, Cluster, Node
from lab.cluster.processes import finish
from lab.errors import LabError
from lab.images import recipes
from lab.kubernetes.binaries import Binaries
from lab.progress import say

_API = "kubeadm.k8s.io/v1beta4"
_CONFIGURATION = "etc/kubernetes/lab.yaml"
_DISCOVERY = "etc/kubernetes/lab-discovery.yaml"
# An API server waits 30 s for watches before it ends, which is most of each restart.
PATCHES = "etc/kubernetes/lab-patches"
_QUICK_END = {"spec": {"terminationGracePeriodSeconds": 2}}
_ETCD = {
    # Nothing here outlives its host's crash, and a busy disk would slow all down.
    "unsafe-no-fsync": "true",
    "heartbeat-interval": "500",
    "election-timeout": "2500",
}
_ELECTIONS = {
    "leader-elect-lease-duration": "40s",
    "leader-elect-renew-deadline": "30s",
    "leader-elect-retry-period": "8s",
}
_READY_SECONDS = 120
# What a container can't show or has less of than kubeadm asks for.
_IGNORED = ["Mem", "NumCPU", "Swap", "SystemVerification"]


@dataclass(frozen=True)
class Secrets:
    """What lets a node into the cluster; worth nothing after an hour or two."""

    token: str
    certificate_key: str


def new_secrets() -> Secrets:
    """Make secrets for one cluster."""
    return Secrets(f"{secrets.token_hex(3)}.{secrets.token_hex(8)}", secrets.token_hex(32))


def _arguments(options: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in options.items()]


def _registration(node: Node, *, schedulable: bool) -> dict[str, Any]:
    registration: dict[str, Any] = {
        "name": node.name,
        "criSocket": "unix:///run/containerd/containerd.sock",
        "kubeletExtraArgs": [{"name": "node-ip", "value": node.address}],
        "ignorePreflightErrors": _IGNORED,
        "imagePullPolicy": "Never",
    }
    return {**registration, "taints": []} if schedulable else registration


def init_documents(
    cluster: Cluster, binaries: Binaries, known: Secrets, *, systemd_cgroups: bool
) -> list[dict[str, Any]]:
    """Build the configuration of `kubeadm init` on the first master."""
    first = cluster.masters[0]
    return [
        {
            "apiVersion": _API,
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": known.token, "ttl": "1h0m0s"}],
            "certificateKey": known.certificate_key,
            "localAPIEndpoint": {"advertiseAddress": first.address, "bindPort": API_PORT},
            "nodeRegistration": _registration(first, schedulable=not cluster.workers),
            "patches": {"directory": f"/{PATCHES}"},
        },
        {
            "apiVersion": _API,
            "kind": "ClusterConfiguration",
            "clusterName": cluster.name,
            "kubernetesVersion": binaries.kubernetes,
            "imageRepository": recipes.REGISTRY,
            "controlPlaneEndpoint": cluster.endpoint,
            "dns": {"disabled": True},
            "proxy": {"disabled": True},
            # An idle control plane shakes hands many times a second.
            "encryptionAlgorithm": "ECDSA-P256",
            "controllerManager": {"extraArgs": _arguments(_ELECTIONS)},
            "scheduler": {"extraArgs": _arguments(_ELECTIONS)},
            "etcd": {
                "local": {"imageTag": recipes.etcd_tag(binaries), "extraArgs": _arguments(_ETCD)}
            },
        },
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "systemd" if systemd_cgroups else "cgroupfs",
            "failCgroupV1": False,
            "failSwapOn": False,
            # The disk is the host's: how full it is says nothing about the node.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "imagefs.available": "0%",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
            },
        },
    ]


def join_document(cluster: Cluster, node: Node, known: Secrets) -> dict[str, Any]:
    """Build the configuration of `kubeadm join` on NODE."""
    document: dict[str, Any] = {
        "apiVersion": _API,
        "kind": "JoinConfiguration",
        "discovery": {
            "file": {"kubeConfigPath": f"/{_DISCOVERY}"},
            "tlsBootstrapToken": known.token,
        },
        "nodeRegistration": _registration(node, schedulable=not cluster.workers),
    }
    if node.role == "master":
        document["controlPlane"] = {
            "certificateKey": known.certificate_key,
            "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": API_PORT},
        }
        document["patches"] = {"directory": f"/{PATCHES}"}
    return document


def discovery(kubeconfig: str) -> str:
    """Reduce an administrator's kubeconfig to what anyone may know: server and authority."""
    (cluster,) = yaml.safe_load(kubeconfig)["clusters"]
    # kubeadm takes the cluster without a name when no context chooses one.
    clusters = [{"name": "", "cluster": cluster["cluster"]}]
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "clusters": clusters})


def make_cluster(cluster: Cluster, binaries: Binaries, *, systemd_cgroups: bool) -> None:
    """Turn running node containers into a cluster whose nodes are all ready."""
    known = new_secrets()
    first, *others = cluster.machines
    say(f"{first.name}: kubeadm init")
    documents = init_documents(cluster, binaries, known, systemd_cgroups=systemd_cgroups)
    share = ["--upload-certs"] if len(cluster.masters) > 1 else []
    _kubeadm(cluster, first, "init", documents, share)
    kubeconfig = (cluster.root(first) / "etc/kubernetes/admin.conf").read_text(encoding="utf-8")
    cluster.kubeconfig.touch(mode=0o600)
    cluster.kubeconfig.write_text(kubeconfig, encoding="utf-8")
    for node in others:
        say(f"{node.name}: kubeadm join")
        file = cluster.root(node) / _DISCOVERY
        file.write_text(discovery(kubeconfig), encoding="utf-8")
        _kubeadm(cluster, node, "join", [join_document(cluster, node, known)], [])
        file.unlink()
    say("waiting for the nodes to be ready")
    _await_nodes(cluster)


def _kubeadm(
    cluster: Cluster,
    node: Node,
    step: str,
    documents: list[dict[str, Any]],
    options: list[str],
) -> None:
    file = cluster.root(node) / _CONFIGURATION
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    patches = cluster.root(node) / PATCHES
    patches.mkdir()
    (patches / "kube-apiserver+merge.json").write_text(json.dumps(_QUICK_END), encoding="utf-8")
    container = cluster.container(node)
    try:
        podman.execute(container, "kubeadm", step, "--config", f"/{_CONFIGURATION}", *options)
    except LabError as problem:
        journal = ["journalctl", "--no-pager", "--output=cat", "--lines=20", "--unit=kubelet"]
        told = podman.execute(container, *journal)
        raise LabError(f"{problem}\nThe kubelet's journal:\n{told[-3000:]}") from problem
    file.unlink()


def kubectl_command(cluster: Cluster, *arguments: str) -> list[str]:
    """Build a kubectl command for the cluster's administrator."""
    # Proxies of the host don't lead to the host's own networks.
    unset = [part for name in ("http_proxy", "https_proxy", "all_proxy") for part in ("-u", name)]
    unset += [part.upper() if part != "-u" else part for part in unset]
    program = str(cluster.folder / "kubectl")
    return ["env", *unset, program, f"--kubeconfig={cluster.kubeconfig}", *arguments]


def kubectl(cluster: Cluster, *arguments: str, stdin: bytes = b"") -> str:
    """Run kubectl as the cluster's administrator and give its output."""
    name = f"kubectl {' '.join(arguments)}"
    return finish(kubectl_command(cluster, *arguments), name, stdin=stdin)


def _await_nodes(cluster: Cluster) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    every = {node.name for node in cluster.machines}
    template = (
        '{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}\n{end}'
    )
    while True:
        try:
            # Without this account, made a moment after the nodes, no pod can be created.
            kubectl(cluster, "get", "serviceaccount", "default")
            told = kubectl(cluster, "get", "nodes", "--output", f"jsonpath={template}")
        except LabError as problem:  # An API server may be a moment away behind the balancer.
            told = str(problem)
        if {line.split()[0] for line in told.splitlines() if line.endswith(" True")} == every:
            return
        if time.monotonic() > deadline:
            raise LabError(f"nodes are not ready after {_READY_SECONDS} s:\n{told}")
        time.sleep(0.3)
