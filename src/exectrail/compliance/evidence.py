"""Saved evidence: one JSON file per node."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance.model import Evidence
from exectrail.errors import UsageError

SCHEMA = 1
"""The form of `items` that this version understands."""


class _Collected(msgspec.Struct, frozen=True, kw_only=True):
    schema: int
    items: dict[str, Any]


class _ScriptOutput(msgspec.Struct, frozen=True, kw_only=True):
    evidence: _Collected


def load(path: Path) -> Evidence:
    """Read a saved node, or what the evidence script printed (the host is then the file's stem).

    Raise UsageError if the file is neither.
    """
    try:
        data = json.loads(path.read_bytes(), parse_constant=_refuse)
        if isinstance(data, dict) and "evidence" in data:
            collected = msgspec.convert(data, _ScriptOutput).evidence
            if collected.schema != SCHEMA:
                raise UsageError(
                    f"{path}: evidence of schema {collected.schema}; this version reads "
                    f"schema {SCHEMA}. Collect it again with the script of this version."
                )
            return Evidence(host=path.stem, items=collected.items)
        return msgspec.convert(data, Evidence)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: this is no evidence of a node ({error}). Give a file of a report folder's "
            "evidence/, or what `python3 node_evidence.py` printed."
        ) from error


def save(evidence: Evidence, path: Path) -> None:
    """Write `evidence` whole or not at all, readable by its owner only; raise OSError."""
    # json rather than msgspec: a node's text may hold half a surrogate pair, which only
    # an escaped form can carry.
    text = json.dumps(msgspec.to_builtins(evidence), separators=(",", ":"))
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
