"""Container images as `docker save` writes them: one layer, one configuration, one manifest."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Image:
    """What goes into an image.

    `files` maps paths inside (no leading slash) to files here, `links` to symbolic links' targets,
    `texts` to contents; `folders` are made empty and for everyone, like /tmp. With `base`, a tar
    file, its content is the image's and the other four stay empty.
    """

    name: str
    command: Sequence[str]
    files: Mapping[str, Path] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()
    base: Path | None = None


def write(image: Image, target: Path) -> None:
    """Write IMAGE to TARGET, a tar file that `ctr image import` and `podman load` read."""
    layer = target.with_suffix(".layer")
    if image.base is None:
        _write_layer(image, layer)
    else:
        layer = image.base
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Cmd": list(image.command),
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [image.name], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        archive.add(layer, "layer.tar")
        _add(archive, name, configuration)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    if image.base is None:
        layer.unlink()


def _write_layer(image: Image, path: Path) -> None:
    with tarfile.open(path, "w") as layer:
        for folder in image.folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            layer.addfile(entry)
        for inside, text in image.texts.items():
            _add(layer, inside, text.encode())
        for inside, source in image.files.items():
            entry = tarfile.TarInfo(inside)
            entry.mode, entry.size = 0o755, source.stat().st_size
            with source.open("rb") as content:
                layer.addfile(entry, content)
        for inside, to in image.links.items():
            entry = tarfile.TarInfo(inside)
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            layer.addfile(entry)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o644, len(content)
    archive.addfile(entry, io.BytesIO(content))


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()
