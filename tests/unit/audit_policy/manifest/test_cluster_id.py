import pytest

from exectrail.audit_policy.manifest.cluster_id import choose_cluster_id
from exectrail.audit_policy.manifest.document import ManifestError

UID = "0b4b4cf2-0d0f-4b8e-9d39-6d6a4a2c7f11"


def test_configured_wins() -> None:
    assert choose_cluster_id("c1", UID).value == "c1"
    assert choose_cluster_id("c1", "").origin == "set by cluster_id"


@pytest.mark.parametrize("configured", [None, ""])
def test_derived_and_said_so(configured: str | None) -> None:
    chosen = choose_cluster_id(configured, f"{UID}\n")
    assert chosen.value == "c0b4b4cf20d0f4b8e9d396d6a4a2c7f11"
    assert "derived from the uid of the namespace kube-system" in chosen.origin


@pytest.mark.parametrize("uid", ["", "kube-system", UID[:-1]])
def test_no_uid(uid: str) -> None:
    with pytest.raises(ManifestError, match="set cluster_id"):
        choose_cluster_id(None, uid)


def test_configured_id_is_checked() -> None:
    with pytest.raises(ManifestError):
        choose_cluster_id("a b", UID)
