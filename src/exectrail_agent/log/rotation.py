"""The log on the disk: one file that grows, older ones that were set aside, never too many."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from exectrail_agent import state
from exectrail_agent.log import contents
from exectrail_agent.log.contents import Extent
from exectrail_agent.log.records import Lost


class LogError(Exception):
    """The log can't be kept here; the text says why and what would help."""


class LogFile:
    """The file at `path`, for one agent at a time.

    `size` and `extent` are those of the file in use; `seq` is the last number ever given, `torn`
    whether a write had been interrupted in it. What is removed with a file is returned as losses.
    """

    def __init__(self, path: Path, max_bytes: int, max_files: int) -> None:
        """Open the file and repair its end. Raise LogError."""
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        _prepare(path.parent)
        self._lock = self._locked()
        try:
            self._open()
            self._aside = self._list_aside()
            self.seq = max(
                int(state.load(self._index).get("seq", 0)),
                *(one.last for one in (self.extent, *self._aside)),
            )
        except (OSError, ValueError, TypeError) as error:
            os.close(self._lock)
            raise LogError(f"{path} can't be opened: {error}") from error

    @property
    def room(self) -> int:
        """How many bytes more may be written."""
        return self._max_bytes - self.size

    def write(self, lines: list[str]) -> int:
        """Append lines with one system call; return how many of them are whole on the disk.

        They are ASCII. What a full disk cuts in the middle is taken back. Raise OSError if none is
        written.
        """
        if os.fstat(self._file).st_size > self.size:
            os.ftruncate(self._file, self.size)
        whole, text = 0, "".join(lines).encode("ascii")
        left = os.write(self._file, text)
        if left == len(text):
            self.size += left
            return len(lines)
        for one in lines:
            if left < len(one):
                break
            left -= len(one)
            self.size += len(one)
            whole += 1
        if left:
            # Else the next write tries it again.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
        if not whole:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole

    def since(self, first: int) -> list[bytes]:
        """Return the lines at the file's end from number `first` on."""
        return contents.since(self._file, first)

    def check(self, now: int) -> list[Lost]:
        """See what somebody has done to the file in use, or taken from it. Raise OSError."""
        mine = os.fstat(self._file)
        try:
            found = os.lstat(self._path)
            if (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
                return [] if mine.st_size >= self.size else self._cut(now)
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
        extent = self.extent
        self._reopen()
        return [] if mine.st_nlink else self._gone(extent, "file-removed", now)

    def _cut(self, now: int) -> list[Lost]:
        """Go on behind what somebody has left of the file; logrotate's copytruncate, say."""
        old = self.extent
        self._reopen()
        left = self.extent
        gone = Extent(left.last + 1 if left.last else old.first, old.last, old.execs - left.execs)
        return self._gone(gone, "file-removed", now)

    def rotate(self, now: int) -> list[Lost]:
        """Set the file aside and begin a new one. Raise OSError."""
        losses = []
        while len(self._aside) >= self._max_files - 1:
            _older(self._path, len(self._aside)).unlink(missing_ok=True)
            losses += self._gone(self._aside.pop(), "rotated-unshipped", now)
        for number in range(len(self._aside), 0, -1):
            _older(self._path, number).rename(_older(self._path, number + 1))
        self._path.rename(_older(self._path, 1))
        self._aside.insert(0, self.extent)
        self._reopen()
        self._save_index()
        return losses

    def close(self) -> None:
        """Let go of the log."""
        self._save_index()
        os.close(self._file)
        os.close(self._lock)

    @property
    def _index(self) -> Path:
        return self._path.with_name(f"{self._path.name}.index")

    def _locked(self) -> int:
        name = self._path.with_name(f"{self._path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(str(name), flags, 0o600)
        except OSError as error:
            raise LogError(f"{name} can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise LogError(
                f"another agent writes to {self._path}: stop it, or give this one its own folder"
            ) from error
        return descriptor

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(str(self._path), flags, 0o600)
        os.fchmod(self._file, 0o600)
        self.torn = contents.repair(self._file)
        self.size = os.fstat(self._file).st_size
        self.extent = contents.extent(self._file)

    def _reopen(self) -> None:
        old = self._file
        self._open()
        os.close(old)

    def _list_aside(self) -> list[Extent]:
        """Return what the files set aside hold, the newest first."""
        saved = state.load(self._index).get("execs", {})
        found: list[Extent] = []
        while _older(self._path, len(found) + 1).exists():
            one = contents.ends(_older(self._path, len(found) + 1))
            one.execs = int(saved.get(str(one.first), -1))
            found.append(one)
        return found

    def _gone(self, extent: Extent, cause: str, now: int) -> list[Lost]:
        """Tell of records that are gone and that nobody says to have a copy of."""
        first = max(extent.first, _shipped(self._path) + 1)
        count = extent.last - first + 1
        if not extent.last or count <= 0:
            return []
        execs = extent.execs if first == extent.first and extent.execs >= 0 else None
        details = {"loss.firstSeq": first, "loss.lastSeq": extent.last}
        return [Lost(cause, count, "records", 0, now, execs, details)]

    def _save_index(self) -> None:
        execs = {str(one.first): one.execs for one in self._aside if one.execs >= 0}
        try:
            state.save(self._index, {"seq": self.seq, "execs": execs})
        except OSError:
            # Without it the execs of a file that is removed later are left out of its loss.
            return


def _prepare(folder: Path) -> None:
    """Make the folder of the log, for its owner alone. Raise LogError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise LogError(f"{folder} must be a folder that belongs to the agent's user")
        if stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004 - a mode
            folder.chmod(0o700)
    except OSError as error:
        raise LogError(f"{folder} can't be used: {error.strerror}") from error


def _shipped(path: Path) -> int:
    """Return the number of the last record that a shipper says it has sent; 0 if it says nothing.

    The shipper replaces the file ``LOG.shipped`` by one that holds the number in decimal.
    """
    try:
        text = path.with_name(f"{path.name}.shipped").read_bytes()[:32].strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _older(path: Path, number: int) -> Path:
    """Return the name of the file that was set aside as the `number`th last."""
    return path.with_name(f"{path.name}.{number}")
