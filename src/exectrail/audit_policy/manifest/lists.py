"""A manifest under edit: lists and annotations that grow from nothing and vanish again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from exectrail.audit_policy.manifest import splice
from exectrail.audit_policy.manifest.document import Data, Document, ManifestError, Path
from exectrail.audit_policy.manifest.record import Record, load_record
from exectrail.audit_policy.manifest.server import METADATA, SPEC, find_container
from exectrail.printable import printable

POLICY_ANNOTATION = "exectrail.audit/policy-sha256"
RECORD_ANNOTATION = "exectrail.audit/before"
_ANNOTATIONS: Path = (*METADATA, "annotations")


@dataclass(frozen=True, order=True, slots=True)
class Conflict:
    """A value that somebody else set, and the one that is wanted."""

    line: int
    what: str
    present: str
    wanted: str


class Manifest:
    """The document, replaced by each edit, with the record of what was there before ours.

    `managed` says that an earlier run has edited it; `notes` are for the user.
    """

    def __init__(self, doc: Document) -> None:
        """Find the API server; raise ManifestError if `doc` is not its manifest."""
        self.doc = doc
        self.container = find_container(doc)
        self.notes: list[str] = []
        annotations = doc.find(_ANNOTATIONS)
        if annotations and not isinstance(annotations.data, dict | None):
            raise ManifestError("annotations is no mapping; write it as one", annotations.line)
        record = self.annotation(RECORD_ANNOTATION)
        self.managed = record is not None or self.annotation(POLICY_ANNOTATION) is not None
        self.record: Record = load_record(
            record or "", doc.line((*_ANNOTATIONS, RECORD_ANNOTATION))
        )

    def annotation(self, name: str) -> str | None:
        """Return the pod's annotation `name`; None if there is none."""
        node = self.doc.find((*_ANNOTATIONS, name))
        if node is None:
            return None
        if not isinstance(node.data, str):
            raise ManifestError(f"{name} is not text; put it in quotes", node.line)
        return node.data

    def former(self, place: Path) -> str:
        """Return the source text of a value that is to be taken over."""
        source = splice.source(self.doc, place)
        node = self.doc.node(place)
        if load_fragment(source, node.line) != node.data:
            raise ManifestError("a value over several lines; write it on one line", node.line)
        return source

    def annotate(self, name: str, value: str | None) -> None:
        """Set the pod's annotation, or take it out."""
        present = self.annotation(name)
        if value is None:
            if present is not None:
                self.shrink(_ANNOTATIONS, [name])
        elif present is None:
            self.grow(METADATA, "annotations", {name: value})
        elif present != value:
            self.doc = splice.replace(self.doc, (*_ANNOTATIONS, name), value)

    def grow(self, owner: Path, key: str, more: list[Data] | dict[str, Data]) -> None:
        """Add items, or entries, to the collection under `key` of `owner`; make it if need be."""
        place: Path = (*owner, key)
        node = self.doc.find(place)
        if node is None:
            indent = splice.list_indent(self.doc, SPEC, "containers")
            self.doc = splice.put(self.doc, place, more, list_indent=indent)
            return
        if not node.data:
            start, end = splice.behind_key(self.doc, place)
            self.record.empty[key] = self.doc.text[start:end]
            if node.data is None:
                empty: Data = [] if isinstance(more, list) else {}
                self.doc = splice.rewrite(self.doc, place, f" {empty}", empty)
        if isinstance(more, list):
            self.doc = splice.append(self.doc, place, more)
        else:
            for name, value in more.items():
                self.doc = splice.put(self.doc, (*place, name), value)

    def shrink(self, place: Path, steps: Sequence[str | int]) -> None:
        """Take items, or entries, out of the collection at `place`; and that, if it was made.

        Positions must ascend.
        """
        node = self.doc.node(place)
        if len(steps) < len(node.children):
            for step in reversed(steps):
                self.doc = splice.cut(self.doc, (*place, step))
            return
        former = self.record.empty.pop(str(place[-1]), None)
        if former is None:
            self.doc = splice.cut(self.doc, place)
        else:
            value = load_fragment(former, node.line)
            self.doc = splice.rewrite(self.doc, place, former, value)


def load_fragment(source: str, line: int) -> Any:
    """Return what a value's recorded source text means; it was ours to write, not to trust."""
    try:
        value = yaml.safe_load(source)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ManifestError(
            f"the recorded former text {printable(source, limit=80)!r} is not YAML; "
            "put the annotation's former text back",
            line,
        ) from error
    return value


def cautions(manifest: Manifest) -> list[str]:
    """Say what an editor of the manifest alone can't make good."""
    doc, notes = manifest.doc, []
    for owner in (manifest.container, SPEC):
        node = doc.find((*owner, "securityContext", "runAsUser"))
        user = doc.text[node.start : node.end] if node else ""
        if node and user not in {"0", "null", ""}:
            notes.append(
                f"line {node.line}: the server runs as user {printable(user)}, who must be able to "
                "read the policy file and to write into the log's folder."
            )
            break
    return notes
