"""What verification asks and knows of a node beside the evidence that preflight takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance import canary, run

SCRIPTS = ("node_evidence", "installation_evidence")
"""The node scripts whose items verification judges, together in one call."""
DEFAULT_DIRECTORY = Path("reports/verify")


def variables(directory: Path, host: str) -> dict[str, Any]:
    """Give the variables of the host's evidence that are known before it is asked."""
    request = run.load(directory)
    found: dict[str, Any] = {
        "inventory_addresses": sorted(
            {name for each in request.addresses.values() for name in each}
        )
    }
    if entered := canary.load(directory).get(host):
        found["canary"] = msgspec.to_builtins(entered)
    return found


def requests(known: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Give the request of each script that looks at the installation."""
    return {"installation_evidence": {"canary": known.get("canary")}}
