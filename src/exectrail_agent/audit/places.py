"""What /proc tells about a process at the moment it is asked; nothing is remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

AUDIT_ID_VARIABLES = (b"KUBERNETES_EXEC_AUDIT_ID", b"SPO_EXEC_REQUEST_UID")

_ENVIRONMENT_BYTES = 32 << 10
_TEXT_BYTES = 16 << 10
_ARGV_BYTES = 4 << 20
_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Place:
    """Where a process is: its cgroups in every hierarchy, as /proc has them, and namespaces."""

    cgroups: bytes
    mount_namespace: int
    pid_namespace: int

    @property
    def cgroup(self) -> bytes:
        """The deepest of its cgroups: of several hierarchies not all are used."""
        paths = (line.split(b":", 2) for line in self.cgroups.splitlines())
        return max((parts[2] for parts in paths if len(parts) > 2), key=len, default=b"")  # noqa: PLR2004

    @property
    def foreign(self) -> bool:
        """Whether it is outside of the cgroups that this agent can see."""
        return self.cgroup.startswith(b"/..")


@dataclass(frozen=True)
class Standing:
    """A process's parent, start (nanoseconds since boot, to a clock tick) and number of threads.

    `dead`: its leader is gone; the process is, if it has no other thread.
    """

    parent: int
    start: int
    threads: int
    dead: bool

    @property
    def over(self) -> bool:
        """Whether the process is gone too.

        Without any thread it is a leader that was let go while it was read: one that another
        thread has taken the place of, to run a program, or the last. Who asks again will know.
        """
        return self.dead and self.threads == 1


class ProcReader:
    """Reads a /proc; of a process that is gone, or going, it returns None or nothing."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root

    def pids(self) -> Iterator[int]:
        """Give the processes that there are."""
        for name in os.listdir(self._root):  # noqa: PTH208  thousands of names, no objects
            if name.isdigit():
                yield int(name)

    def place(self, pid: int) -> Place | None:
        """Return where a process is; a process without namespaces is about to be gone."""
        folder = f"{self._root}/{pid}"
        try:
            cgroups = _read(f"{folder}/cgroup", _TEXT_BYTES)
            mount, pids = os.readlink(f"{folder}/ns/mnt"), os.readlink(f"{folder}/ns/pid")
            # A process that ends gives up its program before its cgroups and namespaces: while that
            # can be read, they were its own.
            os.readlink(f"{folder}/exe")
            return Place(cgroups, _inode(mount), _inode(pids))
        except (OSError, ValueError):
            return None

    def standing(self, pid: int) -> Standing | None:
        """Return whose child a process is and how it is."""
        try:
            text = _read(f"{self._root}/{pid}/stat", _TEXT_BYTES)
            # The name in parentheses may hold anything, even parentheses.
            rest = text.rpartition(b")")[2].split()
            dead = rest[0] in {b"Z", b"X", b"x"}
            return Standing(int(rest[1]), int(rest[19]) * _TICK, int(rest[17]), dead)
        except (OSError, ValueError, IndexError):
            return None

    def name(self, pid: int) -> tuple[bytes, bytes]:
        """Return a process's executable and comm, b"" where they can't be read."""
        folder = f"{self._root}/{pid}"
        try:
            executable = os.readlink(os.fsencode(f"{folder}/exe"))
        except OSError:
            executable = b""
        try:
            return executable, _read(f"{folder}/comm", _TEXT_BYTES).rstrip(b"\n")
        except OSError:
            return executable, b""

    def program(self, pid: int) -> tuple[dict[bytes, bytes], bytes] | None:
        """Return what a process runs: fields as audit writes them, and its arguments."""
        folder = f"{self._root}/{pid}"
        try:
            argv = _read(f"{folder}/cmdline", _ARGV_BYTES)
            status = _read(f"{folder}/status", _TEXT_BYTES)
            lines = (line.split() for line in status.splitlines())
            ids = {line[0]: line[1] for line in lines if line and line[0] in {b"Uid:", b"Gid:"}}
            executable, comm = self.name(pid)
            told = {
                b"exe": executable.hex().encode(),
                b"comm": comm.hex().encode(),
                b"uid": ids[b"Uid:"],
                b"gid": ids[b"Gid:"],
                b"auid": _read(f"{folder}/loginuid", _TEXT_BYTES),
                b"ses": _read(f"{folder}/sessionid", _TEXT_BYTES),
            }
        except (OSError, KeyError, IndexError):
            return None
        return (told, argv) if argv and executable else None

    def audit_ids(self, pid: int) -> Mapping[bytes, bytes] | None:
        """Return the variables of a process's environment that carry an audit id."""
        try:
            text = _read(f"{self._root}/{pid}/environ", _ENVIRONMENT_BYTES)
            if not text:
                os.readlink(f"{self._root}/{pid}/exe")  # A process that ends has none either.
        except OSError:
            return None
        variables = (entry.partition(b"=") for entry in text.split(b"\0"))
        return {name: value for name, _, value in variables if name in AUDIT_ID_VARIABLES}


def to_tick(nanoseconds: int) -> int:
    """Round a time since boot down as /proc does with a process's start."""
    return nanoseconds // _TICK * _TICK


def _inode(link: str) -> int:
    return int(link[link.index("[") + 1 : -1])


def _read(path: str, size: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, size)
    finally:
        os.close(file)
