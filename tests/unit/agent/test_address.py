from __future__ import annotations

import ipaddress
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from exectrail_agent.address import own_address, preferred_source


def attribute(kind: int, value: bytes) -> bytes:
    packed = struct.pack("=HH", 4 + len(value), kind) + value
    return packed + bytes(-len(packed) % 4)


def test_the_preferred_source_is_found() -> None:
    payload = bytes(12) + attribute(1, b"\xc0\0\2\1") + attribute(15, b"\xfe\0\0\0")
    payload += attribute(7, b"\x0a\x59\3\x15")

    assert preferred_source(payload, socket.AF_INET) == "10.89.3.21"


def test_a_route_without_one_has_none() -> None:
    assert preferred_source(bytes(12) + attribute(1, b"\xc0\0\2\1"), socket.AF_INET) == ""


@given(st.binary(max_size=80), st.sampled_from([socket.AF_INET, socket.AF_INET6]))
def test_any_bytes_are_read(payload: bytes, family: int) -> None:
    found = preferred_source(payload, family)

    assert found == "" or ipaddress.ip_address(found)


def test_this_machine_is_asked() -> None:
    found = own_address()

    assert found == "" or ipaddress.ip_address(found)
