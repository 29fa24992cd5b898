"""Each case has the change that its manifest must get beside it; both are kept by hand."""

import difflib
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from exectrail.audit_policy.manifest import add, diff, edit, remove
from exectrail.audit_policy.manifest.settings import Settings

GOLDEN = Path(__file__).with_name("golden")
WANTED = {"policy_sha256": "3" * 64, "cluster_id": "c0ffee"}
TAKE_OVER = {"take_over": True}
CASES: dict[str, dict[str, Any]] = {
    **{path.stem: {} for path in GOLDEN.glob("*.yaml")},
    **dict.fromkeys(
        ("flow-lists", "json", "quoted", "repeated", "take-over", "two-items"), TAKE_OVER
    ),
    "no-cluster-id": {"cluster_id": None},
    "no-log-collection": {"log_collection": False},
    "other-log": {"log_maxsize": 250, "log_path": "/srv/audit/api.log"},
    "rendered-anew": {"adopt": True},
}
OF = {"rendered-anew": "by-hand"}
"""The manifest of a case that has none of its name, if not kubeadm's."""


def manifest(name: str) -> str:
    path = GOLDEN / f"{name}.yaml"
    return path.read_bytes().decode() if path.exists() else manifest(OF.get(name, "kubeadm-1.35"))


def changes(before: str, after: str) -> str:
    """The difference, which with the text before tells the text after to the letter."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), n=1
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\\n" for line in islice(lines, 2, None)
    )


def test_every_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.diff")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    before = manifest(name)
    settings = Settings(**(WANTED | CASES[name]))
    after = add(before, settings)
    assert changes(before, after) == (GOLDEN / f"{name}.diff").read_bytes().decode()
    assert add(after, settings) == after
    assert diff(after, settings) == ""
    assert diff(before, settings)
    assert remove(before) == before
    # What is adopted is ours, and goes.
    assert remove(after) == (manifest("kubeadm-1.35") if name == "rendered-anew" else before)


def test_what_was_set_by_hand_stays() -> None:
    before = manifest("by-hand")
    assert "audit-policy-file" in remove(add(before, Settings(**WANTED)))


def test_repeated_flags_are_told() -> None:
    notes = edit(manifest("repeated"), Settings(take_over=True)).notes
    assert [note.split(";")[0] for note in notes] == [
        "--audit-log-maxsize is given 2 times (lines 9, 14)",
        "--audit-log-maxage is given 2 times (lines 11, 16)",
    ]
