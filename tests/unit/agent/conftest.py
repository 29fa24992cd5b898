from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def agent() -> Iterator[int]:
    """A process that looks like the agent."""
    code = "import time; print(flush=True); time.sleep(30)"
    command = [sys.executable, "-c", code, "exectrail"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline(), "only then has it the words of its command"
        yield child.pid
        child.kill()
