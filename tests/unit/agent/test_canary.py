"""The program of its own by which the agent proves that it sees."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from exectrail_agent import canary as canary_module
from exectrail_agent.canary import Canary


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_every_one_of_many_in_a_row_is_buried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canary_module, "_own_group", lambda: tmp_path)
    before = children()
    canary = Canary()
    for _ in range(3):
        canary.start(0.0)
    deadline = time.monotonic() + 60
    while children() - before:
        assert time.monotonic() < deadline
        canary.reap()
        time.sleep(0.02)
    canary.start(0.0)
    canary.close()

    assert children() <= before
