"""The environment variables for log collection: ours, somebody else's, wanted."""

from __future__ import annotations

from typing import Any

from exectrail.audit_policy.manifest import splice
from exectrail.audit_policy.manifest.document import ManifestError, Path
from exectrail.audit_policy.manifest.lists import Conflict, Manifest, load_fragment
from exectrail.audit_policy.manifest.server import items_of
from exectrail.audit_policy.manifest.settings import ENV_NAME, Settings
from exectrail.printable import printable


def _environment(manifest: Manifest) -> dict[str, int]:
    """Return the positions of the variables for log collection, whoever set them."""
    found: dict[str, int] = {}
    for i, item in enumerate(items_of(manifest.doc, manifest.container, "env")):
        name = item["name"]
        if not ENV_NAME.fullmatch(name):
            continue
        if name in found:
            raise ManifestError(
                f"the variable {printable(name)} is here twice; take one out",
                manifest.doc.line((*manifest.container, "env", i)),
            )
        found[name] = i
    return found


def _our_variables(manifest: Manifest, found: dict[str, int]) -> set[str]:
    """Return those that an earlier run added: they are of one cluster id, the first not kept."""
    kept = manifest.record.kept
    names = [name for name in found if manifest.managed and f"env:{name}" not in kept]
    own = next((_cluster_id(name) for name in names), None)
    return {name for name in names if _cluster_id(name) == own}


def _cluster_id(name: str) -> str:
    match = ENV_NAME.fullmatch(name)
    return match["id"] if match else ""


def environment_conflicts(manifest: Manifest, wanted: dict[str, str]) -> list[Conflict]:
    """Return the variables that somebody else set to other values."""
    found = _environment(manifest)
    conflicts = []
    for name in found.keys() & wanted.keys() - _our_variables(manifest, found):
        place: Path = (*manifest.container, "env", found[name])
        present = _plain_value(manifest, place, name)
        if present != wanted[name]:
            conflicts.append(Conflict(manifest.doc.line(place), name, present, wanted[name]))
    return conflicts


def _plain_value(manifest: Manifest, place: Path, name: str) -> str:
    node = manifest.doc.find((*place, "value"))
    if node is None or not isinstance(node.data, str):
        raise ManifestError(
            f"the variable {printable(name)} has no plain value; take it out",
            manifest.doc.line(place),
        )
    return node.data


def add_environment(manifest: Manifest, settings: Settings) -> None:
    """Let the variables of this cluster id be there with the wanted values, ours of others not."""
    wanted = settings.environment()
    found = _environment(manifest)
    ours = _our_variables(manifest, found)
    for name in found:
        if name in wanted:
            _set_variable(manifest, settings, name, wanted[name], ours=name in ours)
        elif name not in ours:
            manifest.record.kept.add(f"env:{name}")
    missing: list[Any] = [
        {"name": name, "value": value} for name, value in wanted.items() if name not in found
    ]
    manifest.record.kept -= {f"env:{item['name']}" for item in missing}
    if missing:
        manifest.grow(manifest.container, "env", missing)
    _take_variables_out(manifest, ours - wanted.keys())


def _set_variable(
    manifest: Manifest, settings: Settings, name: str, value: str, *, ours: bool
) -> None:
    key = f"env:{name}"
    place: Path = (*manifest.container, "env", _environment(manifest)[name])
    if _plain_value(manifest, place, name) == value:
        if not ours and not settings.adopt:
            manifest.record.kept.add(key)
        return
    value_place: Path = (*place, "value")
    if not ours:
        manifest.record.kept.discard(key)
        manifest.record.former[key] = manifest.former(value_place)
    manifest.doc = splice.replace(manifest.doc, value_place, value)


def _take_variables_out(manifest: Manifest, names: set[str]) -> None:
    doomed = []
    for name, i in _environment(manifest).items():
        if name not in names:
            continue
        former = manifest.record.former.pop(f"env:{name}", None)
        if former is None:
            doomed.append(i)
            continue
        place: Path = (*manifest.container, "env", i, "value")
        value = load_fragment(former, manifest.doc.line(place))
        manifest.doc = splice.restore(manifest.doc, place, former, value)
        manifest.record.kept.add(f"env:{name}")
    if doomed:
        manifest.shrink((*manifest.container, "env"), doomed)


def remove_environment(manifest: Manifest) -> None:
    """Take out our variables and put back what they replaced."""
    _take_variables_out(manifest, _our_variables(manifest, _environment(manifest)))
