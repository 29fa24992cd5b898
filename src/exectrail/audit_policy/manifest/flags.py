"""The audit flags: what is ours of them, what somebody else set, what is wanted."""

from __future__ import annotations

from typing import Any

from exectrail.audit_policy.manifest import splice
from exectrail.audit_policy.manifest.document import ManifestError, Path
from exectrail.audit_policy.manifest.lists import Conflict, Manifest, load_fragment
from exectrail.audit_policy.manifest.record import Dropped
from exectrail.audit_policy.manifest.server import Flag, command_list, find_flags
from exectrail.audit_policy.manifest.settings import FLAGS, Settings
from exectrail.printable import printable


def flag_conflicts(manifest: Manifest, wanted: dict[str, str]) -> list[Conflict]:
    """Return the flags that somebody else set to other values."""
    ours = _ours(manifest)
    return [
        Conflict(manifest.doc.line(uses[-1].places[0]), f"--{name}", uses[-1].value, wanted[name])
        for name, uses in find_flags(manifest.doc, manifest.container, FLAGS).items()
        if uses and name not in ours and uses[-1].value != wanted[name]
    ]


def _ours(manifest: Manifest) -> set[str]:
    kept = manifest.record.kept
    return {name for name in FLAGS if manifest.managed and f"flag:{name}" not in kept}


def add_flags(manifest: Manifest, settings: Settings) -> None:
    """Let each flag be there once, with the wanted value."""
    wanted = settings.flags()
    found = find_flags(manifest.doc, manifest.container, FLAGS)
    ours = _ours(manifest)
    for name, uses in found.items():
        if len(uses) > 1:
            _note_repetition(manifest, name, uses)
    _collapse(manifest, found, ours)
    missing: list[Any] = []
    for name, uses in find_flags(manifest.doc, manifest.container, FLAGS).items():
        if uses:
            _set_flag(manifest, uses[0], wanted[name], ours=name in ours, adopt=settings.adopt)
        else:
            manifest.record.kept.discard(f"flag:{name}")
            missing.append(f"--{name}={wanted[name]}")
    if missing:
        place = command_list(manifest.doc, manifest.container)
        manifest.doc = splice.append(manifest.doc, place, missing)


def _set_flag(manifest: Manifest, flag: Flag, value: str, *, ours: bool, adopt: bool) -> None:
    key, place = f"flag:{flag.name}", flag.places[-1]
    if flag.value == value:
        if not ours and not adopt:
            manifest.record.kept.add(key)
        return
    if not ours:
        manifest.record.kept.discard(key)
        manifest.record.former[key] = manifest.former(place)
    text = value if len(flag.places) > 1 else f"--{flag.name}={value}"
    manifest.doc = splice.replace(manifest.doc, place, text)


def _note_repetition(manifest: Manifest, name: str, uses: list[Flag]) -> None:
    lines = ", ".join(str(manifest.doc.line(use.places[0])) for use in uses)
    manifest.notes.append(
        f"--{name} is given {len(uses)} times (lines {lines}); the server obeys the last, "
        f"{printable(uses[-1].value, limit=200)}, and the others are taken out."
    )


def _collapse(manifest: Manifest, found: dict[str, list[Flag]], ours: set[str]) -> None:
    """Take out all uses of a flag but the last, from the end of the list on."""
    doomed = [
        (place, name) for name, uses in found.items() for use in uses[:-1] for place in use.places
    ]
    order = sorted(doomed, key=lambda each: (str(each[0][-2]), int(each[0][-1])), reverse=True)
    for place, name in order:
        doc = manifest.doc
        start, end = splice.extent(doc, place)
        if name not in ours:
            key, index = str(place[-2]), int(place[-1])
            at = start - splice.behind_key(doc, place[:-1])[0]
            value = str(doc.node(place).data)
            manifest.record.dropped.append(Dropped(key, index, value, at, doc.text[start:end]))
        manifest.doc = splice.cut(doc, place)


def remove_flags(manifest: Manifest) -> None:
    """Take out our flags and put back what they replaced."""
    record = manifest.record
    uses = find_flags(manifest.doc, manifest.container, FLAGS)
    doomed: list[Path] = []
    for name, found in uses.items():
        former = record.former.get(f"flag:{name}")
        if former is not None and found:
            _restore_flag(manifest, found[-1], former)
        elif f"flag:{name}" not in record.kept:
            doomed += [place for use in found for place in use.places]
    for key in ("command", "args"):
        place: Path = (*manifest.container, key)
        positions = sorted(int(each[-1]) for each in doomed if each[-2] == key)
        if positions:
            manifest.shrink(place, positions)
    _put_repetitions_back(manifest)


def _put_repetitions_back(manifest: Manifest) -> None:
    """Put them back where they stood, unless they would now have an effect that they never had."""
    doc = manifest.doc
    try:
        for each in reversed(manifest.record.dropped):
            place: Path = (*manifest.container, each.key)
            doc = splice.paste(doc, (*place, each.index), each.value, each.at, each.text)
        before = find_flags(manifest.doc, manifest.container, FLAGS)
        after = find_flags(doc, manifest.container, FLAGS)
    except ManifestError:
        return
    if all(uses[-1].value == after[name][-1].value for name, uses in before.items() if uses):
        manifest.doc = doc


def _restore_flag(manifest: Manifest, flag: Flag, former: str) -> None:
    place = flag.places[-1]
    value = load_fragment(former, manifest.doc.line(place))
    whole = isinstance(value, str) and value.startswith("--") and "=" in value
    if not isinstance(value, str) or whole == (len(flag.places) > 1):
        raise ManifestError(
            f"--{flag.name} was rewritten since its former value was recorded; set it by hand to "
            f"{printable(former, limit=200)}, and take its name out of the record",
            manifest.doc.line(place),
        )
    manifest.doc = splice.restore(manifest.doc, place, former, value)
