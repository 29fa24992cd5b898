from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail.audit_policy import manifest
from exectrail.audit_policy.rollout import plan as planner
from exectrail.audit_policy.rollout.model import Plan, Request, RolloutError, Unread
from exectrail.errors import UsageError
from tests.unit.audit_policy.rollout.masters import (
    CONFIGURATION,
    MANIFEST,
    POLICY,
    master,
    request,
)


def alive(_holder: str) -> bool:
    return False


def plan(asked: Request | None = None, **masters: Any) -> Plan:
    found = {"m1": master(), "m2": master(), "m3": master(), **masters}
    return planner.plan(asked or request(), found, alive)


def refusal(asked: Request | None = None, **masters: Any) -> str:
    with pytest.raises(RolloutError) as caught:
        plan(asked, **masters)
    return str(caught.value)


def done(**more: Any) -> dict[str, Any]:
    """What a master has after a roll-out."""
    text = plan().changes["m1"].manifest
    words = yaml.safe_load(text)["spec"]["containers"][0]["command"]
    settings = {
        "manifest__text": text,
        "policy": {"kind": "file", "text": POLICY, "mode": "0600", "owner": [0, 0]},
        "log__mode": "0700",
        "process__args": words,
        "applied": {
            "run": "x",
            "manifest": text,
            "policy_sha256": hashlib.sha256(POLICY.encode()).hexdigest(),
        },
        "original": {"policy": None},
    }
    return {**settings, **more}


def test_every_master_without_the_settings_is_to_change() -> None:
    made = plan()

    assert list(made.changes) == ["m1", "m2", "m3"]
    change = made.changes["m1"]
    assert change.manifest_before == MANIFEST
    assert change.expected == hashlib.sha256(MANIFEST.encode()).hexdigest()
    assert change.policy == POLICY
    assert change.wanted["audit-log-maxage"] == "30"
    assert change.restart
    assert change.probe == {
        "path": "/api/v1/namespaces/kube-system/pods/exectrail-probe-0123456789abcdef",
        "agent": "exectrail/0123456789abcdef",
        "level": "Request",
    }


def test_masters_that_have_everything_are_left() -> None:
    has = master(**done())
    made = plan(m1=has, m2=has, m3=has)

    assert made.changes == {}
    assert made.differing == ()
    assert made.kubeadm is not None


def test_only_what_differs_is_changed() -> None:
    has = master(**done())
    made = plan(m1=has, m3=has)

    assert list(made.changes) == ["m2"]


def test_a_policy_that_was_written_after_the_server_started_restarts_it() -> None:
    file = {"kind": "file", "text": POLICY, "mode": "0600", "owner": [0, 0]}
    read = master(**done(policy=file | {"written": 99.0}, process__started=100.0))
    unread = master(**done(policy=file | {"written": 101.0}, process__started=100.0))
    made = plan(m1=unread, m2=read, m3=read)

    assert list(made.changes) == ["m1"]
    assert made.changes["m1"].reasons == (
        "the policy file was written after the API server has read it",
    )
    assert made.changes["m1"].restart


def test_another_mode_of_the_policy_restarts_nothing() -> None:
    file = {"kind": "file", "text": POLICY, "mode": "0644", "owner": [0, 0]}
    has = master(**done())
    made = plan(m1=master(**done(policy=file)), m2=has, m3=has)

    assert list(made.changes) == ["m1"]
    assert not made.changes["m1"].restart


def test_notes_are_left_behind_by_nobody() -> None:
    noted = {"folder": "x", "outcome": "done", "steps": [], "alive": False}
    has = master(**done(rollout=noted))
    gone = request(state="absent", selected=["m1", "m2"])

    assert plan(gone, m1=has, m2=master(rollout=noted), m3=has).leaving == ("m1", "m2")
    assert plan(m1=has, m2=has, m3=has).leaving == ()


def test_masters_outside_of_the_limit_are_named_and_left() -> None:
    made = plan(request(selected=["m2"]))

    assert list(made.changes) == ["m2"]
    assert made.differing == ("m1", "m3")
    assert made.kubeadm is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kubelet__running": False}, "m2: the kubelet does not run: systemctl start kubelet"),
        ({"server": None}, "m2: the API server does not run"),
        ({"server": {"problem": "/readyz says 500: [-]etcd failed"}}, "[-]etcd failed"),
        ({"server__restarts": 3, "server__age": 4.0}, "has restarted 3 times, the last time 4 s"),
        ({"strays": ["kube-apiserver.yaml~"]}, "/etc/kubernetes/manifests/kube-apiserver.yaml~ is"),
        ({"state_dir": "other file system"}, "set audit_policy_state_dir to another folder"),
        ({"policy": {"kind": "a directory"}}, "/etc/kubernetes/audit-policy.yaml is a directory"),
        ({"log__problem": "/var/log is not writable"}, "/var/log is not writable"),
        ({"log__free": 1 << 30}, "may take 1100 MiB, and /var/log/kubernetes/kubernetes.audit has"),
        ({"lock": {"run": "y", "holder": "bob@ci pid 7 since 8", "seconds": 90}}, "bob@ci pid 7"),
        ({"foreign": "k3s"}, "m2: its API server is run by k3s"),
        ({"manifest": None}, "but not from /etc/kubernetes/manifests"),
        ({"server__version": "v1.33.0"}, "more than one minor version apart"),
        ({"server__version": "unreadable"}, "unknown version"),
        ({"manifest__text": "a: b\n"}, "m2: kube-apiserver.yaml: "),
        (
            {"rollout": {"folder": "x", "outcome": "running", "steps": [], "alive": True}},
            "still being made",
        ),
        (
            {"rollout": {"folder": "x", "outcome": "running", "steps": [], "alive": False}},
            "was interrupted",
        ),
    ],
)
def test_one_master_that_is_not_well_stops_all(change: dict[str, Any], says: str) -> None:
    told = refusal(m2=master(**change))

    assert told.startswith("No master was touched")
    assert says in told


def test_every_reason_is_named_at_once() -> None:
    told = refusal(m1=Unread("it is down"), m3=master(kubelet__running=False))

    assert "m1: it is down" in told
    assert "m3: the kubelet" in told


def test_a_full_disk_does_not_matter_where_nothing_changes() -> None:
    has = master(**done(log={"free": 0, "held": 0, "mode": "0700", "problem": None}))

    assert plan(m1=has, m2=has, m3=has).changes == {}


def test_logs_that_are_there_count_as_room() -> None:
    assert plan(m1=master(log__free=100 << 20, log__held=1000 << 20)).changes


def test_the_lock_of_a_dead_run_holds_nobody_up() -> None:
    held = master(lock={"run": "y", "holder": "dead", "seconds": 90})
    masters = {"m1": held, "m2": master(), "m3": master()}

    assert planner.plan(request(), masters, lambda holder: holder == "dead").changes


@pytest.mark.parametrize(
    "change",
    [
        {"foreign": "k3s", "manifest": None},
        {"foreign": "the systemd unit kube-apiserver.service", "manifest": None},
        {"manifest": None, "process": None, "server": None},
    ],
)
def test_no_static_pod_anywhere_is_not_applicable(change: dict[str, Any]) -> None:
    made = planner.plan(request(masters=["m1"]), {"m1": master(**change)}, alive)

    assert made.changes == {}
    assert "Nothing was changed" in made.not_applicable


@pytest.mark.parametrize(
    ("change", "reason", "restart"),
    [
        ({"policy__mode": "0644"}, "the policy file has mode 0644", False),
        ({"log__mode": "0755"}, "the log folder has mode 0755", False),
        ({"policy__text": "changed"}, "the policy file is another", True),
        ({"policy": {"kind": "absent"}}, "there is no policy file", True),
    ],
)
def test_drift_is_repaired(change: dict[str, Any], reason: str, *, restart: bool) -> None:
    has = done()
    for name, value in change.items():
        head, _, tail = name.partition("__")
        if tail and isinstance(has.get(head), dict):
            has[head] = {**has[head], tail: value}
        else:
            has[name] = value
    made = plan(m1=master(**has))

    assert made.changes["m1"].reasons == (reason,)
    assert made.changes["m1"].restart is restart


def test_drift_is_told_by_name() -> None:
    has = done()
    by_hand = has["manifest__text"].replace("maxage=30", "maxage=7")
    made = plan(
        m1=master(**{**has, "manifest__text": by_hand}),
        m2=master(**{**has, "policy": {**has["policy"], "text": "junk"}}),
        m3=master(**{**has, "policy": {"kind": "absent"}}),
    )

    told = "\n".join(made.notes)
    assert "m1: drift: kube-apiserver.yaml was changed by hand" in told
    assert "m2: drift: the policy file was changed by hand" in told
    assert "m3: drift: the policy file is gone" in told
    assert manifest.is_managed(made.changes["m1"].manifest)


def test_a_changed_wish_is_no_drift() -> None:
    has = master(**done())
    made = plan(request(log_maxage=7), m1=has, m2=has, m3=has)

    assert len(made.changes) == 3
    assert not [note for note in made.notes if "drift" in note]


def test_a_server_that_does_not_obey_its_manifest_is_an_error() -> None:
    told = refusal(m1=master(**done(process__args=["kube-apiserver"])))

    assert "has not taken --audit-" in told


def test_a_manifest_rendered_anew_by_kubeadm_is_adopted() -> None:
    has = done()
    lines = [line for line in has["manifest__text"].splitlines() if "exectrail" not in line]
    rendered = "\n".join(lines) + "\n"
    made = plan(m1=master(**{**has, "manifest__text": rendered}))

    assert "m1: drift: kube-apiserver.yaml was rendered anew by kubeadm" in "\n".join(made.notes)
    assert manifest.remove(made.changes["m1"].manifest) == MANIFEST


def test_absent_restores_what_was_there() -> None:
    has = done()
    old = "old policy"
    made = plan(
        request(state="absent"),
        m1=master(**has),
        m2=master(**{**has, "original": {"policy": old}}),
    )

    assert list(made.changes) == ["m1", "m2"]
    assert made.changes["m1"].manifest == MANIFEST
    assert made.changes["m1"].policy is None
    assert made.changes["m2"].policy == old
    assert made.changes["m1"].wanted["audit-log-path"] is None
    assert made.changes["m1"].absent


def test_absent_where_nothing_is_changes_nothing() -> None:
    made = plan(request(state="absent"))

    assert made.changes == {}
    assert made.kubeadm is None


def test_settings_of_somebody_else_are_not_replaced_unasked() -> None:
    theirs = MANIFEST.replace("    image:", "    - --audit-log-maxage=3\n    image:")
    told = refusal(m1=master(manifest__text=theirs))

    assert "audit_policy_take_over: true" in told
    assert plan(request(take_over=True), m1=master(manifest__text=theirs)).changes


def test_the_settings_are_kept_for_kubeadm() -> None:
    made = plan()
    assert made.kubeadm is not None
    before, after = made.kubeadm

    assert before == CONFIGURATION
    assert {"name": "audit-log-maxage", "value": "30"} in yaml.safe_load(after)["apiServer"][
        "extraArgs"
    ]


def test_a_cluster_without_kubeadms_configuration_says_so() -> None:
    without = master(server__kubeadm=None)
    made = plan(m1=without, m2=without, m3=without)

    assert made.kubeadm is None


def test_the_derived_cluster_id_is_told() -> None:
    told = "\n".join(plan(request(cluster_id="")).notes)

    assert "derived from the uid of the namespace kube-system" in told


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"masters": []}, "names no masters"),
        ({"log_maxsize": 0}, "audit_policy_log_maxsize"),
        ({"policy_file": "relative"}, "audit_policy_policy_file"),
        ({"timeouts": {"ready": 0}}, "time limit ready"),
        ({"profile": "nobodys"}, "unknown profile"),
        ({"own_policy": "/nowhere.yaml"}, "/nowhere.yaml"),
        ({"rules_first": [{"level": "Loud"}]}, "Loud"),
        ({"own_policy": "x", "rules_first": [{"level": "None"}]}, "write them into that file"),
    ],
)
def test_a_request_that_no_cluster_could_meet_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        planner.check(request(**more))


def test_a_policy_that_records_no_probe_is_told(tmp_path: Path) -> None:
    own = tmp_path / "policy.yaml"
    own.write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n"
        "- level: Metadata\n  users: [jane]\n- level: None\n"
    )
    made = plan(request(own_policy=str(own)))

    assert made.changes["m1"].probe is None
    assert "only the server's arguments" in "\n".join(made.notes)
