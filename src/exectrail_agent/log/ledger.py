"""Counts what an agent has taken from its sensor, so that what dies with it can be told of.

The counts live in a mapped file on a memory file system: a killed process leaves them behind, and
no disk is waited for.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

_LAYOUT = struct.Struct("<16sQQQQ16s")


class Ledger:
    """Execs that were taken, and those that are settled: recorded, told of as lost, or no access.

    The folder is private to the agent. Counts of another boot are forgotten. `cause` is why what is
    open was left so.
    """

    def __init__(self, path: Path, boot: str) -> None:
        """Open or make the file. Raise OSError."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(str(path), flags, 0o600)
        try:
            os.ftruncate(descriptor, _LAYOUT.size)
            self._map = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)
        self._boot = boot.replace("-", "").encode()[:16].ljust(16, b"\0")
        found: tuple[bytes, int, int, int, int, bytes] = _LAYOUT.unpack_from(self._map)
        if found[0] != self._boot:
            found = (self._boot, 0, 0, 0, 0, b"")
        _, self._taken, self._settled, self._seq, self._writing, left = found
        self.cause = left.rstrip(b"\0").decode("ascii", "replace") or "agent-killed"
        self._left = b""
        self._store()

    @property
    def open(self) -> int:
        """How many execs were taken and are not settled."""
        return max(0, self._taken - self._settled)

    @property
    def interrupted(self) -> int:
        """The first number of a write that was begun and not confirmed; 0 if there is none."""
        return self._seq if self._writing else 0

    def take(self, execs: int) -> None:
        """Note execs that the sensor has handed over."""
        self._taken += execs
        self._store()

    def settle(self, execs: int) -> None:
        """Note execs that nothing more will be said of; ends the write that was begun."""
        self._settled += execs
        self._writing = 0
        self._store()

    def begin(self, seq: int) -> None:
        """Note that records from number `seq` on are about to be written."""
        self._seq, self._writing = seq, 1
        self._store()

    def leave(self, cause: str) -> None:
        """Say, before an orderly end, why what is open stays so."""
        self._left = cause.encode("ascii")
        self._store()

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()

    def _store(self) -> None:
        counts = self._taken, self._settled, self._seq, self._writing
        _LAYOUT.pack_into(self._map, 0, self._boot, *counts, self._left)
