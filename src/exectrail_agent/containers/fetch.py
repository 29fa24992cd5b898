"""One bounded GET over TLS."""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Endpoint:
    """What to ask, whom to trust, and who asks.

    - `ca_file` or `ca_text`: PEM; nobody else is trusted.
    - `server_name`: whom the server must prove to be, if that is not the url's host.
    - `cert_file`, `key_file`, `token_file`: read anew each time, for they are renewed.
    """

    url: str
    ca_file: str = ""
    ca_text: str = ""
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""
    token_file: str = ""


class FetchError(Exception):
    """There is no answer, or not the one wanted; `status` is HTTP's, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def get(endpoint: Endpoint, *, seconds: float, limit: int) -> bytes:
    """Return the body, of `limit` bytes at most, within `seconds` in all. Raises FetchError."""
    deadline = time.monotonic() + seconds
    try:
        status, body = _get(endpoint, deadline, limit)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError(f"{endpoint.url}: {error or type(error).__name__}") from None
    if status != http.HTTPStatus.OK:
        raise FetchError(f"{endpoint.url}: HTTP {status}", status)
    return body


def _get(endpoint: Endpoint, deadline: float, limit: int) -> tuple[int, bytes]:
    url = urlsplit(endpoint.url)
    host, target = url.hostname or "", f"{url.path or '/'}?{url.query}".rstrip("?")
    context = ssl.create_default_context(
        cafile=endpoint.ca_file or None, cadata=endpoint.ca_text or None
    )
    if endpoint.cert_file:
        context.load_cert_chain(endpoint.cert_file, endpoint.key_file or None)
    # Version 1.0: the answer comes in one piece and ends with the connection.
    lines = [f"GET {target} HTTP/1.0", f"Host: {url.netloc}", "Accept: application/json"]
    if endpoint.token_file:
        token = Path(endpoint.token_file).read_text(encoding="ascii").strip()
        lines.append(f"Authorization: Bearer {token}")
    address = _address(host, url.port or 443, deadline)
    name = endpoint.server_name or host
    connected = socket.create_connection(address, _left(deadline))
    with connected as plain, context.wrap_socket(plain, server_hostname=name) as secure:
        secure.settimeout(_left(deadline))
        secure.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        received = bytearray()
        while True:
            # Each wait gets what is left, so that a server that trickles gains nothing.
            secure.settimeout(_left(deadline))
            data = secure.recv(_CHUNK)
            if not data:
                break
            received += data
            if len(received) > limit:
                raise ValueError(f"the answer has more than {limit} bytes")
    response = http.client.HTTPResponse(_Received(received))  # type: ignore[arg-type]
    response.begin()
    return response.status, response.read()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left


def _address(host: str, port: int, deadline: float) -> tuple[str, int]:
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        pass
    found: list[str] = []

    def resolve() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            return
        found.extend(str(answer[4][0]) for answer in answers)

    # A resolver takes as long as it likes and can't be told otherwise.
    thread = threading.Thread(target=resolve, daemon=True)
    thread.start()
    thread.join(_left(deadline))
    if not found:
        raise OSError(f"{host} has no address that is found in time")
    return found[0], port


class _Received:
    """An answer that is there already, in the place of a socket."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._data)
