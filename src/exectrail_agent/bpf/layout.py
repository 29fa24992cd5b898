"""What the kernel half writes, turned into events: the counterpart of record.h.

Pure. Whatever bytes come, the answer is an event or a LayoutError.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from exectrail_agent.events import AUDIT_VARIABLES, EndEvent, Event, ExecEvent, ExitEvent, Task

LAYOUT = 1
"""To be raised with every change of record.h: older pins are then replaced, not used."""

LOSSES = ("exec", "exit", "end", "fork", "entry")
"""Causes, in the order in which the kernel half counts them."""

_EXEC, _EXIT, _END = 1, 2, 3
_ENTRY, _TTY, _UNLINKED, _BARE = 1, 2, 4, 8
_ARGV_MAX = 32768

_KIND = struct.Struct("=I")
_HEAD = struct.Struct("=IIQQQII")
_PLACE = struct.Struct("=QQ")
_WHO = struct.Struct("=QIIII16s")
_ABOUT = struct.Struct("=8I")
_LENGTHS = struct.Struct("=8I")
_TASK_AT = _HEAD.size + _PLACE.size
_PARENT_AT = _TASK_AT + _WHO.size
_ABOUT_AT = _PARENT_AT + _WHO.size
_LENGTHS_AT = _ABOUT_AT + _ABOUT.size
_DATA_AT = _LENGTHS_AT + _LENGTHS.size
_CONFIG = struct.Struct("=QIIII")
_MARK = struct.Struct("=QQQIIII")

MARK_SIZE = _MARK.size
SESSION_SIZE = 16

_TOO_LONG = "missing, or longer than the sensor follows"
_NO_CWD, _NO_EXECUTABLE, _NO_CGROUP, _NO_PARENT_CGROUP, _NO_PARENT_EXECUTABLE = 2, 4, 8, 16, 32
_UNKNOWN = {
    1: ("argv", "its memory could not be read"),
    _NO_CWD: ("cwd", _TOO_LONG),
    _NO_EXECUTABLE: ("task.executable", _TOO_LONG),
    _NO_CGROUP: ("task.cgroup", _TOO_LONG),
    _NO_PARENT_CGROUP: ("parent.cgroup", _TOO_LONG),
    _NO_PARENT_EXECUTABLE: ("parent.executable", _TOO_LONG),
    64: ("environment", "more variables than the sensor looks at"),
    128: ("filename", "its memory could not be read"),
}


class LayoutError(ValueError):
    """These bytes are no record of this layout."""


@dataclass(frozen=True)
class Mark:
    """A process that the kernel half has in a session."""

    session: int
    start: int
    pid: int
    mount_namespace: int
    pid_namespace: int


def is_exec(record: bytes) -> bool:
    """Say whether a record, of which the rest may be damaged, tells of a program."""
    return record[: _KIND.size] == _KIND.pack(_EXEC)


def decode(record: bytes, cgroups: MutableMapping[int, bytes]) -> Event:
    """Read one record of the ring; `cgroups` keeps the paths that records have named, by id.

    Raises LayoutError.
    """
    if len(record) < _HEAD.size:
        raise LayoutError(f"a record of {len(record)} bytes")
    kind, flags, time, session, start, pid, _ = _HEAD.unpack_from(record)
    if kind == _EXEC:
        return _decode_exec(record, flags, time, session, cgroups)
    if len(record) != _HEAD.size:
        raise LayoutError(f"a record of kind {kind} with {len(record)} bytes")
    if kind == _EXIT:
        return ExitEvent(time, session, pid, start, flags)
    if kind == _END:
        return EndEvent(time, session)
    raise LayoutError(f"a record of kind {kind}")


def pack_config(
    root_cgroup: int, pid_namespace: int, controller: int, *, everything: bool
) -> bytes:
    """Return the kernel half's configuration."""
    return _CONFIG.pack(root_cgroup, pid_namespace, controller, everything, 0)


def unpack_mark(value: bytes) -> Mark:
    """Read a value of the map of processes; `value` has MARK_SIZE bytes."""
    session, start, _, mounts, pids, pid, _ = _MARK.unpack(value)
    return Mark(session, start, pid, mounts, pids)


def _decode_exec(
    record: bytes, flags: int, time: int, session: int, cgroups: MutableMapping[int, bytes]
) -> ExecEvent:
    if len(record) < _DATA_AT:
        raise LayoutError(f"an exec of {len(record)} bytes")
    outer, cgroup_id = _PLACE.unpack_from(record, _HEAD.size)
    uid, gid, login_uid, audit_session, tty_major, tty_minor, argv_size, problems = (
        _ABOUT.unpack_from(record, _ABOUT_AT)
    )
    cgroup, parent_cgroup, program, cwd, parent_program, filename, environment, argv = _parts(
        record
    )
    entry = bool(flags & _ENTRY)
    executable = b"" if problems & _NO_EXECUTABLE else _path(program)
    if flags & _BARE and flags & _UNLINKED:
        # As /proc says it.
        executable += b" (deleted)"
    outside = outside_program = b""
    if entry or not session:
        if not problems & _NO_CGROUP:
            cgroups[cgroup_id] = _path(cgroup)
        if not problems & _NO_PARENT_CGROUP:
            outside = _path(parent_cgroup)
        if not problems & _NO_PARENT_EXECUTABLE:
            outside_program = _path(parent_program)
    cut = argv_size - _ARGV_MAX if argv_size > _ARGV_MAX and argv else 0
    return ExecEvent(
        time=time,
        session=session,
        entry=entry,
        task=_task(record, _TASK_AT, cgroups.get(cgroup_id, b""), executable),
        parent=_task(record, _PARENT_AT, outside, outside_program),
        argv=argv,
        argv_size=argv_size,
        filename=_text(filename),
        cwd=b"" if problems & _NO_CWD else _path(cwd),
        argv_cut=cut,
        argv_cut_at=_ARGV_MAX // 2 if cut else 0,
        uid=uid,
        gid=gid,
        login_uid=login_uid,
        audit_session=audit_session,
        tty=(tty_major, tty_minor) if flags & _TTY else None,
        memfd=bool(flags & _UNLINKED),
        environment=_environment(environment) if environment else {},
        unknown=_unknown(problems) if problems else {},
        outer=outer,
    )


def _parts(record: bytes) -> Sequence[bytes]:
    lengths = _LENGTHS.unpack_from(record, _LENGTHS_AT)
    if _DATA_AT + sum(lengths) != len(record):
        raise LayoutError(f"an exec of {len(record)} bytes with parts of {lengths}")
    parts = []
    end = _DATA_AT
    for length in lengths:
        begin, end = end, end + length
        parts.append(record[begin:end])
    return parts


def _task(record: bytes, at: int, cgroup: bytes, executable: bytes) -> Task:
    start, pid, host_pid, mounts, pids, comm = _WHO.unpack_from(record, at)
    return Task(pid, start, host_pid, _text(comm), cgroup, mounts, pids, executable)


def _text(padded: bytes) -> bytes:
    return padded.split(b"\0", 1)[0]


@lru_cache(256)
def _path(names: bytes) -> bytes:
    # Each name ends with a NUL, the last one of the path comes first.
    return b"/" + b"/".join(names.split(b"\0")[-2::-1])


def _environment(values: bytes) -> Mapping[bytes, bytes]:
    pairs = zip(AUDIT_VARIABLES, values.split(b"\0"))  # noqa: B905 - Python 3.8 can't be strict
    return {name: value for name, value in pairs if value}


def _unknown(problems: int) -> Mapping[str, str]:
    return dict(what for bit, what in _UNKNOWN.items() if problems & bit)
