"""What a control group's path says about containers. Pure; a container may choose parts of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Not the monitor beside a container, which runs outside it: libpod-conmon-ID, crio-conmon-ID.
_NAMED = re.compile(rb"(?:.*[-:])?(?<!conmon-)([0-9a-f]{64})(?:\.scope)?", re.DOTALL)


def ancestors(path: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield the groups from the outermost down to `path` itself, without the hierarchy's root.

    With each comes the id of the container that its name names, "" if it names none.
    """
    end = 0
    for part in path.split(b"/"):
        end += len(part)
        if part:
            found = _NAMED.fullmatch(part)
            yield path[:end], found.group(1).decode("ascii") if found else ""
        end += 1


def configured(text: str) -> bytes:
    """Return the path that ``linux.cgroupsPath`` of a bundle means, b"" if it means none.

    Either a path, or ``slice:prefix:name`` for systemd: ``a-b.slice:docker:ID`` is
    ``/a.slice/a-b.slice/docker-ID.scope``.
    """
    slice_, _, unit = text.partition(":")
    prefix, colon, name = unit.partition(":")
    if colon and ":" not in name and "/" not in text:
        unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope".lstrip("-")
        text = "/".join([*_slices(slice_ or "system.slice"), unit])
    names = [part for part in text.split("/") if part]
    if not names or "." in names or ".." in names:
        return b""
    return ("/" + "/".join(names)).encode("utf-8", "replace")


def _slices(name: str) -> Iterator[str]:
    stem = name[: -len(".slice")] if name.endswith(".slice") else name  # noqa: FURB188 - Python 3.8
    if stem == "-":
        return
    end = stem.find("-", 1)
    while end != -1:
        yield stem[:end] + ".slice"
        end = stem.find("-", end + 1)
    yield stem + ".slice"


def of_process(text: bytes) -> list[bytes]:
    """Return the paths of ``/proc/PID/cgroup``, the second version's hierarchy first."""
    paths: list[bytes] = []
    for line in text.splitlines():
        hierarchy, _, rest = line.partition(b":")
        _, found, path = rest.partition(b":")
        if found and path.startswith(b"/") and path != b"/":
            paths.insert(0 if hierarchy == b"0" else len(paths), path)
    return list(dict.fromkeys(paths))


def base(path: bytes, container: str, expected: bytes) -> bytes:
    """Return which ancestor of `path` is the group of `container`, b"" if none is.

    That is the one that names it, else the `expected` one.
    """
    for ancestor, named in ancestors(path):
        if named == container or ancestor == expected:
            return ancestor
    return b""
