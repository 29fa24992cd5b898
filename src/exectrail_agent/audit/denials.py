"""Denials, which the kernel writes into its own log only while nobody owns kernel audit."""

from __future__ import annotations

from collections.abc import Callable

from exectrail_agent.log.escape import to_text, visible

_SECCOMP = 1326
_SECURITY_MODULES = range(1400, 1500)
_MOST = 10
_SECONDS = 5.0


class Denials:
    """Passes them on, a line each, and not more of them than the kernel itself would write.

    They are seccomp's and those of SELinux, AppArmor and the like.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._since = float("-inf")
        self._count = 0

    def take(self, kind: int, record: bytes, now: float) -> None:
        """Look at a record of kernel audit; `now` is in seconds of any clock."""
        if kind != _SECCOMP and kind not in _SECURITY_MODULES:
            return
        if now - self._since > _SECONDS:
            if self._count > _MOST:
                self._write(f"audit: {self._count - _MOST} more like these were left out")
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= _MOST:
            text, _ = to_text(record.rstrip(b"\0\n"))
            self._write(f"audit: type={kind} {visible(text)}")
