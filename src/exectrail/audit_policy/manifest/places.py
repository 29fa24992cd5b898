"""The mounts and volumes of the log's folder and the policy file."""

from __future__ import annotations

from exectrail.audit_policy.manifest import splice
from exectrail.audit_policy.manifest.document import Data, ManifestError, Path
from exectrail.audit_policy.manifest.lists import Manifest
from exectrail.audit_policy.manifest.server import SPEC, check_only_ours, is_mounted, items_of
from exectrail.audit_policy.manifest.settings import VOLUMES, Place, Settings


def add_places(manifest: Manifest, settings: Settings) -> None:
    """Let the server have each place once: through somebody else's mount, or through ours."""
    ours = {role: name for role in VOLUMES if (name := _our_volume(manifest, role))}
    for place in settings.places():
        key = f"mount:{place.role}"
        if settings.adopt and not manifest.managed and _is_exactly_ours(manifest, place):
            continue
        if is_mounted(manifest.doc, manifest.container, place, set(ours.values())):
            _take_out(manifest, place.role)
            manifest.record.kept.add(key)
            continue
        name = ours.get(place.role) or _free_name(manifest, place)
        manifest.record.kept.discard(key)
        if name != place.volume:
            manifest.record.names[place.role] = name
        _set(manifest, manifest.container, "volumeMounts", name, place.mount(name))
        _set(manifest, SPEC, "volumes", name, place.host_path(name))


def remove_places(manifest: Manifest) -> None:
    """Take out our mounts and volumes."""
    for role in VOLUMES:
        _take_out(manifest, role)


def _our_volume(manifest: Manifest, role: str) -> str | None:
    """Return the name of the volume that an earlier run added for `role`."""
    if not manifest.managed or f"mount:{role}" in manifest.record.kept:
        return None
    return manifest.record.names.get(role, VOLUMES[role])


def _is_exactly_ours(manifest: Manifest, place: Place) -> bool:
    mounts = items_of(manifest.doc, manifest.container, "volumeMounts")
    volumes = items_of(manifest.doc, SPEC, "volumes")
    return place.mount(place.volume) in mounts and place.host_path(place.volume) in volumes


def _free_name(manifest: Manifest, place: Place) -> str:
    """Return the preferred name, or one that says whose it is if that is taken."""
    taken = {volume["name"] for volume in items_of(manifest.doc, SPEC, "volumes")}
    for name in (place.volume, f"exectrail-{place.volume}"):
        if name not in taken:
            return name
    raise ManifestError(
        f"both {place.volume} and {name} are names of other volumes; rename one of them",
        manifest.doc.line((*SPEC, "volumes")),
    )


def _positions(manifest: Manifest, owner: Path, key: str, name: str) -> list[int]:
    items = items_of(manifest.doc, owner, key)
    return [i for i, item in enumerate(items) if item["name"] == name]


def _set(manifest: Manifest, owner: Path, key: str, name: str, wanted: dict[str, Data]) -> None:
    """Let the one item called `name` be `wanted`."""
    present = _positions(manifest, owner, key, name)
    if [manifest.doc.node((*owner, key, i)).data for i in present] == [wanted]:
        return
    manifest.grow(owner, key, [wanted])
    for i in reversed(present):
        manifest.doc = splice.cut(manifest.doc, (*owner, key, i))


def _take_out(manifest: Manifest, role: str) -> None:
    name = _our_volume(manifest, role)
    if name is None:
        return
    manifest.record.names.pop(role, None)
    check_only_ours(manifest.doc, manifest.container, name)
    for owner, key in ((manifest.container, "volumeMounts"), (SPEC, "volumes")):
        present = _positions(manifest, owner, key, name)
        if present:
            manifest.shrink((*owner, key), present)
