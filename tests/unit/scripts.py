"""Node scripts as modules, loaded as they are on a node."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from exectrail.nodes import launch

MODULES = Path(__file__).parents[2] / "plugins" / "modules"


def load(name: str) -> ModuleType:
    """Give a module of its own, whatever other tests have done to theirs."""
    written = sys.dont_write_bytecode
    launch.load(name, (MODULES / f"{name}.py").read_text())
    sys.dont_write_bytecode = written
    return sys.modules[name]
