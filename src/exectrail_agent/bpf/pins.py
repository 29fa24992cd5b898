"""The folder of the bpf file system where maps and links outlive the agent."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from exectrail_agent.bpf.layout import LAYOUT, LOSSES, MARK_SIZE, SESSION_SIZE
from exectrail_agent.bpf.libbpf import MAP_ARRAY, BpfError, Libbpf
from exectrail_agent.bpf.surroundings import is_bpffs, read_mounts
from exectrail_agent.events import SensorError

LINKS = {
    "on_exec": "sched_process_exec",
    "on_fork": "sched_process_fork",
    "on_exit": "sched_process_exit",
}
"""The programs that are attached, and to which raw tracepoint."""

_ANY = 0
_MAPS = {
    # Type, size of a key and of a value, entries.
    "jump": (3, 4, 4, 3),
    "tasks": (1, 4, MARK_SIZE, 32768),
    "sessions": (1, 8, SESSION_SIZE, 8192),
    "dropped": (1, 8, 4, 8192),
    "ring": (27, 0, 0, _ANY),
    "losses": (6, 4, 8, len(LOSSES)),
}
MAPS = tuple(_MAPS)
"""The maps that are kept."""

# First to be pinned and last to be removed, so that whatever is there with it is ours.
_META = "meta"
_META_NAME = "exectrail"
_META_VALUE = struct.Struct("=8sII")
_MAGIC = b"exectrai"


@dataclass(frozen=True)
class Pins:
    """What a folder holds.

    `files` are the open maps and links, all or none; `broken` says why there are none although the
    folder is ours.
    """

    files: Mapping[str, int] = field(default_factory=dict)
    broken: str = ""


class PinFolder:
    """A folder of pins, and the right to use it, which one process has at a time."""

    def __init__(self, libbpf: Libbpf, path: str) -> None:
        self._libbpf = libbpf
        self.path = path
        self._lock = -1

    def take(self) -> str:
        """Make the folder and lock it; return "" or why nothing can be pinned there.

        Raises SensorError if another process has it.
        """
        if not is_bpffs(os.path.abspath(self.path), read_mounts()):  # noqa: PTH100 - no links followed
            return f"{self.path} is on no bpf file system (mount -t bpf bpf /sys/fs/bpf)"
        try:
            os.makedirs(self.path, mode=0o700, exist_ok=True)  # noqa: PTH103 - paths are text here
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno == errno.EWOULDBLOCK:
                raise SensorError(f"another agent uses {self.path}") from None
            if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                return f"{self.path}: {error.strerror}"
            raise SensorError(f"{self.path}: {error.strerror}") from None
        return ""

    def look(self) -> Pins:
        """Open what is pinned. Raises SensorError if something there is not the agent's."""
        names = set(os.listdir(self.path))  # noqa: PTH208 - names
        if not names:
            return Pins()
        foreign = names - {_META, *_MAPS, *LINKS}
        if foreign:
            raise SensorError(
                f"{self.path} holds {min(foreign)!r}, which is not the agent's: name another folder"
                " or remove it"
            )
        layout = self._layout() if _META in names else None
        if layout is None:
            raise SensorError(
                f"{self.path} holds pins that are not the agent's: name another folder or remove"
                " them"
            )
        if layout != LAYOUT:
            return Pins(broken=f"they are of layout {layout}, not {LAYOUT}")
        files: dict[str, int] = {}
        try:
            for name in (*_MAPS, *LINKS):
                files[name] = self._open(name)
        except BpfError as error:
            for file in files.values():
                os.close(file)
            return Pins(broken=str(error))
        return Pins(files)

    def old_ring(self) -> int | None:
        """Open the ring of pins that are broken; None if that is broken too."""
        try:
            return self._open("ring")
        except BpfError:
            return None

    def pin(self, files: Mapping[str, int]) -> None:
        """Pin maps and links, in place of what is pinned under their names. Raises BpfError."""
        if not os.path.exists(self._at(_META)):  # noqa: PTH110 - paths are text here
            meta = self._libbpf.create_map(MAP_ARRAY, _META_NAME, 4, _META_VALUE.size, 1)
            try:
                self._libbpf.update(meta, bytes(4), _META_VALUE.pack(_MAGIC, LAYOUT, 0))
                self._libbpf.pin(meta, self._at(_META))
            finally:
                os.close(meta)
        for name, file in files.items():
            with suppress(FileNotFoundError):
                os.unlink(self._at(name))  # noqa: PTH108 - paths are text here
            self._libbpf.pin(file, self._at(name))

    def clear(self) -> None:
        """Remove every pin. Raises OSError."""
        for name in (*LINKS, *_MAPS, _META):
            with suppress(FileNotFoundError):
                os.unlink(self._at(name))  # noqa: PTH108 - paths are text here

    def remove(self) -> None:
        """Remove the pins and the folder. Raises OSError."""
        self.clear()
        os.rmdir(self.path)  # noqa: PTH106 - paths are text here

    def release(self) -> None:
        """Let another process have the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def _layout(self) -> int | None:
        """Return the layout that the mark of the agent's names, None if there is no such mark."""
        try:
            file = self._open_map(_META, (MAP_ARRAY, 4, _META_VALUE.size, 1))
        except BpfError:
            return None
        try:
            magic, layout, _ = _META_VALUE.unpack(
                self._libbpf.look_up(file, bytes(4), _META_VALUE.size) or bytes(_META_VALUE.size)
            )
        finally:
            os.close(file)
        return int(layout) if magic == _MAGIC else None

    def _open(self, name: str) -> int:
        if name in _MAPS:
            return self._open_map(name, _MAPS[name])
        file = self._open_kind(name, "link")
        tracepoint = self._libbpf.tracepoint_of(file)
        if tracepoint != LINKS[name].encode():
            os.close(file)
            raise BpfError(f"{name} is another link")
        return file

    def _open_map(self, name: str, wanted: tuple[int, int, int, int]) -> int:
        file = self._open_kind(name, "map")
        info = self._libbpf.map_info(file)
        entries = info.max_entries if wanted[3] == _ANY else wanted[3]
        if (info.type, info.key_size, info.value_size, info.max_entries) != (*wanted[:3], entries):
            os.close(file)
            raise BpfError(f"{name} is another map")
        return file

    def _open_kind(self, name: str, kind: str) -> int:
        file = self._libbpf.pinned(self._at(name))
        # The kernel would answer a question about a map for a link too, in a link's terms.
        target = os.readlink(f"/proc/self/fd/{file}")
        if not ("bpf" in target and target.endswith(kind)):
            os.close(file)
            raise BpfError(f"{name} is no {kind}")
        return file


def remove_pins(path: str) -> None:
    """Remove what an agent has left pinned, after which nothing is captured any more.

    Raises SensorError if an agent is running, or if there is something that is not the agent's.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - paths are text here
        return
    try:
        folder = PinFolder(Libbpf(), path)
        problem = folder.take()
        if problem:
            raise SensorError(problem)
        try:
            for file in folder.look().files.values():
                os.close(file)
            folder.remove()
        finally:
            folder.release()
    except (BpfError, OSError) as error:
        raise SensorError(f"{path}: {error}") from None
