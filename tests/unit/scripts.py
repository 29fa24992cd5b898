"""Node scripts as modules, loaded as they are on a node."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exectrail.nodes import launch

MODULES = Path(__file__).parents[2] / "plugins" / "modules"


def load(name: str) -> ModuleType:
    """Give a module of its own, whatever other tests have done to theirs, with time enough."""
    written = sys.dont_write_bytecode
    launch.load(name, (MODULES / f"{name}.py").read_text())
    sys.dont_write_bytecode = written
    module = sys.modules[name]
    for limit in {"CHILD_SECONDS", "PROBE_SECONDS", "TOTAL_SECONDS"} & vars(module).keys():
        setattr(module, limit, 60.0)
    return module


def interpreters() -> list[Any]:
    """Every Python line that has to work, with the newest interpreter of it on this machine."""
    found = []
    for line in ("3.6", "3.8", "3.11", "3.13"):
        homes = Path.home().glob(f".pyenv/versions/{line}.*/bin/python")
        path = max(map(str, homes), default=shutil.which(f"python{line}"))
        mark = pytest.mark.skipif(path is None, reason=f"no Python {line} on this machine")
        found.append(pytest.param(path, id=line, marks=mark))
    return found
