"""Netlink sockets with a filter in the kernel, and the frames that go over them."""

from __future__ import annotations

import array
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Tuple  # noqa: UP035  Python 3.8

ERROR = 2
DONE = 3
REQUEST_WITH_ANSWER = 0x1 | 0x4

_HEADER = struct.Struct("=IHHII")
_INSTRUCTION = struct.Struct("=HBBI")
_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270
_LARGEST = 1 << 16
_MEMINFO, _DROPS = 55, 8  # SO_MEMINFO, SK_MEMINFO_DROPS

Instruction = Tuple[int, int, int, int]
"""Of classic BPF: code, how far to jump if true, if false, and a constant."""

LOAD_WORD, LOAD_HALF, JUMP_EQUAL, RETURN = 0x20, 0x28, 0x15, 0x06


@dataclass(frozen=True)
class Frame:
    """One message: its type, the number of the request it answers, and what it carries."""

    kind: int
    sequence: int
    payload: bytes


class NetlinkSocket:
    """A socket of one netlink family that never blocks. Raises OSError where the kernel refuses."""

    def __init__(
        self,
        family: int,
        *,
        group: int = 0,
        receive_bytes: int = 0,
        program: Sequence[Instruction] = (),
    ) -> None:
        """Open and bind; GROUP is a multicast group's number, PROGRAM a filter on what is read."""
        self.overruns = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, family
        )
        try:
            if receive_bytes:
                self._widen(receive_bytes)
            if program:
                attach_filter(self._socket, program)
            self._socket.bind((0, 0))
            if group:
                self.join(group)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return what is readable when datagrams wait."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the socket; a second time is no mistake."""
        self._socket.close()

    def join(self, group: int) -> None:
        """Listen to a multicast group too."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def send(self, kind: int, sequence: int, payload: bytes = b"", flags: int = 1) -> None:
        """Send one message to the kernel."""
        size = _HEADER.size + len(payload)
        self._socket.send(_HEADER.pack(size, kind, flags, sequence, 0) + payload)

    def datagrams(self, most: int) -> Iterator[bytes]:
        """Give the datagrams that wait, at most MOST.

        The kernel says once that it dropped some, and goes on until the others have been read:
        `overruns` counts how often, `dropped` tells how many.
        """
        receive = self._socket.recv
        for _ in range(most):
            try:
                yield receive(_LARGEST)
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1

    @property
    def dropped(self) -> int:
        """How many datagrams the kernel had no room for; of old kernels how often it had none."""
        if not self.overruns:
            return 0
        try:
            values = struct.unpack("=9I", self._socket.getsockopt(socket.SOL_SOCKET, _MEMINFO, 36))
        except (OSError, struct.error):
            return self.overruns
        return max(self.overruns, int(values[_DROPS]))

    def _widen(self, size: int) -> None:
        force = 33  # SO_RCVBUFFORCE, beyond net.core.rmem_max
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def attach_filter(receiver: socket.socket, program: Sequence[Instruction]) -> None:
    """Have the kernel run a classic BPF program on what a socket would receive."""
    attach = 26  # SO_ATTACH_FILTER
    code = array.array("B", b"".join(_INSTRUCTION.pack(*step) for step in program))
    address, _ = code.buffer_info()
    receiver.setsockopt(socket.SOL_SOCKET, attach, struct.pack("@HP", len(program), address))


def frame(datagram: bytes) -> Frame | None:
    """Take a datagram apart; None for what is shorter than a header.

    A datagram of the kernel's audit holds one message, whose own length field can't be trusted:
    depending on the release it leaves the header out.
    """
    if len(datagram) < _HEADER.size:
        return None
    _, kind, _, sequence, _ = _HEADER.unpack_from(datagram)
    return Frame(kind, sequence, datagram[_HEADER.size :])


def error_of(payload: bytes) -> int:
    """Return the positive errno in the payload of an ERROR message; 0 is an acknowledgement."""
    return -struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else errno.EBADMSG  # noqa: PLR2004
