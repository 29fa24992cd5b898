"""inotify(7), which Python's standard library lacks."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _OVERFLOW, _IGNORED = 0x400, 0x4000, 0x8000
_ONLY_FOLDERS, _DONT_FOLLOW, _IS_FOLDER = 0x1000000, 0x2000000, 0x40000000
_WATCHED = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _ONLY_FOLDERS
_HEAD = struct.Struct("iIII")
_BUFFER = 1 << 16


@dataclass(frozen=True)
class Change:
    """Something happened in the folder that was watched as `watch`.

    - `name`: what was made, removed or written there.
    - `appeared`: it is a folder, and new there.
    - `left`: it is no longer there under this name.
    - `ended`: the watch is over, the folder is gone.
    - `overflow`: changes were lost; the other fields say nothing.
    """

    watch: int
    name: str = ""
    appeared: bool = False
    left: bool = False
    ended: bool = False
    overflow: bool = False


def decode(data: bytes) -> Iterator[Change]:
    """Yield what one read(2) returned. What is cut off at its end is left out."""
    place = 0
    while place + _HEAD.size <= len(data):
        watch, mask, _, length = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        name = os.fsdecode(data[place : place + length].split(b"\0", 1)[0])
        place += length
        yield Change(
            watch,
            name,
            appeared=bool(mask & (_CREATE | _MOVED_TO)) and bool(mask & _IS_FOLDER),
            left=bool(mask & (_DELETE | _MOVED_FROM)),
            ended=bool(mask & _IGNORED),
            overflow=bool(mask & _OVERFLOW),
        )


class Inotify:
    """Watches folders, not what is below them. Raises OSError where the kernel allows no more."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._file = _checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return what is readable when changes wait."""
        return self._file

    def watch(self, folder: str, *, follow: bool) -> int:
        """Watch `folder`; the number is the same if it is watched already.

        Raises OSError if it is no folder or, unless `follow`, a symbolic link.
        """
        mask = _WATCHED if follow else _WATCHED | _DONT_FOLLOW
        add = self._libc.inotify_add_watch
        return _checked(add(self._file, os.fsencode(folder), ctypes.c_uint32(mask)))

    def read(self) -> Iterator[Change]:
        """Yield the changes that wait; never waits for any."""
        while True:
            try:
                data = os.read(self._file, _BUFFER)
            except BlockingIOError:
                return
            yield from decode(data)
            if len(data) < _BUFFER // 2:
                return

    def close(self) -> None:
        """Stop watching."""
        os.close(self._file)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
