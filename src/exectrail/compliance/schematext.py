"""Writes a JSON Schema the same way whatever Python made it."""

from __future__ import annotations

import inspect
import json
from typing import Any


def schema_text(schema: dict[str, Any]) -> str:
    """Return `schema` as the text of a file under docs/reference."""
    return json.dumps(_dedented(schema), indent=2, ensure_ascii=False) + "\n"


def _dedented(value: Any) -> Any:
    # Descriptions are docstrings, which Python keeps indented before 3.13.
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(each)
            if key == "description" and isinstance(each, str)
            else _dedented(each)
            for key, each in value.items()
        }
    return [_dedented(each) for each in value] if isinstance(value, list) else value
