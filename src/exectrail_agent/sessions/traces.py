"""Which container a program was in that is gone, by what it has left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exectrail_agent.containers.model import Container


def root_device(pid: int) -> int:
    """Return the device number of a process's root folder, 0 if it is gone or not to be seen."""
    try:
        return Path(f"/proc/{pid}/root").stat().st_dev
    except OSError:
        return 0


def found_by(
    device: int,
    through: bytes,
    containers: Sequence[Container],
) -> tuple[Container, float, str] | None:
    """Return the container, how sure that is (0 to 1), and why not 1; None if nothing tells.

    DEVICE is that of the program's file system, THROUGH the arguments of the runtime that started
    it; see ExecEvent.
    """
    words = {word: at for at, word in reversed([*enumerate(through.split(b"\0"))])}
    named = [one for one in containers if one.id.encode(errors="surrogatepass") in words]
    if named:
        first = min(named, key=lambda one: words[one.id.encode(errors="surrogatepass")])
        return first, 0.8, "the container is told by the arguments of its runtime alone"
    if not device or device == root_device(1):
        return None
    there = [one for one in containers if one.init_pid and root_device(one.init_pid) == device]
    if len(there) != 1:
        return None
    return there[0], 0.9, "the container is told by the file system of the program alone"
