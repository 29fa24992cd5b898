"""An OCI bundle's config.json: what the agent needs of it. Pure; the input is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MAX_TEXT = 4096


@dataclass(frozen=True)
class Bundle:
    """What a runtime is told about a container.

    `shares_pids`: it gets no pid namespace of its own.
    """

    annotations: Mapping[str, str]
    cgroups_path: str = ""
    terminal: bool = False
    shares_pids: bool = False

    def annotation(self, *names: str) -> str:
        """Return the first of the annotations that is there, else ""."""
        return next((self.annotations[name] for name in names if self.annotations.get(name)), "")


def parse(raw: bytes) -> Bundle:
    """Take a config.json apart; what is missing or of a wrong type is left out.

    Raises ValueError if it is no JSON object.
    """
    config = json_object(raw)
    linux = mapping(config.get("linux"))
    namespaces = linux.get("namespaces")
    own = [
        item
        for item in (namespaces if isinstance(namespaces, list) else [])
        if isinstance(item, dict) and item.get("type") == "pid" and not item.get("path")
    ]
    return Bundle(
        texts(config.get("annotations")),
        text(linux.get("cgroupsPath")),
        mapping(config.get("process")).get("terminal") is True,
        not own,
    )


def json_object(raw: bytes) -> dict[str, Any]:
    """Decode a JSON object; nobody here needs a number, each becomes None. Raises ValueError."""
    try:
        # To convert a number takes time that grows with the square of its length.
        data = json.loads(raw.decode(), parse_int=_ignored, parse_float=_ignored)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - wrong data, not a wrong call
    return data


def mapping(value: Any) -> dict[str, Any]:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """Return `value` if it is text, cut to 4096 characters and fit to be encoded; else ""."""
    if not isinstance(value, str):
        return ""
    return value[:_MAX_TEXT].encode("utf-8", "replace").decode()


def texts(value: Any) -> dict[str, str]:
    """Return the pairs of text in `value`."""
    return {text(key): text(item) for key, item in mapping(value).items() if isinstance(item, str)}


def _ignored(_: str) -> None:
    return None
