"""Which operating system a node runs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from exectrail.compliance.checks.registry import Outcome, Parameters, check
from exectrail.compliance.items.access import Items
from exectrail.compliance.items.node import OS_RELEASE

DEFAULT_ID = "linux"
"""What os-release(5) says an operating system without ID is."""


class OsFamily(Parameters, frozen=True):
    """`supported` maps the ID of os-release to a name; `derivatives` lets ID_LIKE count too."""

    supported: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    derivatives: bool = False

    def expected(self) -> str:
        """List the operating systems."""
        names = ", ".join(self.supported.values())
        return f"one of {names}" + (", or a derivative of one" if self.derivatives else "")


@check("node.os-family", OsFamily)
def os_family(items: Items, parameters: OsFamily) -> Outcome:
    """Compare `ID` of os-release, exactly. `ID_LIKE` counts only where `derivatives` is true."""
    release = items[OS_RELEASE]
    system = release.get("ID", DEFAULT_ID)
    observed = f"{release.get('PRETTY_NAME', system)} (ID={system})"
    if system in parameters.supported:
        return Outcome.passed(observed, f"{parameters.supported[system]} is supported.")
    origins = [name for name in release.get("ID_LIKE", "").split() if name in parameters.supported]
    if not origins:
        return Outcome.failed(
            observed, f"The operating system {system!r} is none of the supported ones."
        )
    origin = parameters.supported[origins[0]]
    if parameters.derivatives:
        return Outcome.passed(observed, f"{system!r} is derived from {origin}.")
    return Outcome.failed(
        observed,
        f"The operating system {system!r} is derived from {origin} (ID_LIKE), but is not {origin}.",
    )
