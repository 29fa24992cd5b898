"""The cluster that a node belongs to."""

from __future__ import annotations

from typing import Annotated

import msgspec

from exectrail.compliance.checks.operating_system import DEFAULT_ID
from exectrail.compliance.checks.registry import Outcome, Parameters, check
from exectrail.compliance.items.access import Items, Unreadable, observed
from exectrail.compliance.items.node import (
    DISTRIBUTION,
    KUBELET,
    KUBERNETES_VERSION,
    OS_RELEASE,
    ROLE,
)
from exectrail.versions import VersionText, required

ANY = "*"
_WHERE = {ANY: ""}
VARIABLE = "cluster_type"
_DECLARE = "set preflight_cluster_type in the inventory"


class ClusterVersion(Parameters, frozen=True):
    """`minimum` maps the ID of os-release, or ``*`` for any other, to the oldest version."""

    minimum: Annotated[dict[str, VersionText], msgspec.Meta(min_length=1)]

    def expected(self) -> str:
        """List the versions."""
        return "Kubernetes " + ", ".join(
            f"{version} or later" + _WHERE.get(system, f" on {system}")
            for system, version in self.minimum.items()
        )


@check("cluster.version", ClusterVersion)
def cluster_version(items: Items, parameters: ClusterVersion) -> Outcome:
    """Compare the version with the minimum for the node's operating system.

    A master shows the API server's version, a worker only its kubelet's, which may lag behind the
    cluster: a node is judged by what it runs. Without a kubelet, or on an operating system for
    which no minimum is stated, there is nothing to judge.
    """
    version = items[KUBERNETES_VERSION]
    if version is None:
        return Outcome.skipped("no kubelet", "There is no kubelet on this node yet.")
    system = items[OS_RELEASE].get("ID", DEFAULT_ID)
    minimum = parameters.minimum.get(system, parameters.minimum.get(ANY))
    seen = f"Kubernetes {version} on {system}"
    if minimum is None:
        return Outcome.skipped(seen, f"No minimum is stated for {system!r}.")
    if observed(version, KUBERNETES_VERSION.name) >= required(minimum):
        return Outcome.passed(seen, f"Kubernetes {version} is not older than {minimum}.")
    return Outcome.failed(seen, f"Kubernetes {version} is older than {minimum}.")


class ClusterType(Parameters, frozen=True):
    """`supported` lists the cluster types; other Kubernetes distributions are never one."""

    supported: tuple[str, ...] = ("managed-pro", "managed-basic", "dedicated")

    def expected(self) -> str:
        """List the types."""
        return f"an ACK cluster of type {' or '.join(self.supported)}"


@check("cluster.type", ClusterType)
def cluster_type(items: Items, parameters: ClusterType) -> Outcome:
    """Compare the declared type (host variable `preflight_cluster_type`) with the node.

    A node alone does not show whether its cluster is Pro or Basic, so the type is declared. Two
    things can contradict it: a Kubernetes that is not ACK's, and a control plane on the node of a
    managed cluster. Undeclared, only an ACK master is decided (the cluster is dedicated), and a
    distribution that ACK never is; a node without a kubelet has no cluster yet.
    """
    declared = items.variables.get(VARIABLE)
    if declared is None:
        return _derived(items, parameters)
    if not isinstance(declared, str):
        raise Unreadable(VARIABLE, f"the host variable is not text but {declared!r}")
    seen = f"declared {declared}"
    if declared not in parameters.supported:
        return Outcome.failed(seen, f"The cluster type {declared!r} is not supported.")
    if items[KUBELET] is None:
        return Outcome.passed(seen, "It is declared; there is no kubelet yet to compare.")
    distribution, role = items[DISTRIBUTION], items[ROLE]
    seen += f"; found {distribution}, {role}"
    if _foreign(distribution):
        return Outcome.failed(seen, f"The node runs {distribution}, not {declared} as declared.")
    if declared.startswith("managed") and role == "master":
        return Outcome.failed(
            seen, f"The node has a control plane, so the cluster is not {declared}."
        )
    return Outcome.passed(seen, f"The cluster is {declared}, as declared.")


def _derived(items: Items, parameters: ClusterType) -> Outcome:
    if items[KUBELET] is None:
        return Outcome.skipped("no kubelet", "There is no kubelet on this node yet.")
    distribution = items[DISTRIBUTION]
    if _foreign(distribution) or distribution == "kubeadm":
        return Outcome.failed(
            distribution, f"This is a cluster of {distribution}; if it is one of ACK, {_DECLARE}."
        )
    if distribution == "ack" and items[ROLE] == "master":
        if "dedicated" in parameters.supported:
            return Outcome.passed(
                "ack, master", "ACK with a control plane on the node is dedicated."
            )
        return Outcome.failed("ack, master", "The cluster type 'dedicated' is not supported.")
    raise Unreadable(
        VARIABLE,
        "a node does not show its cluster's type, and it is not declared",
        f"{_DECLARE.capitalize()}: {', '.join(parameters.supported)}.",
    )


def _foreign(distribution: str) -> bool:
    # A dedicated ACK cluster is built by kubeadm, so that one contradicts nothing.
    return distribution in ("k3s", "rke2", "k0s", "managed")
