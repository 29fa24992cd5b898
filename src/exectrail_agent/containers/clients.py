"""Which commands are a runtime's client that runs something in a container. Pure."""

from __future__ import annotations

from exectrail_agent.containers.model import Container

_CLIENTS = {b"crictl", b"ctr", b"docker", b"nerdctl", b"podman"}
_SHORTEST = 3


def client_of(container: Container, command: bytes) -> str:
    """Return the name of the client that a command is, arguments ended by NULs; "" if of none."""
    words = command.split(b"\0")
    name = words[0].rpartition(b"/")[2]
    if name in _CLIENTS and b"exec" in words and _named(container, words):
        return name.decode()
    return ""


def _named(container: Container, words: list[bytes]) -> bool:
    identity = container.id.encode()
    # The name of a pod's container is not what its runtime calls it.
    name = b"" if container.pod else container.name.encode()
    return any(
        word == name or (len(word) >= _SHORTEST and identity.startswith(word))
        for word in words
        if word
    )
