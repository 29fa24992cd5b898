"""What /proc tells about a process at the moment it is asked; nothing is remembered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from exectrail_agent.events import AUDIT_VARIABLES, Task

_ENVIRONMENT_BYTES = 32 << 10
_TEXT_BYTES = 64 << 10
_ARGV_BYTES = 4 << 20
_NOWHERE = b"/"
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
    """Reads a /proc; of a process that is gone, or going, it returns None, 0 or nothing."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root

    def pids(self) -> Iterator[int]:
        """Give the processes that there are."""
        for name in os.listdir(self._root):  # noqa: PTH208  thousands of names, no objects
            if name.isdigit():
                yield int(name)

    def look(self, pid: int | str) -> Place:
        """Return where a process is, or the reader for ``self``. Raises OSError, ValueError."""
        folder = f"{self._root}/{pid}"
        cgroups = _read(f"{folder}/cgroup")
        return Place(cgroups, _inode(f"{folder}/ns/mnt"), _inode(f"{folder}/ns/pid"))

    def place(self, pid: int) -> Place | None:
        """Return where a process is; a process without namespaces is about to be gone."""
        try:
            found = self.look(pid)
            # A process that ends gives up its program before its cgroups and namespaces: while that
            # can be read, they were its own.
            os.readlink(f"{self._root}/{pid}/exe")
        except (OSError, ValueError):
            return None
        return found

    def mount_namespace(self, pid: int) -> int:
        """Return the inode number of a process's mount namespace, 0 also if it may not be seen."""
        try:
            return _inode(f"{self._root}/{pid}/ns/mnt")
        except (OSError, ValueError):
            return 0

    def standing(self, pid: int) -> Standing | None:
        """Return whose child a process is and how it is."""
        # The name in parentheses may hold anything, even parentheses.
        rest = self._text(pid, "stat").rpartition(b")")[2].split()
        try:
            dead = rest[0] in {b"Z", b"X", b"x"}
            return Standing(int(rest[1]), int(rest[19]) * _TICK, int(rest[17]), dead)
        except (ValueError, IndexError):
            return None

    def cgroups(self, pid: int) -> bytes:
        """Return a process's cgroups in every hierarchy, as /proc has them."""
        return self._text(pid, "cgroup")

    def arguments(self, pid: int) -> bytes:
        """Return a process's arguments, each ended by a NUL."""
        return self._text(pid, "cmdline", _ARGV_BYTES)

    def executable(self, pid: int) -> bytes:
        """Return the path of what a process runs, as the kernel has it; see `file_of`."""
        try:
            found = os.readlink(os.fsencode(f"{self._root}/{pid}/exe"))
        except OSError:
            return b""
        return file_of(found, self.arguments(pid)) if found == _NOWHERE else found

    def name(self, pid: int) -> tuple[bytes, bytes]:
        """Return a process's executable and comm."""
        return self.executable(pid), self.comm(pid)

    def comm(self, pid: int) -> bytes:
        """Return what the kernel calls what a process runs."""
        return self._text(pid, "comm").rstrip(b"\n")

    def program(self, pid: int) -> tuple[dict[bytes, bytes], bytes] | None:
        """Return what a process runs: fields as audit writes them, and its arguments."""
        folder, argv = f"{self._root}/{pid}", self.arguments(pid)
        try:
            status = _read(f"{folder}/status")
            lines = (line.split() for line in status.splitlines())
            ids = {line[0]: line[1] for line in lines if line and line[0] in {b"Uid:", b"Gid:"}}
            executable, comm = self.name(pid)
            told = {
                b"exe": executable.hex().encode(),
                b"comm": comm.hex().encode(),
                b"uid": ids[b"Uid:"],
                b"gid": ids[b"Gid:"],
                b"auid": _read(f"{folder}/loginuid"),
                b"ses": _read(f"{folder}/sessionid"),
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
        return {name: value for name, _, value in variables if name in AUDIT_VARIABLES}

    def _text(self, pid: int, name: str, size: int = _TEXT_BYTES) -> bytes:
        try:
            return _read(f"{self._root}/{pid}/{name}", size)
        except OSError:
            return b""


def parent_of(pid: int) -> int:
    """Return the pid of a process's parent, 0 if there is no such process."""
    standing = ProcReader().standing(pid)
    return standing.parent if standing else 0


def comm_of(pid: int) -> bytes:
    """Return what the kernel calls what a process runs, b"" if there is no such process."""
    return ProcReader().comm(pid)


def file_of(executable: bytes, argv: bytes) -> bytes:
    """Return the path of what runs, or its name where the path says nothing.

    That is so for crun, which runs itself as the root of a mount that is nowhere.
    """
    if executable != _NOWHERE:
        return executable
    return argv.partition(b"\0")[0].rpartition(b"/")[2]


def root_device(pid: int) -> int:
    """Return the device number of a process's root folder, 0 if it is gone or not to be seen."""
    try:
        return os.stat(f"/proc/{pid}/root").st_dev  # noqa: PTH116 - no object is needed
    except OSError:
        return 0


def task_at(pid: int, start: int, place: Place | None, executable: bytes, comm: bytes) -> Task:
    """Describe a process and where it is. Kernel audit's pids are the agent's own."""
    return Task(
        pid=pid,
        start=start,
        host_pid=pid,
        comm=comm,
        cgroup=place.cgroup if place else b"",
        mount_namespace=place.mount_namespace if place else 0,
        pid_namespace=place.pid_namespace if place else 0,
        executable=executable,
    )


def to_tick(nanoseconds: int) -> int:
    """Round a time since boot down as /proc does with a process's start."""
    return nanoseconds // _TICK * _TICK


def _inode(path: str) -> int:
    link = os.readlink(path)
    return int(link[link.index("[") + 1 : -1])


def _read(path: str, size: int = _TEXT_BYTES) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Room for all that there may be costs more than to read what there mostly is.
        text = os.read(file, min(size, _TEXT_BYTES))
        return text if len(text) < _TEXT_BYTES else text + os.read(file, size - _TEXT_BYTES)
    finally:
        os.close(file)
