"""The small files that the next agent finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from exectrail_agent import state


def test_nothing_is_saved_that_would_not_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.json"
    monkeypatch.setattr(state, "_LIMIT", 100)
    state.save(path, {"a": "x" * 92})
    with pytest.raises(OSError, match="too large"):
        state.save(path, {"a": "x" * 93})

    assert state.load(path) == {"a": "x" * 92}
