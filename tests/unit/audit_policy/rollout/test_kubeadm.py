from __future__ import annotations

from typing import Any

import pytest
import yaml

from exectrail.audit_policy import manifest
from exectrail.audit_policy.manifest_settings import Settings
from exectrail.audit_policy.rollout import kubeadm
from exectrail.audit_policy.rollout.kubeadm import Ours, agree, ours
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


def test_ours_is_what_the_editor_has_added() -> None:
    found = ours(FULL)

    assert found.flags["audit-policy-file"] == "/etc/kubernetes/audit-policy.yaml"
    assert len(found.flags) == 5
    assert len(found.environment) == 4
    assert [each["mountPath"] for each in found.volumes] == [
        "/var/log/kubernetes",
        "/etc/kubernetes/audit-policy.yaml",
    ]
    assert ours(MANIFEST) == Ours()


def test_a_mount_of_somebody_else_is_not_ours() -> None:
    theirs = MANIFEST.replace("/etc/kubernetes/pki", "/var/log/kubernetes")
    theirs = theirs.replace("      readOnly: true\n", "")

    assert len(ours(manifest.add(theirs, SETTINGS)).volumes) == 1


@pytest.mark.parametrize("form", ["v1beta2", "v1beta3"])
def test_older_forms_have_a_mapping_and_no_environment(form: str) -> None:
    text = agree(configuration(form, extraArgs={"v": "2"}), Ours(), ours(FULL))
    assert text is not None
    server = yaml.safe_load(text)["apiServer"]

    assert server["extraArgs"]["audit-log-maxsize"] == "100"
    assert server["extraArgs"]["v"] == "2"
    assert "extraEnvs" not in server
    assert not kubeadm.keeps_environment(text)


def test_the_newer_form_has_lists() -> None:
    text = agree(configuration("v1beta4"), Ours(), ours(FULL))
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
    after = agree(before, Ours(), ours(FULL))
    assert after is not None

    assert agree(after, Ours(), ours(FULL)) is None
    assert agree(after, ours(FULL), ours(FULL)) is None
    restored = agree(after, ours(FULL), Ours())
    assert restored is not None
    assert yaml.safe_load(restored) == yaml.safe_load(before)


def test_changed_settings_leave_nothing_of_the_former() -> None:
    moved = manifest.add(
        MANIFEST, Settings(policy_sha256="0" * 64, cluster_id="c2", log_path="/var/log/k/a.log")
    )
    after = agree(configuration("v1beta4"), Ours(), ours(FULL))
    assert after is not None
    changed = agree(after, ours(FULL), ours(moved))
    assert changed is not None

    assert "/var/log/kubernetes" not in changed
    assert "audit-c1" not in changed
    assert len(yaml.safe_load(changed)["apiServer"]["extraVolumes"]) == 2


def test_a_value_of_somebody_else_comes_back() -> None:
    theirs = MANIFEST.replace("    image:", "    - --audit-log-maxage=3\n    image:")
    full = manifest.add(theirs, Settings(policy_sha256="0" * 64, cluster_id="c1", take_over=True))
    args = [{"name": "audit-log-maxage", "value": "3"}, {"name": "v", "value": "2"}]
    before = configuration("v1beta4", extraArgs=args)
    after = agree(before, Ours(), ours(full))
    assert after is not None
    assert {"name": "audit-log-maxage", "value": "30"} in yaml.safe_load(after)["apiServer"][
        "extraArgs"
    ]
    restored = agree(after, ours(full), Ours())
    assert restored is not None

    assert agree(before, Ours(), Ours()) is None
    back = yaml.safe_load(restored)["apiServer"]["extraArgs"]
    assert sorted(back, key=str) == sorted(args, key=str)


@pytest.mark.parametrize("text", ["[]", "kind: x", configuration("v1beta9")])
def test_an_unknown_form_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="unknown form"):
        agree(text, Ours(), ours(FULL))


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
