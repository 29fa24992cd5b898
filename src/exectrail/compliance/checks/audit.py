"""Whether a master's API server records what its policy says: each link by its effect."""

from __future__ import annotations

import functools
from typing import TypeVar

import yaml

from exectrail.audit_policy.lint.schema import SchemaReader
from exectrail.audit_policy.manifest.settings import FLAGS
from exectrail.audit_policy.policy import Policy
from exectrail.audit_policy.rollout import kubeadm, probe
from exectrail.compliance.checks.agent import open_to
from exectrail.compliance.checks.registry import Outcome, listing, plain_check
from exectrail.compliance.items.access import Item, Items, Unreadable
from exectrail.compliance.items.installed import (
    API_NODES,
    API_SERVER,
    APPLIED,
    AUDIT_LOG,
    POLICY,
    PROBES,
    ApiServer,
    Applied,
    ClusterNode,
)
from exectrail.compliance.items.node import DISTRIBUTION, KUBELET, ROLE

T = TypeVar("T")

_MEBIBYTE = 1024 * 1024
_DEFAULT_MAXSIZE = 100
"""MiB, the API server's own."""
_NO_MANIFEST = (
    yaml.YAMLError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
)
_NO_STATIC_POD = ("k3s", "rke2", "k0s")
"""Distributions whose API server is no static pod of a kubelet, so that no policy is rolled out."""


@plain_check(
    "audit.server",
    "an API server with the audit flags of the last roll-out",
)
def server(items: Items) -> Outcome:
    """Compare the running API server's arguments with the manifest that was rolled out last.

    Judged where the inventory says that there is a master, and wherever an API server is found.
    """
    if (obstacle := _no_master(items)) is not None:
        return obstacle
    running = items[API_SERVER]
    if running is None:
        return Outcome.failed("no process", "No API server runs on this master.")
    applied = items[APPLIED]
    if applied is None:
        return Outcome.failed("no roll-out", "No audit policy has been rolled out to this master.")
    meant = _flags(applied)
    differing = [
        f"--{name} is {running.flags.get(name, 'missing')}, not {meant.get(name, 'to be there')}"
        for name in FLAGS
        if running.flags.get(name) != meant.get(name)
    ]
    if differing:
        return Outcome.failed(
            listing(differing),
            "The API server runs with other audit settings than were rolled out.",
        )
    seen = f"{len(meant)} flags as rolled out"
    return Outcome.passed(seen, "The API server runs with the audit settings rolled out.")


@plain_check(
    "audit.policy",
    "the policy that was rolled out, read by the running server",
    after=("audit.server",),
)
def policy(items: Items) -> Outcome:
    """Compare the policy file with the roll-out's, and its age with that of the server.

    A file that was written after the roll-out and after the server has started may not be what the
    server has read.
    """
    found = items[POLICY]
    if found is None:
        return Outcome.failed("no file", "The policy file is gone.")
    applied, running = _there(items, APPLIED), _there(items, API_SERVER)
    if found.sha256 != applied.policy_sha256:
        return Outcome.failed(
            f"sha256 {found.sha256[:12]}", f"{found.path} is not the policy that was rolled out."
        )
    if found.written > applied.written and found.written > running.started:
        return Outcome.failed(
            f"written {found.written - running.started:.0f} s after the start of the server",
            f"{found.path} was written after the API server has read it.",
        )
    return Outcome.passed(f"sha256 {found.sha256[:12]}", "The policy is the one rolled out.")


@plain_check(
    "audit.record",
    "an audit line for each request of ours, at the policy's level",
    after=("audit.policy",),
)
def record(items: Items) -> Outcome:
    """Compare the level of each probe request's line in the log with what the policy decides.

    A request that the policy does not record must have no line. A policy that records none of them
    proves nothing: warn.
    """
    found = _there(items, PROBES)
    rules = _policy(_there(items, POLICY).text)
    wrong, recorded = [], []
    for each in found.requests:
        levels = probe.levels(rules, each.resource, each.name, found.user, found.groups)
        told = f"{each.resource or 'a path'} at {each.level or 'no level'}"
        if (each.level or "None") not in levels:
            wrong.append(f"{told}, not {' or '.join(sorted(levels))}")
        elif each.level:
            recorded.append(told)
    if wrong:
        return Outcome.failed(
            listing(wrong), "The audit log does not tell of our requests what the policy says."
        )
    if not recorded:
        return Outcome.warned(
            "nothing to record", "The policy records none of our harmless requests."
        )
    return Outcome.passed(listing(recorded), "The audit log tells of our requests.")


@plain_check(
    "audit.log",
    "an audit log that root alone can read, within its cap",
    after=("audit.server",),
)
def log(items: Items) -> Outcome:
    """Look at owner and mode of folder and log, and at what the log and its rotated files hold.

    The cap is that of the running server's flags: `maxbackup` files and one more of `maxsize` MiB.
    """
    found, running = items[AUDIT_LOG], _there(items, API_SERVER)
    if found is None:
        return Outcome.failed("no file", "The API server writes its audit log to no file.")
    if found.folder is None or found.file is None:
        return Outcome.failed("no log", f"There is no {found.path}.")
    wrong = [f"the folder has {told}" for told in open_to(found.folder, "folder")]
    wrong += [f"the log has {told}" for told in open_to(found.file, "file")]
    if wrong:
        return Outcome.failed(
            listing(wrong), "Others than root can get at the audit log, or own it."
        )
    size = _number(running, "audit-log-maxsize") or _DEFAULT_MAXSIZE
    backups = _number(running, "audit-log-maxbackup")
    if not backups:
        return Outcome.failed("no limit", "Nothing limits how many audit logs are kept.")
    cap = (backups + 1) * size
    seen = f"{found.held / _MEBIBYTE:.1f} of {cap} MiB"
    if found.held > cap * _MEBIBYTE:
        return Outcome.failed(seen, "The audit log is larger than it may be.")
    return Outcome.passed(seen, "The audit log is for root alone and within its cap.")


@plain_check(
    "cluster.nodes",
    "every node of the cluster in the inventory",
)
def nodes(items: Items) -> Outcome:
    """Look in the inventory for every node that the API server lists: others have no agent.

    A node is known by its name or one of its addresses. Judged on masters.
    """
    if (obstacle := _no_master(items)) is not None:
        return obstacle
    known = items.variables.get("inventory_addresses")
    if known is None:
        return Outcome.skipped("no inventory", "The inventory is not in the evidence.")
    if not isinstance(known, list | tuple):
        raise Unreadable("variable inventory_addresses", f"not a list but {known!r}")
    listed = _nodes_or_none(items)
    if listed is None:
        return Outcome.skipped("no list", "The API server here can't be asked for its nodes.")
    names = {str(each).lower() for each in known}
    strangers = sorted(
        node.name
        for node in listed
        if not names & {each.lower() for each in (node.name, *node.addresses)}
    )
    if strangers:
        return Outcome.failed(
            listing(strangers),
            f"{len(strangers)} of {len(listed)} nodes of the cluster are not in the inventory, so "
            "nobody has given them an agent.",
        )
    return Outcome.passed(f"{len(listed)} nodes", "Every node of the cluster is in the inventory.")


def _no_master(items: Items) -> Outcome | None:
    """Say why the node is no master whose audit could be judged; None if it is one."""
    running = items[API_SERVER]
    if running is None and items[KUBELET] is None:
        return Outcome.skipped("no Kubernetes", "There is no Kubernetes on this node.")
    group = str(items.variables.get("masters_group") or "masters")
    if running is None and group not in items.groups and items[ROLE] != "master":
        return Outcome.skipped("no master", "This node is no master.")
    distribution = items[DISTRIBUTION]
    if distribution in _NO_STATIC_POD:
        return Outcome.skipped(
            distribution,
            f"The API server of {distribution} is no static pod: no audit policy is rolled out.",
        )
    return None


def _nodes_or_none(items: Items) -> list[ClusterNode] | None:
    """Give the cluster's nodes; None where another check says already why there is no answer."""
    try:
        return items[API_NODES]
    except Unreadable:
        try:
            items[PROBES]
        except Unreadable:
            return None
        raise


@functools.lru_cache  # Each link of the chain asks again.
def _flags(applied: Applied) -> dict[str, str]:
    try:
        return kubeadm.flags(applied.manifest)
    except _NO_MANIFEST as error:
        raise Unreadable(APPLIED.name, f"its manifest is none ({type(error).__name__})") from error


@functools.lru_cache  # The masters of a cluster have the same one.
def _policy(text: str) -> Policy:
    try:
        reader = SchemaReader()
        found = reader.policy(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(POLICY.name, f"not YAML ({type(error).__name__})") from error
    for problem in reader.problems:
        if problem.refused:
            raise Unreadable(POLICY.name, f"not a policy ({problem.message})")
    return found


def _there(items: Items, item: Item[T | None]) -> T:
    """Give what an earlier link of the chain has found to be there."""
    value = items[item]
    if value is None:
        raise Unreadable(item.name, "there is none")
    return value


def _number(running: ApiServer, name: str) -> int:
    text = running.flags.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004
        raise Unreadable(API_SERVER.name, f"--{name} is no number: {text!r}")
    return int(text)
