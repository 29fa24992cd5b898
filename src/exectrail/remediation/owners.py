"""Who has to do what no repair does, for every check there is."""

from __future__ import annotations

from typing import NamedTuple

from exectrail.remediation.repairs import REPAIRS

_IMAGE = "whoever provides the node's image"
_NODE = "whoever administers the node"
_CLUSTER = "whoever runs the cluster"
_NETWORK = "whoever runs the node's network"
_INVENTORY = "whoever keeps the inventory"
_INSTALLER = "you"


class Owner(NamedTuple):
    """Who it is, and why no playbook does it for them."""

    who: str
    why: str


_REINSTALL = Owner(
    _INSTALLER, "playbooks/site.yml brings to rights what it can; the report says what else to do"
)

OWNERS = {
    "agent.active": _REINSTALL,
    "agent.healthy": _REINSTALL,
    "agent.installed": _REINSTALL,
    "agent.log": _REINSTALL,
    "agent.losses": Owner(_NODE, "the losses say their cause, and what was lost stays lost"),
    "agent.program": _REINSTALL,
    "agent.sees": _REINSTALL,
    "agent.sensor": _REINSTALL,
    "audit.log": _REINSTALL,
    "audit.policy": _REINSTALL,
    "audit.record": _REINSTALL,
    "audit.server": _REINSTALL,
    "cluster.canary": _REINSTALL,
    "cluster.nodes": Owner(_INVENTORY, "a node that is missing there has to be added by name"),
    "cluster.type": Owner(_INVENTORY, "the cluster's type is declared there, or another cluster"),
    "cluster.version": Owner(_CLUSTER, "an upgrade moves every workload"),
    "node.clock-offset": Owner(_NETWORK, "node and controller have to have the same time servers"),
    "node.cpfs-volumes": Owner("whoever runs the storage", "data have to be moved first"),
    "node.dns-source": Owner(
        _NETWORK,
        "static nameservers are somebody's choice, and whether DHCP's would do in their place "
        "can't be seen from the node",
    ),
    "node.exec-sensor": Owner(
        _IMAGE, "it takes another kernel or its settings at boot, and a reboot"
    ),
    "node.image-acceleration": Owner(
        _CLUSTER, "the node has to be drained, and its images are fetched again"
    ),
    "node.kernel-version": Owner(_IMAGE, "a new kernel needs a reboot"),
    "node.kubelet": Owner(_CLUSTER, "why a kubelet does not run is in its log"),
    "node.log-space": Owner(_NODE, "what may be deleted has to be decided"),
    "node.os-family": Owner(_IMAGE, "another operating system is another node"),
    "node.python": Owner(
        _IMAGE,
        "which of several Pythons is a choice, and without any there is nothing that could make "
        "a repair",
    ),
    "node.security-hardening": Owner(_IMAGE, "hardening can't be taken back reliably"),
    "node.static-pods": Owner(
        _CLUSTER, "whether a file is a mistake or a pod that somebody needs has to be decided"
    ),
    "node.systemd": Owner(_IMAGE, "systemd comes with the operating system"),
}
"""By check id; the checks of `REPAIRS` are not among them."""


def hand_over(check: str, remediation: str) -> str:
    """Say who has to do it and, on lines of their own, how.

    `check` is what judges, `remediation` the requirement's own text.
    """
    owner = OWNERS.get(check, Owner(_NODE, "no repair is known"))
    return f"It is for {owner.who} to do: {owner.why}.\n{remediation.strip()}"


def table() -> str:
    """Write the table of docs/remediate.md: every check, and what becomes of it."""
    checks: dict[str, list[str]] = {}
    for check, repair in REPAIRS.items():
        checks.setdefault(f"repaired: {repair.does}", []).append(check)
    for check, owner in OWNERS.items():
        checks.setdefault(f"{owner.who}: {owner.why}", []).append(check)
    rows = [
        f"| {', '.join(f'`{check}`' for check in sorted(found))} | {what} |"
        for what, found in checks.items()
    ]
    return "\n".join(
        ["| check | repair, or who has to do it and why |", "|---|---|", *sorted(rows)]
    )
