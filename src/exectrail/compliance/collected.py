"""What the evidence scripts printed on a node, as the evidence of that node."""

from __future__ import annotations

import json
from typing import Any

from exectrail.compliance.bundle import NO_PYTHON
from exectrail.compliance.model import Evidence, HostState
from exectrail.compliance.reachability import explain


def from_output(host: str, out: str, err: str, **about: Any) -> Evidence:
    """Return the items of every line of evidence together, or why there is none.

    `about` are further fields of Evidence: groups, variables.
    """
    items: dict[str, Any] = {}
    for line in out.splitlines():
        if line.startswith("{") and '"evidence"' in line:
            items |= json.loads(line)["evidence"]["items"]
    if items:
        return Evidence(host=host, items=items, **about)
    said = f"{out}\n{err}"
    if NO_PYTHON in said:
        return Evidence(
            host=host,
            items={"python.interpreters": []},
            problem="the node has no Python 3",
            fix="apt-get install python3 || dnf install python3 || zypper install python3",
            **about,
        )
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
