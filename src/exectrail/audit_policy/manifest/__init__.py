"""Audit settings in the kube-apiserver's manifest: put in, taken out, compared. Pure functions.

``add(add(x)) == add(x)`` and ``remove(add(x)) == remove(x)``, byte for byte; where nothing of ours
is in `x`, ``remove(x) == x``. A pod annotation marks a manifest as edited and holds the policy's
sha256; a second one is there only if `remove` has something to leave or to put back (see
`manifest_record`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from exectrail.audit_policy.manifest.document import Document, ManifestError
from exectrail.audit_policy.manifest.environment import (
    add_environment,
    environment_conflicts,
    remove_environment,
)
from exectrail.audit_policy.manifest.flags import add_flags, flag_conflicts, remove_flags
from exectrail.audit_policy.manifest.lists import (
    POLICY_ANNOTATION,
    RECORD_ANNOTATION,
    Conflict,
    Manifest,
    cautions,
)
from exectrail.audit_policy.manifest.places import add_places, remove_places
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.printable import printable

UNKNOWN_POLICY = "unknown"


@dataclass(frozen=True, slots=True)
class Edit:
    """The manifest's new text, and what its reader should know, a sentence each."""

    text: str
    notes: tuple[str, ...]


def add(text: str, settings: Settings) -> str:
    """Return the manifest with the audit settings; the same text if it has them already.

    Raises ManifestError, which names line and fix, for what can't be edited, and for values that
    somebody else set unless `settings.take_over`.
    """
    return edit(text, settings).text


def remove(text: str) -> str:
    """Return the manifest as it was before `add`; the same text if nothing of ours is in it.

    What others changed in between stays. Raises ManifestError as `add` does.
    """
    manifest = Manifest(Document(text))
    if not manifest.managed:
        return text
    remove_environment(manifest)
    remove_places(manifest)
    remove_flags(manifest)
    manifest.annotate(RECORD_ANNOTATION, None)
    manifest.annotate(POLICY_ANNOTATION, None)
    return manifest.doc.text


def is_managed(text: str) -> bool:
    """Say whether the manifest has settings of ours; raise ManifestError if it is none."""
    return Manifest(Document(text)).managed


def diff(text: str, settings: Settings, name: str = "kube-apiserver.yaml") -> str:
    """Return what `add` would change as a unified diff, "" for nothing; safe to print."""
    new = add(text, settings)
    lines = difflib.unified_diff(
        _lines(text), _lines(new), name, f"{name} (with the audit settings)", lineterm=""
    )
    return "".join(f"{printable(line)}\n" for line in lines)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if not lines[-1] else [*lines, "\\ No newline at end of file"]


def edit(text: str, settings: Settings) -> Edit:
    """Do what `add` does, and tell more."""
    manifest = Manifest(Document(text))
    conflicts = [
        *flag_conflicts(manifest, settings.flags()),
        *environment_conflicts(manifest, settings.environment()),
    ]
    if conflicts and not settings.take_over:
        raise _refusal(sorted(conflicts))
    add_flags(manifest, settings)
    add_environment(manifest, settings)
    add_places(manifest, settings)
    present = manifest.annotation(POLICY_ANNOTATION)
    manifest.annotate(POLICY_ANNOTATION, settings.policy_sha256 or present or UNKNOWN_POLICY)
    manifest.annotate(RECORD_ANNOTATION, manifest.record.dump() or None)
    return Edit(manifest.doc.text, (*manifest.notes, *cautions(manifest)))


def _refusal(conflicts: list[Conflict]) -> ManifestError:
    lines = [
        f"line {each.line}: {printable(each.what, limit=200)} is "
        f"{printable(each.present, limit=200)}, not {each.wanted}"
        for each in conflicts
    ]
    return ManifestError(
        "somebody else has set what the audit settings need:\n  "
        + "\n  ".join(lines)
        + "\nSet the same values, or replace them with --take-over (audit_policy_take_over: true); "
        "the former ones are kept in an annotation and put back by remove.",
        conflicts[0].line,
    )
