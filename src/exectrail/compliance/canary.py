"""What became of the canary pods of a run, as the run's folder keeps it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec

from exectrail.errors import UsageError

SCRIPT = "canary_pod"
"""The node script that makes them, on a master."""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """The canary pod of one node; `problem` says why nobody has entered it, if so.

    `mark` is what the command that entered it has among its arguments.
    """

    mark: str
    node: str = ""
    namespace: str
    pod: str = ""
    container: str = ""
    problem: str = ""


class Canaries(msgspec.Struct, frozen=True, kw_only=True):
    """The canaries of the hosts that are nodes of the cluster."""

    hosts: dict[str, Canary]


def path(directory: Path) -> Path:
    """Where the canaries of the run in `directory` are."""
    return directory / "canary.json"


def request(image: str, namespace: str, hosts: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """Return what the script is asked; `hosts` maps each host to the names that it goes by."""
    return {"image": image, "namespace": namespace, "hosts": {k: list(v) for k, v in hosts.items()}}


def keep(directory: Path, answer: Mapping[str, Any]) -> Canaries:
    """Write the script's answer into the run's folder; raise UsageError if it is none."""
    try:
        found = msgspec.convert(answer, Canaries)
        path(directory).write_bytes(msgspec.json.encode(found))
    except msgspec.ValidationError as error:
        raise UsageError(f"The canary pods' answer is not understood: {error}") from error
    except OSError as error:
        raise UsageError(f"{path(directory)} can't be written: {error.strerror}") from error
    return found


def load(directory: Path) -> dict[str, Canary]:
    """Give the canary of each host; none where nobody asked for any."""
    try:
        return msgspec.json.decode(path(directory).read_bytes(), type=Canaries).hosts
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path(directory)} can't be read: {error}") from error
