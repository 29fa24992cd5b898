"""Each manifest here has the one it must become beside it; both are kept by hand."""

from pathlib import Path

import pytest

from exectrail.audit_policy.manifest import add, diff, edit, remove
from exectrail.audit_policy.manifest.settings import Settings

GOLDEN = Path(__file__).with_name("golden")
WANTED = {"policy_sha256": "3" * 64, "cluster_id": "c0ffee"}
CASES = {
    "anchors": {},
    "by-hand": {},
    "empty-keys": {},
    "end-comments": {},
    "flags-in-args": {},
    "flow-lists": {"take_over": True},
    "indented-lists": {},
    "json": {"take_over": True},
    "json-one-line": {},
    "kubeadm-1.20": {},
    "kubeadm-1.24": {"cluster_id": None},
    "kubeadm-1.29": {"log_collection": False},
    "kubeadm-1.31": {"log_maxsize": 250, "log_path": "/srv/audit/api.log"},
    "kubeadm-1.35": {},
    "names-taken": {},
    "no-last-newline": {},
    "nothing-yet": {},
    "other-names": {},
    "parent-mounted": {},
    "quoted": {"take_over": True},
    "read-only-root": {},
    "rendered-anew": {"adopt": True},
    "repeated": {"take_over": True},
    "side-car": {},
    "take-over": {"take_over": True},
    "two-items": {"take_over": True},
}


def read(name: str, which: str) -> str:
    return (GOLDEN / f"{name}.{which}.yaml").read_bytes().decode()


def test_every_file_has_a_case() -> None:
    names = {path.name for path in GOLDEN.iterdir()}
    assert names == {f"{name}.{which}.yaml" for name in CASES for which in ("in", "out")}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    before, after = read(name, "in"), read(name, "out")
    settings = Settings(**(WANTED | CASES[name]))
    assert add(before, settings) == after
    assert add(after, settings) == after
    assert diff(after, settings) == ""
    assert diff(before, settings)
    assert remove(before) == before
    if name != "rendered-anew":  # what is adopted is ours, and goes
        assert remove(after) == before


def test_adopted_settings_are_removed() -> None:
    assert remove(read("rendered-anew", "out")) == read("kubeadm-1.35", "in")


def test_what_was_set_by_hand_stays() -> None:
    before = read("by-hand", "in")
    assert "audit-policy-file" in remove(add(before, Settings(**WANTED)))


def test_repeated_flags_are_told() -> None:
    notes = edit(read("repeated", "in"), Settings(take_over=True)).notes
    assert [note.split(";")[0] for note in notes] == [
        "--audit-log-maxsize is given 2 times (lines 9, 14)",
        "--audit-log-maxage is given 2 times (lines 11, 16)",
    ]
