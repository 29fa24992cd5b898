"""What is asked of a node, and what it printed as the evidence of that node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance import canary, run
from exectrail.compliance.model import Evidence, HostState
from exectrail.nodes import script
from exectrail.nodes.reachability import NO_PYTHON, explain

PREFLIGHT: dict[str, dict[str, Any]] = {"node_evidence": {}}
"""The node script that preflight asks, with its request."""


def known_before(directory: Path, host: str) -> dict[str, Any]:
    """Give the variables of a verified host's evidence that are known before it is asked."""
    request = run.load(directory)
    found: dict[str, Any] = {
        "inventory_addresses": sorted(
            {name for each in request.addresses.values() for name in each}
        )
    }
    if entered := canary.load(directory).get(host):
        found["canary"] = msgspec.to_builtins(entered)
    return found


def verification(known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the scripts that verification asks together in one call, with their requests."""
    return {**PREFLIGHT, "installation_evidence": {"canary": known.get("canary")}}


def from_output(host: str, out: str, err: str, **about: Any) -> Evidence:
    """Return the items of every script's evidence together, or why there is none.

    `about` are further fields of Evidence: groups, variables.
    """
    items: dict[str, Any] = {}
    for answer in script.answers(out):
        items |= answer["items"]
    if items:
        return Evidence(host=host, items=items, **about)
    said = f"{out}\n{err}"
    if NO_PYTHON in said:
        problem, fix = explain(said, host)
        known: dict[str, Any] = {"python.interpreters": []}
        return Evidence(host=host, items=known, problem=problem, fix=fix, **about)
    return unreachable(host, said, **about)


def unreachable(host: str, said: str, **about: Any) -> Evidence:
    """Return the evidence of a node that could not be read; `said` is what ssh or sudo said."""
    obstacle = explain(said, host)
    return Evidence(
        host=host,
        state=HostState.UNREACHABLE,
        problem=obstacle.problem,
        fix=obstacle.fix,
        **about,
    )
