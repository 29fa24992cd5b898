"""What has been recorded on nodes and would be deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from exectrail.printable import printable

_UNITS = ("B", "kB", "MB", "GB", "TB")
_STEP = 1000


def render(files: Mapping[str, Sequence[tuple[str, int]]]) -> str:
    """List by node and folder the files with their sizes in bytes; `files` are (path, size)."""
    lines = ["To be deleted for good, with what it holds:"]
    for host, found in files.items():
        folders: dict[str, list[int]] = {}
        for path, size in found:
            folders.setdefault(str(PurePosixPath(path).parent), []).append(size)
        if not folders:
            lines.append(f"  {host}: nothing is there")
        for folder, sizes in sorted(folders.items()):
            many = f"{len(sizes)} files" if len(sizes) > 1 else "1 file"
            lines.append(f"  {host}: {printable(folder)}: {many}, {_amount(sum(sizes))}")
    return "\n".join(lines)


def _amount(size: int) -> str:
    amount = float(size)
    for unit in _UNITS[:-1]:
        if amount < _STEP:
            return f"{amount:.0f} {unit}"
        amount /= _STEP
    return f"{amount:.1f} {_UNITS[-1]}"
