"""The address that this node reaches others from, asked of the kernel's routes."""

from __future__ import annotations

import socket
import struct

from exectrail_agent.netlink import NetlinkSocket, frame

_FAMILY = 0  # NETLINK_ROUTE
_NEW, _GET = 24, 26
_DESTINATION, _SOURCE = 1, 7
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_ELSEWHERE = (
    # Addresses that are kept for documentation: any route but the default one would be a surprise.
    (socket.AF_INET, "192.0.2.1"),
    (socket.AF_INET6, "2001:db8::1"),
)


def own_address() -> str:
    """Return an IPv4 address, else an IPv6 one, else ""."""
    for family, target in _ELSEWHERE:
        try:
            found = _source(family, target)
        except OSError:
            continue
        if found:
            return found
    return ""


def preferred_source(payload: bytes, family: int) -> str:
    """Return the address that a route's description names as the source; "" if it names none."""
    size = 4 if family == socket.AF_INET else 16
    offset = _ROUTE.size
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        value = payload[offset + _ATTRIBUTE.size : offset + length]
        if kind == _SOURCE and len(value) == size:
            return socket.inet_ntop(family, value)
        offset += max(_ATTRIBUTE.size, (length + 3) & ~3)
    return ""


def _source(family: int, target: str) -> str:
    packed = socket.inet_pton(family, target)
    route = _ROUTE.pack(family, 8 * len(packed), 0, 0, 0, 0, 0, 0, 0)
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _DESTINATION) + packed
    routes = NetlinkSocket(_FAMILY)
    try:
        # The kernel has answered when the question has been sent.
        routes.send(_GET, 1, route + attribute)
        for datagram in routes.datagrams(1):
            answer = frame(datagram)
            if answer and answer.kind == _NEW:
                return preferred_source(answer.payload, family)
    finally:
        routes.close()
    return ""
