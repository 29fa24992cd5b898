from __future__ import annotations

from typing import Any

import pytest
import yaml

from exectrail.audit_policy import manifest
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.audit_policy.rollout import kubeadm
from exectrail.audit_policy.rollout.kubeadm import Audit, agree, audit
from exectrail.errors import UsageError
from tests.unit.audit_policy.rollout.masters import MANIFEST

SETTINGS = Settings(policy_sha256="0" * 64, cluster_id="c1")
FULL = manifest.add(MANIFEST, SETTINGS)


def configuration(form: str, **server: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": f"kubeadm.k8s.io/{form}",
            "kind": "ClusterConfiguration",
            "apiServer": server,
            "networking": {"podSubnet": "10.1.0.0/16"},
        }
    )


def test_what_a_manifest_says_of_auditing_is_read() -> None:
    found = audit(FULL)

    assert found.flags["audit-policy-file"] == "/etc/kubernetes/audit-policy.yaml"
    assert len(found.flags) == 5
    assert len(found.environment) == 4
    assert [each["mountPath"] for each in found.volumes] == [
        "/var/log/kubernetes",
        "/etc/kubernetes/audit-policy.yaml",
    ]
    assert audit(MANIFEST) == Audit()


def test_settings_that_somebody_else_has_made_are_kept_for_upgrades_too() -> None:
    theirs = MANIFEST.replace(
        "    image:", "    - --audit-policy-file=/etc/kubernetes/audit-policy.yaml\n    image:"
    ).replace("/etc/kubernetes/pki", "/etc/kubernetes")
    found = audit(manifest.add(theirs, SETTINGS))

    assert found.flags["audit-policy-file"] == "/etc/kubernetes/audit-policy.yaml"
    assert [each["mountPath"] for each in found.volumes] == [
        "/etc/kubernetes",
        "/var/log/kubernetes",
    ]


@pytest.mark.parametrize("form", ["v1beta2", "v1beta3"])
def test_older_forms_have_a_mapping_and_no_environment(form: str) -> None:
    text = agree(configuration(form, extraArgs={"v": "2"}), Audit(), audit(FULL))
    assert text is not None
    server = yaml.safe_load(text)["apiServer"]

    assert server["extraArgs"]["audit-log-maxsize"] == "100"
    assert server["extraArgs"]["v"] == "2"
    assert "extraEnvs" not in server
    assert not kubeadm.keeps_environment(text)


def test_the_newer_form_has_lists() -> None:
    text = agree(configuration("v1beta4"), Audit(), audit(FULL))
    assert text is not None
    server = yaml.safe_load(text)["apiServer"]

    assert {"name": "audit-log-maxsize", "value": "100"} in server["extraArgs"]
    assert {"name": "aliyun_logs_audit-c1_jsonfile", "value": "true"} in server["extraEnvs"]
    assert server["extraVolumes"][1] == {
        "name": "audit-policy",
        "hostPath": "/etc/kubernetes/audit-policy.yaml",
        "mountPath": "/etc/kubernetes/audit-policy.yaml",
        "readOnly": True,
        "pathType": "File",
    }
    assert kubeadm.keeps_environment(text)


@pytest.mark.parametrize("form", ["v1beta3", "v1beta4"])
def test_once_is_enough_and_out_is_as_before(form: str) -> None:
    before = configuration(form)
    after = agree(before, Audit(), audit(FULL))
    assert after is not None

    assert agree(after, Audit(), audit(FULL)) is None
    assert agree(after, audit(FULL), audit(FULL)) is None
    restored = agree(after, audit(FULL), Audit())
    assert restored is not None
    assert yaml.safe_load(restored) == yaml.safe_load(before)


def test_changed_settings_leave_nothing_of_the_former() -> None:
    moved = manifest.add(
        MANIFEST, Settings(policy_sha256="0" * 64, cluster_id="c2", log_path="/var/log/k/a.log")
    )
    after = agree(configuration("v1beta4"), Audit(), audit(FULL))
    assert after is not None
    changed = agree(after, audit(FULL), audit(moved))
    assert changed is not None

    assert "/var/log/kubernetes" not in changed
    assert "audit-c1" not in changed
    assert len(yaml.safe_load(changed)["apiServer"]["extraVolumes"]) == 2


def test_a_value_of_somebody_else_comes_back() -> None:
    theirs = MANIFEST.replace("    image:", "    - --audit-log-maxage=3\n    image:")
    full = manifest.add(theirs, Settings(policy_sha256="0" * 64, cluster_id="c1", take_over=True))
    args = [{"name": "audit-log-maxage", "value": "3"}, {"name": "v", "value": "2"}]
    before = configuration("v1beta4", extraArgs=args)
    after = agree(before, Audit(), audit(full))
    assert after is not None
    assert {"name": "audit-log-maxage", "value": "30"} in yaml.safe_load(after)["apiServer"][
        "extraArgs"
    ]
    restored = agree(after, audit(full), audit(manifest.remove(full)))
    assert restored is not None

    assert agree(before, Audit(), Audit()) is None
    back = yaml.safe_load(restored)["apiServer"]["extraArgs"]
    assert sorted(back, key=str) == sorted(args, key=str)


@pytest.mark.parametrize("text", ["[]", "kind: x", configuration("v1beta9")])
def test_an_unknown_form_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="unknown form"):
        agree(text, Audit(), audit(FULL))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--audit-log-maxage=3"], {"audit-log-maxage": "3"}),
        (["--audit-log-maxage", "3"], {"audit-log-maxage": "3"}),
        (["--audit_log_maxage=3", "--audit-log-maxage=4"], {"audit-log-maxage": "4"}),
        (["--audit-log-maxage"], {"audit-log-maxage": ""}),
        (["--v=2"], {}),
    ],
)
def test_flags_are_read_as_the_server_does(words: list[str], found: dict[str, str]) -> None:
    assert kubeadm.flags_of(words) == found
