"""Fixtures around the small trees of evidence_tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from evidence_tree import MODULE, build


@pytest.fixture
def ne() -> ModuleType:
    """The script, as a module."""
    return MODULE


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., Any]:
    """Makes the Node of a tree: ``node({"/etc/fstab": "…"})``; an x86_64 machine."""

    def make(files: dict[str, Any] | None = None) -> Any:
        build(tmp_path, files or {})
        return MODULE.Node(str(tmp_path), machine="x86_64")

    return make


@pytest.fixture
def item(node: Callable[..., Any]) -> Callable[..., Any]:
    """Collects one item from a tree: ``item("os.release", {"/etc/os-release": "…"})``."""

    def collect(name: str, files: dict[str, Any] | None = None) -> Any:
        return MODULE.probe(node(files), dict(MODULE.ITEMS)[name])

    return collect
