"""The kernel's process connector: every fork, exec and exit, told as it happens.

Its events are sent from inside the fork, exec or exit itself, so that the event of an exec is there
before the audit records of that exec are.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from exectrail_agent.events import SensorError
from exectrail_agent.netlink import (
    DONE,
    JUMP_EQUAL,
    LOAD_WORD,
    RETURN,
    Instruction,
    NetlinkSocket,
)

_FAMILY = 11  # NETLINK_CONNECTOR
_GROUP = 1  # CN_IDX_PROC
_LISTEN, _IGNORE = 1, 2
_FORK, _EXEC, _EXIT = 0x1, 0x2, 0x80000000

_REQUEST = struct.Struct("=IIIIHHI")
_COMMON = struct.Struct("=IIQIIII")
_WHAT, _FIRST = 36, 52  # offsets in a datagram: header 16, connector 20, what, cpu, time
_SHORTEST = _FIRST + 8
_BUFFER_BYTES = 8 << 20
_SLEEP = 1_000_000_000


@dataclass(frozen=True)
class Fork:
    """A process is born. Times are nanoseconds since boot.

    `parent` is who waits for the child: of clone(CLONE_PARENT) the caller's own parent.
    """

    time: int
    parent: int
    child: int


@dataclass(frozen=True)
class Exec:
    """A process runs another program."""

    time: int
    pid: int


@dataclass(frozen=True)
class Exit:
    """The leader of a process is gone, with a wait status. Other threads may go on."""

    time: int
    pid: int
    status: int


ProcEvent = Union[Fork, Exec, Exit]


def decode(datagram: bytes, asleep: int = 0) -> ProcEvent | None:
    """Read one datagram; None for events of threads, of other kinds, and for what is too short.

    ASLEEP is how much of the time since boot the monotonic clock, which stamps them, has missed.
    """
    if len(datagram) < _SHORTEST:
        return None
    padded = datagram if len(datagram) >= _WHAT + _COMMON.size else datagram + b"\0" * 8
    what, _, stamp, first, second, third, fourth = _COMMON.unpack_from(padded, _WHAT)
    when = stamp + asleep
    if what == _FORK:
        return Fork(when, second, fourth) if third == fourth else None
    if what == _EXEC:
        return Exec(when, second)
    if what == _EXIT and first == second:
        return Exit(when, first, third)
    return None


class ProcConnector:
    """Subscribes to the connector. Threads are filtered out in the kernel."""

    def __init__(self) -> None:
        """Start to listen; raises SensorError where the kernel has no connector for us."""
        self._asleep = 0
        try:
            self._socket = NetlinkSocket(
                _FAMILY, group=_GROUP, receive_bytes=_BUFFER_BYTES, program=program()
            )
        except OSError as problem:
            raise SensorError(
                f"the kernel's process connector can't be listened to ({problem.strerror}): the "
                "audit sensor needs CONFIG_PROC_EVENTS, CAP_NET_ADMIN and the node's own network "
                "namespace"
            ) from problem
        try:
            self._say(_LISTEN)
        except OSError as problem:
            self._socket.close()
            raise SensorError(
                f"the kernel has no process connector here ({problem.strerror}): the audit sensor "
                "needs CONFIG_PROC_EVENTS and the node's own network namespace"
            ) from problem

    @property
    def overruns(self) -> int:
        """How often the kernel said that it had to drop events."""
        return self._socket.overruns

    @property
    def dropped(self) -> int:
        """How many events it had to drop."""
        return self._socket.dropped

    def fileno(self) -> int:
        """Return what is readable when events wait."""
        return self._socket.fileno()

    def read(self, most: int) -> Iterator[ProcEvent]:
        """Give the events that wait, of at most MOST datagrams."""
        # Too much if this process had to wait in between, so the least counts; sleep adds seconds.
        now = time.monotonic_ns()
        asleep = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - now
        if not self._asleep <= asleep < self._asleep + _SLEEP:
            self._asleep = asleep
        for datagram in self._socket.datagrams(most):
            event = decode(datagram, self._asleep)
            if event is not None:
                yield event

    def close(self) -> None:
        """Stop listening."""
        try:
            self._say(_IGNORE)
        except OSError:
            pass  # The socket goes in any case.
        finally:
            self._socket.close()

    def _say(self, what: int) -> None:
        self._socket.send(DONE, os.getpid(), _REQUEST.pack(_GROUP, 1, 0, 0, 4, 0, what), 0)


def program() -> Sequence[Instruction]:
    """Return the filter that lets through what `decode` reads."""
    # The filter reads words as big-endian, the event has the machine's own order.
    fork, exec_, exit_ = (
        struct.unpack(">I", struct.pack("=I", what))[0] for what in (_FORK, _EXEC, _EXIT)
    )
    move_to_x, jump_equal_x = 0x07, 0x1D
    return (
        (LOAD_WORD, 0, 0, _WHAT),
        (JUMP_EQUAL, 10, 0, exec_),
        (JUMP_EQUAL, 0, 4, fork),
        (LOAD_WORD, 0, 0, _FIRST + 8),
        (move_to_x, 0, 0, 0),
        (LOAD_WORD, 0, 0, _FIRST + 12),
        (jump_equal_x, 5, 6, 0),
        (JUMP_EQUAL, 0, 5, exit_),
        (LOAD_WORD, 0, 0, _FIRST),
        (move_to_x, 0, 0, 0),
        (LOAD_WORD, 0, 0, _FIRST + 4),
        (jump_equal_x, 0, 1, 0),
        (RETURN, 0, 0, 0xFFFFFFFF),
        (RETURN, 0, 0, 0),
    )
