"""Reads small files in folders that others write, and perhaps hostile ones."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_BYTES = 4 << 20


class UnreadableError(Exception):
    """A file is there, but can't be used; the text says why.

    `unsettled`: perhaps because it is still being written.
    """

    def __init__(self, message: str, *, unsettled: bool = False) -> None:
        super().__init__(message)
        self.unsettled = unsettled


def read(folder: Path, *names: str, limit: int = MAX_BYTES) -> bytes | None:
    """Return what is in the file that `names` lead to below `folder`, or None if there is none.

    Symbolic links are followed in `folder` only; never waits for a pipe. Raises UnreadableError.
    """
    try:
        return _read(folder, names, limit)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableError(f"{names[-1]}: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise UnreadableError(f"{names[-1]}: no valid name") from None


def _read(folder: Path, names: tuple[str, ...], limit: int) -> bytes:
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for position, name in enumerate(names, 1):
            if name in ("", ".", "..") or "/" in name:
                raise UnreadableError(f"{name!r}: leads out of its folder")
            last = position == len(names)
            kind = os.O_NONBLOCK | os.O_NOCTTY if last else os.O_DIRECTORY
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind
            inner = os.open(name, flags, dir_fd=place)
            os.close(place)
            place = inner
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            raise UnreadableError(f"{names[-1]}: not a regular file")
        content = b""
        while len(content) <= limit:
            more = os.read(place, limit + 1 - len(content))
            if not more:
                return content
            content += more
        raise UnreadableError(f"{names[-1]}: more than {limit} bytes")
    finally:
        os.close(place)
