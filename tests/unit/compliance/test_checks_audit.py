"""The checks of a master's audit and of the cluster's nodes."""

from __future__ import annotations

from typing import Any

import pytest

from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.requirements import load_profile
from tests.unit.compliance.installed import PROFILE, UNREADABLE, installed, saved, told
from tests.unit.compliance.nodes import TODAY

STARTED = 1_000_000.0
SERVER = {"started": STARTED, "flags": {}}
SHA256 = saved("master").items["audit.policy"]["sha256"]


@pytest.mark.parametrize(
    ("changes", "variables", "groups", "status"),
    [
        # No process, but it is meant to be a master, or has the manifest of one.
        ({"api.server": None, "kubernetes.role": "worker"}, {}, ("masters",), "fail"),
        (
            {"api.server": None, "kubernetes.role": "worker"},
            {"masters_group": "cp"},
            ("cp",),
            "fail",
        ),
        (
            {"api.server": None, "kubernetes.role": "worker"},
            {"masters_group": "cp"},
            ("masters",),
            "skip",
        ),
        ({"api.server": None, "kubernetes.role": "master"}, {}, (), "fail"),
        # No master by its group, but an API server is there, kubelet or not.
        ({"kubernetes.role": "worker"}, {}, (), "pass"),
        ({"kubelet": None}, {}, (), "pass"),
        # No Kubernetes at all, whatever the group.
        ({"api.server": None, "kubelet": None}, {}, ("masters",), "skip"),
        ({"api.server": None, "kubelet": UNREADABLE}, {}, ("masters",), "error"),
        ({"api.server": None, "kubernetes.role": UNREADABLE}, {}, (), "error"),
        # Nothing is rolled out where no kubelet makes the API server from a manifest.
        ({"kubernetes.distribution": "k3s"}, {}, ("masters",), "skip"),
        ({"kubernetes.distribution": "rke2"}, {}, ("masters",), "skip"),
        ({"kubernetes.distribution": "k0s", "api.server": None}, {}, ("masters",), "skip"),
        ({"kubernetes.distribution": UNREADABLE}, {}, ("masters",), "error"),
    ],
)
def test_who_is_a_master(
    changes: dict[str, Any], variables: dict[str, Any], groups: tuple[str, ...], status: str
) -> None:
    node = installed("master", changes, {"masters_group": None, **variables}, groups)
    told("audit.server", node, status)
    if status == "skip":
        for check in ("audit.policy", "audit.record", "audit.log", "cluster.nodes"):
            told(check, node, "skip")


def test_a_worker_has_no_audit() -> None:
    for check in ("audit.server", "audit.policy", "audit.record", "audit.log", "cluster.nodes"):
        told(check, installed(), "skip", "This node is no master.")


NOTHING = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n"
BY_GROUP = NOTHING + "  userGroups: [kubeadm:cluster-admins]\n- level: Metadata\n"
UNSEEN = {f"audit.probes/requests/{number}/level": None for number in range(5)}


CAP = 11 * 100 * 1024 * 1024


CASES: dict[str, list[tuple[dict[str, Any], str, str]]] = {
    "audit.server": [
        ({}, "pass", "5 flags as rolled out"),
        ({"api.server/flags/audit-log-format": "json"}, "pass", ""),
        ({"api.server": None}, "fail", "No API server runs"),
        ({"audit.applied": None}, "fail", "has been rolled out to this master"),
        ({"api.server/flags/audit-log-path": "/x"}, "fail", "--audit-log-path is /x, not /var/log"),
        ({"api.server/flags/audit-log-maxage": ...}, "fail", "--audit-log-maxage is missing, not"),
        ({"api.server": SERVER}, "fail", "--audit-policy-file is missing"),
        ({"audit.applied/manifest": "spec: {containers: [{}]}"}, "fail", "not to be there"),
        ({"audit.applied/manifest": "spec: ["}, "error", "its manifest is none (ParserError)"),
        ({"audit.applied/manifest": "spec: {}"}, "error", "its manifest is none (KeyError)"),
        ({"audit.applied/manifest": "spec: {containers: []}"}, "error", "(IndexError)"),
        ({"audit.applied/manifest": "a"}, "error", "(TypeError)"),
        ({"audit.applied/manifest": "spec: {containers: [x]}"}, "error", "(AttributeError)"),
        ({"audit.applied/manifest": "[" * 1200}, "error", "(RecursionError)"),
        ({"audit.applied/manifest": None}, "error", "not of the expected form"),
        ({"audit.applied": UNREADABLE}, "error", "audit.applied: x"),
        ({"api.server": UNREADABLE}, "error", "api.server: x"),
    ],
    "audit.policy": [
        ({}, "pass", f"sha256 {SHA256[:12]} | "),
        ({"audit.policy": None}, "fail", "The policy file is gone"),
        ({"audit.policy/sha256": "0" * 64}, "fail", "sha256 000000000000 | "),
        ({"audit.applied/policy_sha256": None}, "fail", "is not the policy"),
        (
            {
                "audit.policy/written": STARTED + 9,
                "audit.applied/written": STARTED + 8,
                "api.server/started": STARTED,
            },
            "fail",
            "written 9 s after the start",
        ),
        # Before the roll-out had ended, or before the server has started: that one has read it.
        (
            {
                "audit.policy/written": STARTED + 9,
                "audit.applied/written": STARTED + 9,
                "api.server/started": STARTED,
            },
            "pass",
            "",
        ),
        (
            {
                "audit.policy/written": STARTED,
                "audit.applied/written": STARTED - 9,
                "api.server/started": STARTED,
            },
            "pass",
            "",
        ),
        ({"audit.policy": UNREADABLE}, "error", "audit.policy: x"),
        ({"audit.applied": None}, "skip", "before audit.server passes"),
    ],
    "audit.record": [
        ({}, "pass", "pods at Request; configmaps at Metadata"),
        ({"audit.probes/requests/0/level": "Metadata"}, "fail", "pods at Metadata, not Request"),
        ({"audit.probes/requests/4/level": None}, "fail", "a path at no level, not Metadata"),
        (UNSEEN, "fail", "secrets at no level"),
        ({"audit.policy/text": NOTHING}, "fail", "pods at Request, not None"),
        ({**UNSEEN, "audit.policy/text": NOTHING}, "warn", "nothing to record"),
        # The user's groups decide; where the log tells of no user, either may be right.
        ({**UNSEEN, "audit.policy/text": BY_GROUP}, "warn", ""),
        ({**UNSEEN, "audit.policy/text": BY_GROUP, "audit.probes/user": ""}, "warn", ""),
        ({**UNSEEN, "audit.policy/text": BY_GROUP, "audit.probes/groups": []}, "fail", ""),
        ({"audit.probes": None}, "error", "audit.probes: there is none"),
        ({"audit.probes": UNREADABLE}, "error", "audit.probes: x"),
        # What Kubernetes does not mind is no reason not to judge.
        ({**UNSEEN, "audit.policy/text": NOTHING + "colour: red\n"}, "warn", ""),
        ({"audit.policy/text": "a: ["}, "error", "not YAML (ParserError)"),
        ({"audit.policy/text": "[" * 1200}, "error", "not YAML (RecursionError)"),
        ({"audit.policy/text": "apiVersion: v1\n"}, "error", "not a policy"),
        ({"audit.policy/sha256": "0" * 64}, "skip", "before audit.policy passes"),
    ],
    "audit.log": [
        ({}, "pass", "of 1100 MiB"),
        ({"audit.log": None}, "fail", "to no file"),
        ({"audit.log/file": None}, "fail", "There is no /var/log/kubernetes/kubernetes.audit"),
        ({"audit.log/folder": None}, "fail", "There is no"),
        ({"audit.log/folder/mode": "0755"}, "fail", "the folder has mode 0755"),
        ({"audit.log/file/mode": "0644"}, "fail", "the log has mode 0644"),
        ({"audit.log/file/owner": [0, 1]}, "fail", "the log has owner 0:1"),
        ({"audit.log/held": CAP}, "pass", "1100.0 of 1100 MiB"),
        ({"audit.log/held": CAP + 1}, "fail", "larger than it may be"),
        ({"audit.log": UNREADABLE}, "error", "audit.log: x"),
        ({"audit.applied": None}, "skip", "before audit.server passes"),
    ],
}


@pytest.mark.parametrize(
    ("check", "changes", "status", "says"),
    [(check, *row) for check, rows in CASES.items() for row in rows],
)
def test_the_check_of_one_change(
    check: str, changes: dict[str, Any], status: str, says: str
) -> None:
    told(check, installed("master", changes), status, says)


@pytest.mark.parametrize(
    ("maxsize", "maxbackup", "held", "status", "says"),
    [
        ("2", "3", 8, "pass", "8.0 of 8 MiB"),
        ("0", "1", 200, "pass", "of 200 MiB"),
        ("2", "0", 1, "fail", "Nothing limits"),
        ("2", "x", 1, "error", "--audit-log-maxbackup is no number: 'x'"),
        ("²", "1", 1, "error", "--audit-log-maxsize is no number"),
        ("1234567890", "1", 1, "error", "--audit-log-maxsize is no number"),
        ("123456789", "1", 1, "pass", "of 246913578 MiB"),
    ],
)
def test_the_cap_is_that_of_the_running_server(
    maxsize: str, maxbackup: str, held: int, status: str, says: str
) -> None:
    manifest = (
        "spec: {containers: [{command: [kube-apiserver, "
        f"--audit-log-maxsize={maxsize}, --audit-log-maxbackup={maxbackup}]}}]}}"
    )
    changes = {
        "api.server/flags": {"audit-log-maxsize": maxsize, "audit-log-maxbackup": maxbackup},
        "audit.applied/manifest": manifest,
        "audit.log/held": held * 1024 * 1024,
    }
    told("audit.log", installed("master", changes), status, says)


@pytest.mark.parametrize(
    ("changes", "known", "status", "says"),
    [
        ({}, ["lab-master-1", "lab-worker-1"], "pass", "2 nodes"),
        ({}, ("LAB-MASTER-1", "10.89.0.21"), "pass", "2 nodes"),
        ({}, ["lab-master-1"], "fail", "1 of 2 nodes of the cluster are not in the inventory"),
        ({}, [], "fail", "lab-master-1; lab-worker-1"),
        ({}, None, "skip", "no inventory"),
        ({}, "lab-master-1", "error", "not a list"),
        ({"api.nodes": None}, ["a"], "skip", "can't be asked"),
        ({"api.nodes": UNREADABLE}, ["a"], "error", "api.nodes: x"),
        # audit.record says already that nobody answers.
        ({"api.nodes": UNREADABLE, "audit.probes": UNREADABLE}, ["a"], "skip", "can't be asked"),
    ],
)
def test_nodes(changes: dict[str, Any], known: Any, status: str, says: str) -> None:
    node = installed("master", changes, {"inventory_addresses": known})
    told("cluster.nodes", node, status, says)


def test_the_profile_shares_the_static_pods_of_self_managed() -> None:
    of = {
        name: {each.id: each for each in load_profile(name).checks}["node.static-pods"]
        for name in ("installed", "self_managed")
    }
    assert of["installed"].parameters == of["self_managed"].parameters


@pytest.mark.parametrize("name", ["master", "worker"])
def test_a_healthy_node_has_no_finding(name: str) -> None:
    report = evaluate(saved(name), PROFILE, today=TODAY)
    skipped = {each.check for each in report.results if each.status == "skip"}
    audit = {"audit.server", "audit.policy", "audit.record", "audit.log", "cluster.nodes"}
    assert {str(each.status) for each in report.results} == {"pass", "skip"}
    assert skipped == {"cluster.canary"} | (audit if name == "worker" else set())
