"""Kernel audit's switches: its status, its rules, and giving both back as they were found."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

from exectrail_agent import state
from exectrail_agent.audit.rules import Rule, pack, unpack
from exectrail_agent.events import SensorError
from exectrail_agent.netlink import DONE, ERROR, REQUEST_WITH_ANSWER, Frame, NetlinkSocket, error_of
from exectrail_agent.netlink import frame as frame_of

FAMILY = 9
GET, SET = 1000, 1001
_ADD, _DELETE, _LIST = 1011, 1012, 1013
_ANSWER_SECONDS = 2.0
_MOST = 1 << 16

ENABLED, PROCESS, RATE_LIMIT, BACKLOG_LIMIT, BACKLOG_WAIT = 0x1, 0x4, 0x8, 0x10, 0x20
OFF, IMMUTABLE = 0, 2
PANIC = 2
BACKLOG = 16384


@dataclass(frozen=True)
class Status:
    """What AUDIT_GET tells, in its order. `lost` counts records since boot."""

    mask: int = 0
    enabled: int = 0
    failure: int = 0
    pid: int = 0
    rate_limit: int = 0
    backlog_limit: int = 0
    lost: int = 0
    backlog: int = 0
    features: int = 0
    backlog_wait_time: int = 0


_STATUS = struct.Struct(f"={len(fields(Status))}I")


def settings(mask: int, status: Status) -> bytes:
    """Write an AUDIT_SET request."""
    return _STATUS.pack(mask, *astuple(status)[1:])


def status_of(payload: bytes) -> Status:
    """Read an AUDIT_GET answer; older kernels' are shorter, newer ones' longer."""
    return Status(*_STATUS.unpack(payload[: _STATUS.size].ljust(_STATUS.size, b"\0")))


class AuditControl:
    """Requests to kernel audit, each answered before the call returns. Raises SensorError."""

    def __init__(self) -> None:
        try:
            self._socket = NetlinkSocket(FAMILY, receive_bytes=1 << 20)
        except OSError as problem:
            raise SensorError(
                f"no netlink socket for kernel audit: {problem.strerror}"
            ) from problem
        self._sequence = 0

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()

    def status(self) -> Status:
        """Ask for the status."""
        for answer in self._ask(GET):
            if answer.kind == GET:
                return status_of(answer.payload)
        raise SensorError("kernel audit does not tell its status")

    def change(self, mask: int, status: Status) -> None:
        """Set those fields of STATUS that MASK names."""
        self._do(SET, settings(mask, status), "change kernel audit's settings")

    def rules(self) -> list[Rule]:
        """List the rules that are loaded, in their order."""
        found = [unpack(one.payload) for one in self._ask(_LIST, until=DONE) if one.kind == _LIST]
        return [rule for rule in found if rule]

    def add(self, rule: Rule) -> None:
        """Put a rule behind the others."""
        self._do(_ADD, pack(rule), f"add the rule `{rule.text}`")

    def remove(self, rule: Rule) -> None:
        """Remove a rule."""
        self._do(_DELETE, pack(rule), f"remove the rule `{rule.text}`")

    def _do(self, kind: int, payload: bytes, what: str) -> None:
        for answer in self._ask(kind, payload, until=ERROR):
            if answer.kind == ERROR and error_of(answer.payload):
                raise SensorError(f"can't {what}: {os.strerror(error_of(answer.payload))}")

    def _ask(self, kind: int, payload: bytes = b"", until: int = 0) -> Iterator[Frame]:
        self._sequence += 1
        try:
            self._socket.send(kind, self._sequence, payload, REQUEST_WITH_ANSWER)
            yield from self._answers(until or kind)
        except OSError as problem:
            raise SensorError(
                f"kernel audit does not answer ({problem.strerror}): it is switched off by audit=0 "
                "on the kernel's command line, or this is not the node's first pid, user and "
                "network namespace, or CAP_AUDIT_CONTROL is missing"
            ) from problem

    def _answers(self, last: int) -> Iterator[Frame]:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline:
            select.select([self._socket], [], [], deadline - time.monotonic())
            for datagram in self._socket.datagrams(_MOST):
                answer = frame_of(datagram)
                if answer is None or answer.sequence != self._sequence:
                    continue
                if answer.kind == ERROR and error_of(answer.payload):
                    yield answer
                    if last != ERROR:
                        code = error_of(answer.payload)
                        raise OSError(code, os.strerror(code))
                    return
                if answer.kind != ERROR or last == ERROR:
                    yield answer
                if answer.kind == last:
                    return


class FoundSettings:
    """What the settings were before the agent changed them, kept in a file across a crash.

    There is one kernel audit, so one process at a time has the right to this file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._lock = -1

    def take(self) -> None:
        """Get the right to change the settings; raises SensorError if another process has it."""
        path = self._path.with_name(self._path.name + ".lock")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise SensorError("another agent uses kernel audit, and there is only one") from None
        except OSError as problem:
            self.release()
            raise SensorError(f"can't lock {path}: {problem.strerror}") from problem

    def release(self) -> None:
        """Let another process have the right."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def load(self) -> Status | None:
        """Return what was found when it was never given back."""
        data = state.load(self._path)
        try:
            numbers = {field.name: int(data[field.name]) for field in fields(Status)}
        except (ValueError, KeyError, TypeError):
            return None
        return Status(**numbers) if all(0 <= one < 1 << 32 for one in numbers.values()) else None

    def save(self, status: Status) -> None:
        """Note what was found; raises SensorError, as it could not be given back after a crash."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            state.save(self._path, asdict(status))
        except OSError as problem:
            raise SensorError(f"can't write {self._path}: {problem.strerror}") from problem

    def forget(self) -> None:
        """Note that everything was given back."""
        with contextlib.suppress(OSError):
            self._path.unlink()
