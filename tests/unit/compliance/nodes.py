"""Saved nodes, changed in one place and judged: what the tests of the checks share."""

from __future__ import annotations

import copy
import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance import evidence
from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.model import Evidence, Result
from exectrail.compliance.requirements import Requirements, load_profile

FIXTURES = Path(__file__).parents[2] / "fixtures" / "evidence"
TODAY = dt.date(2026, 11, 21)

profile = cache(load_profile)


def node(
    name: str = "debian12-vm", items: dict[str, Any] | None = None, **changes: Any
) -> Evidence:
    """Give a saved node; `items` replace some of its own, one of value ... is taken away."""
    saved = load(name)
    merged = {**copy.deepcopy(saved.items), **(items or {})}
    kept = {key: value for key, value in merged.items() if value is not ...}
    return msgspec.structs.replace(saved, items=kept, **changes)


@cache
def load(name: str) -> Evidence:
    return evidence.load(FIXTURES / f"{name}.json")


def judge(
    check: str, judged: Evidence, requirements: Requirements | str = "self_managed"
) -> Result:
    """Give the one result of a requirement on a node."""
    if isinstance(requirements, str):
        requirements = profile(requirements)
    found = [
        result
        for result in evaluate(judged, requirements, today=TODAY).results
        if result.check == check
    ]
    assert len(found) == 1
    return found[0]
