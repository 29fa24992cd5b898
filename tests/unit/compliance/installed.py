"""A healthy master and a healthy worker of a real cluster, changed in one place and judged."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance import evidence
from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.model import Evidence, Result
from exectrail.compliance.requirements import load_profile
from tests.unit.compliance.nodes import TODAY

FIXTURES = Path(__file__).parents[2] / "fixtures" / "installed"
PROFILE = load_profile("installed")
UNREADABLE = {"unreadable": "x (needs root)"}


@cache
def saved(name: str) -> Evidence:
    return evidence.load(FIXTURES / f"{name}.json")


def installed(
    name: str = "worker",
    changes: dict[str, Any] | None = None,
    variables: dict[str, Any] | None = None,
    groups: tuple[str, ...] | None = None,
) -> Evidence:
    """Give the node with some of its items changed.

    A key is an item, or ``item/field`` (of nested ones ``item/field/field``); a value ... takes it
    away.
    """
    found = saved(name)
    items = copy.deepcopy(found.items)
    for path, value in (changes or {}).items():
        *way, last = path.split("/")
        place: Any = items
        for step in way:
            place = place[_key(place, step)]
        if value is ...:
            del place[last]
        else:
            place[_key(place, last)] = value
    return Evidence(
        host=found.host,
        items=items,
        groups=found.groups if groups is None else groups,
        variables={**found.variables, **(variables or {})},
    )


def _key(place: Any, step: str) -> Any:
    return int(step) if isinstance(place, list) else step


def results(node: Evidence) -> dict[str, Result]:
    return {each.check: each for each in evaluate(node, PROFILE, today=TODAY).results}


def told(check: str, node: Evidence, status: str, says: str = "") -> None:
    """See that the check has this status, and says this among what it says."""
    only = tuple(each for each in PROFILE.checks if each.id == check)
    profile = msgspec.structs.replace(PROFILE, checks=only)
    (result,) = evaluate(node, profile, today=TODAY).results
    said = f"{result.observed} | {result.message}"
    assert (str(result.status), says in said) == (status, True), result


def findings(node: Evidence) -> dict[str, str]:
    """Give the status of every check that neither passes nor is skipped."""
    good = {"pass", "skip"}
    return {
        check: str(each.status) for check, each in results(node).items() if each.status not in good
    }
