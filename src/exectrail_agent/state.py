"""Small files that are replaced as a whole: what an agent tells others, or the next one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_LIMIT = 16 * 1024 * 1024


def replace(path: Path, text: str, mode: int) -> None:
    """Write a file in one step. Raise OSError if that can't be done."""
    draft = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(str(draft), flags, mode), "w", encoding="utf-8") as file:
        # Whatever the umask is.
        os.fchmod(file.fileno(), mode)
        file.write(text)
    draft.replace(path)


def save(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON with mode 0600 in one step. Raise OSError if that can't be done."""
    text = json.dumps(data, separators=(",", ":"))
    if len(text) > _LIMIT:
        # Who loads it would find nothing at all.
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    replace(path, text, 0o600)


def load(path: Path) -> dict[str, Any]:
    """Return what was saved; nothing where there is no such file or it is damaged."""
    try:
        with os.fdopen(os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            data = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
