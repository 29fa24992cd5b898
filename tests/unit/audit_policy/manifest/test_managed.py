"""A manifest that was edited before: what others did to it since, and other settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from exectrail.audit_policy.manifest import add, edit, remove
from exectrail.audit_policy.manifest.document import ManifestError
from exectrail.audit_policy.manifest.settings import Settings

BEFORE = (Path(__file__).with_name("golden") / "kubeadm-1.35.yaml").read_text()
SETTINGS = Settings(cluster_id="c0ffee", policy_sha256="a" * 64)
AFTER = add(BEFORE, SETTINGS)

DRIFT = {
    "value": ("--audit-log-maxage=30", "--audit-log-maxage=1"),
    "flag gone": ("    - --audit-log-maxage=30\n", ""),
    "flag twice": ("    - --audit-log-maxage=30\n", "    - --audit-log-maxage=30\n" * 2),
    "overruled": (
        "    - --audit-log-maxage=30\n",
        "    - --audit-log-maxage=30\n    - --audit-log-maxage\n    - '1'\n",
    ),
    "variable": ("value: k8s-audit", "value: other"),
    "variable gone": (
        "    - name: aliyun_logs_audit-c0ffee_tags\n      value: audit=apiserver\n",
        "",
    ),
    "mount gone": ("    - mountPath: /var/log/kubernetes\n      name: k8s-audit\n", ""),
    "mount read-only": ("name: k8s-audit\n    -", "name: k8s-audit\n      readOnly: true\n    -"),
    "hostPath type": ("type: File\n", "type: FileOrCreate\n"),
    "hash": ("a" * 64, "b" * 64),
}


@pytest.mark.parametrize("name", DRIFT)
def test_drift_is_repaired(name: str) -> None:
    old, new = DRIFT[name]
    drifted = AFTER.replace(old, new)
    assert drifted != AFTER
    repaired = add(drifted, SETTINGS)
    assert repaired != drifted
    assert add(repaired, SETTINGS) == repaired
    assert remove(repaired) == BEFORE
    assert remove(drifted) == BEFORE


CHANGES = {
    "policy": {"policy_sha256": "b" * 64},
    "sizes": {"log_maxsize": 1, "log_maxage": 1, "log_maxbackup": 1},
    "places": {"log_path": "/srv/a/b.log", "policy_file": "/srv/p.yaml"},
    "cluster": {"cluster_id": "c2"},
    "no collection": {"log_collection": False},
    "hostPath type": {"policy_type": "FileOrCreate"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_settings_need_no_take_over(name: str) -> None:
    changed = add(AFTER, replace(SETTINGS, **CHANGES[name]))
    assert sorted(changed.split("\n")) == sorted(
        add(BEFORE, replace(SETTINGS, **CHANGES[name])).split("\n")
    )
    assert remove(changed) == BEFORE


def test_hash_is_kept_if_the_policy_is_not_given() -> None:
    assert add(AFTER, replace(SETTINGS, policy_sha256=None)) == AFTER


def test_what_others_add_stays() -> None:
    theirs = "    - --audit-log-format=json\n    image:"
    variable = "    env:\n    - name: aliyun_logs_audit-c0ffee"
    text = AFTER.replace("    image:", "    - {name: GOGC, value: '80'}\n    image:")
    text = text.replace(variable, f"    env:\n    # look\n{variable[9:]}")
    assert add(text, SETTINGS) == text
    assert remove(text) == BEFORE.replace(
        "    image:", "    env:\n    # look\n    - {name: GOGC, value: '80'}\n    image:"
    )
    text = BEFORE.replace("    image:", theirs)
    assert remove(add(text, SETTINGS)) == text


def test_another_cluster_is_left_alone() -> None:
    theirs = "    - name: aliyun_logs_audit-other\n      value: stdout\n    image:"
    text = AFTER.replace("    image:", theirs)
    without = replace(SETTINGS, log_collection=False)
    off = add(text, without)
    assert "aliyun_logs_audit-c0ffee" not in off
    assert "aliyun_logs_audit-other" in add(off, without)
    assert "aliyun_logs_audit-other" in remove(off)


def test_former_values_come_back_when_a_variable_is_switched_off() -> None:
    theirs = "    env:\n    - name: aliyun_logs_audit-c0ffee\n      value: 'stdout'\n    image:"
    text = BEFORE.replace("    image:", theirs)
    added = add(text, replace(SETTINGS, take_over=True))
    off = add(added, replace(SETTINGS, log_collection=False))
    assert "      value: 'stdout'\n    image:" in off
    assert remove(off) == text


def test_new_conflict_with_a_kept_value() -> None:
    text = BEFORE.replace("    image:", "    - --audit-log-maxage=30\n    image:")
    added = add(text, SETTINGS)
    changed = replace(SETTINGS, log_maxage=7)
    with pytest.raises(ManifestError, match="--audit-log-maxage is 30, not 7"):
        add(added, changed)
    assert remove(add(added, replace(changed, take_over=True))) == text


def test_repetition_does_not_come_back_where_it_would_count() -> None:
    # as long as the flag, so that the repetition's former place is still between two items
    other, ours = "    - --as-long-as-that-1=x\n", "    - --audit-log-maxage=30\n"
    assert len(other) == len(ours)
    repeated = f"    args:\n{other}{ours.replace('30', '10')}{ours.replace('30', '20')}    image:"
    before = BEFORE.replace("    image:", repeated)
    added = add(before, replace(SETTINGS, take_over=True))
    assert remove(added) == before
    moved = added.replace(other + ours, ours + other)
    assert moved != added
    assert remove(moved) == BEFORE.replace(
        "    image:", f"    args:\n{ours.replace('30', '20')}{other}    image:"
    )


def test_rewritten_flag_with_a_former_value() -> None:
    text = BEFORE.replace("    image:", "    - --audit-log-maxage=1\n    image:")
    added = add(text, replace(SETTINGS, take_over=True))
    rewritten = added.replace("- --audit-log-maxage=30", "- --audit-log-maxage\n    - '30'")
    with pytest.raises(ManifestError, match="was rewritten"):
        remove(rewritten)


def test_user_of_the_server_is_told() -> None:
    text = BEFORE.replace("  securityContext:\n", "  securityContext:\n    runAsUser: 65534\n")
    assert text != BEFORE
    (note,) = edit(text, SETTINGS).notes
    assert "runs as user 65534" in note
    assert not edit(text.replace("65534", "0"), SETTINGS).notes


HOSTILE = {
    "no yaml": ({"former": {"flag:audit-log-maxage": "["}}, "is not YAML"),
    "deep": ({"former": {"flag:audit-log-maxage": "[" * 1000}}, "is not YAML"),
    "other lines": (
        {"former": {"flag:audit-log-maxage": "--a=b\n    - --c=d"}},
        "changing something",
    ),
    "no text": ({"former": {"flag:audit-log-maxage": "7"}}, "was rewritten"),
    "empty": ({"empty": {"env": " [x]"}}, ""),
    "dropped": (
        {"dropped": [{"key": "image", "index": 0, "value": "a", "at": 0, "text": "b"}]},
        "",
    ),
    "nowhere": ({"dropped": [{"key": "x", "index": 0, "value": "a", "at": 0, "text": "b"}]}, ""),
    "behind": (
        {"dropped": [{"key": "command", "index": 9, "value": "a", "at": -9, "text": "b"}]},
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_record(name: str) -> None:
    record, problem = HOSTILE[name]
    text = AFTER.replace(
        "  labels:\n", f"    exectrail.audit/before: {json.dumps(json.dumps(record))}\n  labels:\n"
    )
    if problem:
        with pytest.raises(ManifestError, match=problem):
            remove(text)
    else:
        removed = remove(text)
        assert removed == BEFORE or "    env: [x]\n" in removed
