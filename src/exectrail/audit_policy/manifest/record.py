"""What `remove` has to leave or put back, kept in an annotation of the pod itself.

A manifest that had nothing of ours needs no record: all that is there later is ours.
"""

from __future__ import annotations

import json

import msgspec

from exectrail.audit_policy.manifest.document import ManifestError


class Dropped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A repetition of a flag that was taken out of the list `key` (command or args).

    `at` counts characters from the end of that key, `text` is what stood there, `index` and
    `value` are the item.
    """

    key: str
    index: int
    value: str
    at: int
    text: str


class Record(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Things are named ``flag:NAME``, ``env:NAME`` and ``mount:log`` or ``mount:policy``.

    - `kept`: was there before and is not ours.
    - `former`: source text of values taken over.
    - `dropped`: repetitions, in the order in which they were taken out.
    - `names`: volume names by role, where the preferred one was taken.
    - `empty`: source text behind the colon of keys that were there with nothing in them.
    """

    kept: set[str] = msgspec.field(default_factory=set)
    former: dict[str, str] = msgspec.field(default_factory=dict)
    dropped: list[Dropped] = msgspec.field(default_factory=list)
    names: dict[str, str] = msgspec.field(default_factory=dict)
    empty: dict[str, str] = msgspec.field(default_factory=dict)

    def dump(self) -> str:
        """Return the record as text, "" when there is nothing to record."""
        data = {key: value for key, value in msgspec.to_builtins(self).items() if value}
        if "kept" in data:
            data["kept"] = sorted(data["kept"])
        return json.dumps(data, sort_keys=True) if data else ""


def load_record(text: str, line: int) -> Record:
    """Read what `Record.dump` wrote; ManifestError, naming `line`, for anything else."""
    try:
        return msgspec.json.decode(text or "{}", type=Record)
    except (msgspec.DecodeError, ValueError) as error:
        raise ManifestError(
            "the record of what was here before the audit settings was edited; put the former "
            "text of this annotation back, or take the annotation and the settings out by hand",
            line,
        ) from error
