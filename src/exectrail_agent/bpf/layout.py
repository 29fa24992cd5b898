"""What the kernel half writes, turned into events: the counterpart of record.h.

Pure. Whatever bytes come, the answer is an event or a LayoutError.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Union

from exectrail_agent.events import (
    AUDIT_VARIABLES,
    AlikeEvent,
    EndEvent,
    Event,
    ExecEvent,
    ExitEvent,
    Task,
)

LAYOUT = 2
"""To be raised with every change of record.h: older pins are then replaced, not used."""

LOSSES = ("exec", "exit", "end", "fork", "entry")
"""Causes, in the order in which the kernel half counts them."""

_EXEC, _EXIT, _END = 1, 2, 3
_ENTRY, _TTY, _UNLINKED, _BARE = 1, 2, 4, 8
_ARGV_MAX = 32768
_CGROUPS_MAX = 8192
_MODELS_MAX = 512
_KEY_MAX = 1024

_HEAD = struct.Struct("=IIQQQII")
_PROCESS = struct.Struct("=IIQQQIIQQIIIIII")
_PLACE = struct.Struct("=QQ")
_WHO = struct.Struct("=II16s")
_ABOUT = struct.Struct("=8I")
_LENGTHS = struct.Struct("=8I")
_PLACE_AT = _PROCESS.size
_TASK_AT = _PLACE_AT + _PLACE.size
_PARENT_AT = _TASK_AT + _WHO.size
_ABOUT_AT = _PARENT_AT + _WHO.size
_LENGTHS_AT = _ABOUT_AT + _ABOUT.size
_DATA_AT = _LENGTHS_AT + _LENGTHS.size
_CONFIG = struct.Struct("=QIIII")
_MARK = struct.Struct("=QQQIIQIIII")

END_SIZE = _HEAD.size
"""Bytes of a record that tells of an end, and of no program."""
MARK_SIZE = _MARK.size
SESSION_SIZE = 16
"""Bytes of a value of the map of sessions, which begins with the number of the outer one."""

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


Buffer = Union[bytes, mmap.mmap]


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


@dataclass
class Known:
    """What records have told that later ones leave out, or have again; the oldest is forgotten.

    `cgroups` are paths by their id, `models` programs by what is the same in alike ones' records.
    """

    cgroups: OrderedDict[int, bytes] = field(default_factory=OrderedDict)
    models: OrderedDict[bytes, ExecEvent] = field(default_factory=OrderedDict)

    def name(self, cgroup: int, path: bytes) -> None:
        """Note the path of a cgroup."""
        self.cgroups[cgroup] = path
        if len(self.cgroups) > _CGROUPS_MAX:
            self.cgroups.popitem(last=False)

    def learn(self, key: bytes, event: ExecEvent) -> None:
        """Note a program of a session, if all is known of it that its record leaves out."""
        if (
            len(key) <= _KEY_MAX
            and event.session
            and event.task.cgroup
            and not (event.entry or event.unknown or event.argv_cut)
        ):
            self.models[key] = replace(event, argv=b"", argv_size=0)
            if len(self.models) > _MODELS_MAX:
                self.models.popitem(last=False)


def decode(data: Buffer, begin: int, end: int, known: Known) -> Event:
    """Read the record of the ring that is at these places of `data`. Raises LayoutError."""
    size = end - begin
    if size == END_SIZE:
        kind, status, session, time, start, pid, _ = _HEAD.unpack_from(data, begin)
        if kind == _EXIT:
            return ExitEvent(time, session, pid, start, status)
        if kind == _END:
            return EndEvent(time, session)
        raise LayoutError(f"a record of kind {kind}")
    if size < _DATA_AT:
        raise LayoutError(f"a record of {size} bytes")
    process = _PROCESS.unpack_from(data, begin)
    length = process[-1]
    if process[0] != _EXEC or length > size - _DATA_AT:
        raise LayoutError(f"a record of kind {process[0]} with {size} bytes, {length} of argv")
    key, argv = data[begin + _PLACE_AT : end - length], data[end - length : end]
    model = known.models.get(key)
    if model and process[2] and length == process[-2]:
        return AlikeEvent(process[2], process[3:-3], argv, model)
    record = data[begin:end]
    event = _decode_exec(record, process, known)
    known.learn(key, event)
    return event


def pack_config(
    root_cgroup: int, pid_namespace: int, controller: int, *, everything: bool
) -> bytes:
    """Return the kernel half's configuration."""
    return _CONFIG.pack(root_cgroup, pid_namespace, controller, everything, 0)


def unpack_mark(value: bytes) -> Mark:
    """Read a value of the map of processes; `value` has MARK_SIZE bytes."""
    session, start, _, mounts, pids, _, _, pid, _, _ = _MARK.unpack(value)
    return Mark(session, start, pid, mounts, pids)


def outer_of(value: bytes) -> int:
    """Read of which session a session is a part, 0 if of none; `value` has SESSION_SIZE bytes."""
    return int.from_bytes(value[:8], sys.byteorder)


def _decode_exec(record: bytes, process: Sequence[int], known: Known) -> ExecEvent:
    _, _, session, time, start, pid, host_pid, parent_start, above_start, *pids = process
    above_pid, parent_pid, parent_host_pid, _, size, length = pids
    outer, cgroup_id = _PLACE.unpack_from(record, _PLACE_AT)
    uid, gid, login_uid, audit_session, tty_major, tty_minor, flags, problems = _ABOUT.unpack_from(
        record, _ABOUT_AT
    )
    cgroup, parent_cgroup, program, cwd, parent_program, filename, environment, argv = _parts(
        record, length
    )
    entry = bool(flags & _ENTRY)
    executable = b"" if problems & _NO_EXECUTABLE else _path(program)
    if executable and flags & _BARE and flags & _UNLINKED:
        # As /proc says it.
        executable += b" (deleted)"
    outside = outside_program = b""
    if entry or not session:
        if not problems & _NO_CGROUP:
            known.name(cgroup_id, _path(cgroup))
        if not problems & _NO_PARENT_CGROUP:
            outside = _path(parent_cgroup)
        if not problems & _NO_PARENT_EXECUTABLE:
            outside_program = _path(parent_program)
    mounts, space, comm = _WHO.unpack_from(record, _TASK_AT)
    parent_mounts, parent_space, parent_comm = _WHO.unpack_from(record, _PARENT_AT)
    inside = known.cgroups.get(cgroup_id, b"")
    cut = size - _ARGV_MAX if size > _ARGV_MAX and argv else 0
    return ExecEvent(
        time=time,
        session=session,
        entry=entry,
        task=Task(pid, start, host_pid, _text(comm), inside, mounts, space, executable),
        parent=Task(
            parent_pid,
            parent_start,
            parent_host_pid,
            _text(parent_comm),
            outside,
            parent_mounts,
            parent_space,
            outside_program,
        ),
        argv=argv,
        argv_size=size,
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
        above_pid=above_pid,
        above_start=above_start,
    )


def _parts(record: bytes, argv: int) -> Sequence[bytes]:
    *lengths, _ = _LENGTHS.unpack_from(record, _LENGTHS_AT)
    lengths.append(argv)
    if _DATA_AT + sum(lengths) != len(record):
        raise LayoutError(f"an exec of {len(record)} bytes with parts of {lengths}")
    parts = []
    end = _DATA_AT
    for length in lengths:
        begin, end = end, end + length
        parts.append(record[begin:end])
    return parts


def _text(padded: bytes) -> bytes:
    return padded.split(b"\0", 1)[0]


def _path(names: bytes) -> bytes:
    # Each name ends with a NUL, the last one of the path comes first.
    return b"/" + b"/".join(names.split(b"\0")[-2::-1])


def _environment(values: bytes) -> Mapping[bytes, bytes]:
    pairs = zip(AUDIT_VARIABLES, values.split(b"\0"))  # noqa: B905 - Python 3.8 can't be strict
    return {name: value for name, value in pairs if value}


def _unknown(problems: int) -> Mapping[str, str]:
    return dict(what for bit, what in _UNKNOWN.items() if problems & bit)
