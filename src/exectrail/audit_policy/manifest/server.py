"""The kube-apiserver in a Pod's manifest: its container, flags and mounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from exectrail.audit_policy.manifest.document import Data, Document, ManifestError, Node, Path
from exectrail.audit_policy.manifest.settings import Place
from exectrail.printable import printable

_NAMES = ("kube-apiserver", "hyperkube")
_COMMANDS = ("command", "args")
SPEC: Path = ("spec",)
METADATA: Path = ("metadata",)


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as given: `places` are its item or, for ``--name value``, both of its items."""

    name: str
    value: str
    places: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    place: Path
    text: str


def find_container(doc: Document) -> Path:
    """Return where the kube-apiserver's container stands; ManifestError if that isn't clear."""
    pod = _mapping(doc, ())
    if pod.get("apiVersion") != "v1" or pod.get("kind") != "Pod":
        kind = printable(str(pod.get("kind")), limit=80)
        raise ManifestError(f"not a Pod of v1 but {kind}; give the API server's manifest", 1)
    _mapping(doc, METADATA)
    _mapping(doc, SPEC)
    places: list[Path] = [
        (*SPEC, "containers", i) for i, _ in enumerate(items_of(doc, SPEC, "containers"))
    ]
    found = [place for place in places if _mapping(doc, place).get("name") == "kube-apiserver"]
    found = found or [place for place in places if _runs_server(doc, place)]
    if len(found) != 1:
        count = f"{len(found)} containers are" if found else "no container is"
        raise ManifestError(
            f"{count} kube-apiserver, by name or by command; give the API server's manifest",
            doc.line((*SPEC, "containers")),
        )
    _check_command(doc, found[0])
    return found[0]


def command_list(doc: Document, container: Path) -> Path:
    """Return the list that further flags go to: ``args`` if the flags are there, or ``command``."""
    args = doc.find((*container, "args"))
    return (*container, "args" if args and args.data else "command")


def find_flags(doc: Document, container: Path, names: tuple[str, ...]) -> dict[str, list[Flag]]:
    """Return all occurrences of the flags `names` (without dashes), in order; the last counts."""
    found: dict[str, list[Flag]] = {name: [] for name in names}
    items = _items(doc, container)
    position = 0
    while position < len(items):
        item = items[position]
        position += 1
        name, equals, value = item.text.removeprefix("--").partition("=")
        name = name.replace("_", "-")  # the server takes both
        if not item.text.startswith("--") or name not in found:
            continue
        if equals:
            found[name].append(Flag(name, value, (item.place,)))
            continue
        if position == len(items):
            raise ManifestError(
                f"--{name} has no value; write --{name}=VALUE", doc.line(item.place)
            )
        found[name].append(Flag(name, items[position].text, (item.place, items[position].place)))
        position += 1
    return found


def items_of(doc: Document, owner: Path, key: str) -> list[dict[str, Any]]:
    """Return the list of mappings under `key` of `owner`; [] if there is none."""
    node = doc.find((*owner, key))
    if node is None or node.data is None:
        return []
    if not isinstance(node.data, list):
        raise ManifestError(f"{key} is no list; write it as one", node.line)
    for child in node.children:
        if not isinstance(child.data, dict) or not isinstance(child.data.get("name"), str):
            raise ManifestError(f"an item of {key} without a name; give it one", child.line)
    return [dict(child.data) for child in node.children if isinstance(child.data, dict)]


def is_mounted(doc: Document, container: Path, place: Place, ours: set[str]) -> bool:
    """Say whether somebody else's mount already gives the server `place` at the same path.

    Volumes named in `ours` don't count. Raises ManifestError if a mount hides the place, gives
    something else under its path, or can't be written to.
    """
    mounts = [
        (i, mount)
        for i, mount in enumerate(items_of(doc, container, "volumeMounts"))
        if mount["name"] not in ours
        and PurePosixPath(place.target).is_relative_to(str(mount.get("mountPath")))
    ]
    if not mounts:
        return False
    i, mount = max(mounts, key=lambda each: len(PurePosixPath(str(each[1].get("mountPath"))).parts))
    line = doc.line((*container, "volumeMounts", i))
    mounted = str(mount["mountPath"])
    source = _host_path(doc, mount)
    if source is None or source / PurePosixPath(place.target).relative_to(mounted) != (
        PurePosixPath(place.target)
    ):
        origin = f"the host's {source}" if source else "a volume that is no host path"
        raise ManifestError(
            f"{printable(mounted)} in the container is {printable(origin)}, so that {place.target} "
            "is not the host's; choose another path, or take that mount out",
            line,
        )
    if place.writable and mount.get("readOnly") is True:
        raise ManifestError(
            f"{printable(mounted)} is mounted read-only, so that the server can't write its log to "
            f"{place.target}; choose another log_path, or let that mount be writable",
            line,
        )
    return True


def check_only_ours(doc: Document, container: Path, volume: str) -> None:
    """Raise ManifestError if another container mounts `volume`, which is to be taken out."""
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for i, other in enumerate(items_of(doc, SPEC, key)):
            place: Path = (*SPEC, key, i)
            mounts = items_of(doc, place, "volumeMounts")
            if place != container and any(mount["name"] == volume for mount in mounts):
                raise ManifestError(
                    f"the container {printable(str(other['name']))!r} also mounts the volume "
                    f"{volume}, which is to be taken out; take that mount out first",
                    doc.line((*place, "volumeMounts")),
                )


def _host_path(doc: Document, mount: dict[str, Any]) -> PurePosixPath | None:
    """Return the host's path behind a mount, None if it isn't the host's or can't be known."""
    volumes = [v for v in items_of(doc, SPEC, "volumes") if v["name"] == mount["name"]]
    host = volumes[0].get("hostPath") if len(volumes) == 1 else None
    path = host.get("path") if isinstance(host, dict) else None
    below = mount.get("subPath", "")
    if not isinstance(path, str) or not isinstance(below, str) or mount.get("subPathExpr"):
        return None
    return PurePosixPath(path) / below


def _mapping(doc: Document, path: Path) -> dict[str, Data]:
    node = doc.find(path)
    name = str(path[-1]) if path else "the document"
    if node is None or not isinstance(node.data, dict) or not node.data:
        raise ManifestError(f"{name} is missing or no mapping; give a Pod", doc.line(path))
    if "<<" in node.data:
        raise ManifestError("a merge key (<<); write its values out", _line_of(node, "<<"))
    return node.data


def _line_of(node: Node, key: str) -> int:
    return next(each.line for each in node.keys if each.data == key)


def _items(doc: Document, container: Path) -> list[_Item]:
    items = []
    for key in _COMMANDS:
        node = doc.find((*container, key))
        if node is None or node.data is None:
            continue
        if not isinstance(node.data, list):
            raise ManifestError(f"{key} is no list; write it out as one", node.line)
        for i, child in enumerate(node.children):
            if not isinstance(child.data, str):
                raise ManifestError(f"an item of {key} that is not text; quote it", child.line)
            items.append(_Item((*container, key, i), child.data))
    return items


def _runs_server(doc: Document, container: Path) -> bool:
    return any(PurePosixPath(item.text).name in _NAMES for item in _items(doc, container))


def _check_command(doc: Document, container: Path) -> None:
    items = _items(doc, container)
    line = doc.line((*container, "command"))
    if not items:
        raise ManifestError("the server's flags are not here (no command, no args)", line)
    if doc.node(container).data and "command" in _mapping(doc, container):
        command = doc.node((*container, "command"))
        if command.data and not _runs_server(doc, container):
            raise ManifestError(
                "the command is not kube-apiserver itself (a shell?): flags can't be added; "
                "run the server directly, its flags as a list",
                line,
            )
    for item in items:
        if item.text == "--":
            raise ManifestError("'--' ends the flags; take it out", doc.line(item.place))
