"""What the index knows of a runtime: where its containers are described, and how."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exectrail_agent.containers import bundle, files
from exectrail_agent.containers.bundle import Bundle
from exectrail_agent.containers.model import Container

_MAX_PID = 1 << 22
_WRITING = 1.0


@dataclass(frozen=True)
class Description:
    """A container as its runtime's files describe it.

    - `container`: without what only its process shows.
    - `pid`: of its first process, as its file says; 0 if there is none.
    - `slice`: its control group must be below this one, because its files are a user's own.
    - `problem`: why no more is known than the id.
    - `unsettled`: the problem may be that somebody is still writing.
    """

    container: Container
    pid: int = 0
    slice: bytes = b""
    problem: str = ""
    unsettled: bool = False


class Source(Protocol):
    """Where one runtime describes its containers."""

    runtime: str
    patterns: Sequence[str]
    """Folders below the root, one for each container: see FolderWatch."""

    def key(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return what tells the container of a folder from all others of this source."""

    def read(self, parts: tuple[str, ...]) -> Description | None:
        """Return what is known of the container, None if there is none. Raises nothing."""


def read_bundle(folder: Path, *names: str) -> Bundle | None:
    """Return a container's config.json, None if there is none. Raises UnreadableError."""
    raw = files.read(folder, *names)
    if raw is None:
        return None
    try:
        return bundle.parse(raw)
    except ValueError as error:
        raise files.UnreadableError(
            f"{names[-1]}: {error}", unsettled=_fresh(folder.joinpath(*names))
        ) from None


def _fresh(file: Path) -> bool:
    try:
        return abs(time.time() - file.lstat().st_mtime) < _WRITING
    except OSError:
        return True


def read_pid(folder: Path, *names: str) -> int:
    """Return the process id that a file holds, 0 if there is none."""
    try:
        raw = (files.read(folder, *names, limit=32) or b"").strip()
    except files.UnreadableError:
        return 0
    pid = int(raw) if raw.isdigit() else 0
    return pid if pid <= _MAX_PID else 0
