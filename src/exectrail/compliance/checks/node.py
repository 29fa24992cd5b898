"""What an installed agent and its records rest on: the kubelet and the clock."""

from __future__ import annotations

import math

from exectrail.compliance.checks.registry import Outcome, Parameters, check, plain_check
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.items.installed import KUBELET_UNIT, NOW
from exectrail.compliance.items.node import KUBELET


@plain_check(
    "node.kubelet",
    "a kubelet that runs, where there is one",
)
def kubelet(items: Items) -> Outcome:
    """Ask systemd for the kubelet's unit; where it has none, look for the process."""
    found = items[KUBELET]
    if found is None:
        return Outcome.skipped("no kubelet", "There is no kubelet on this node.")
    unit = items[KUBELET_UNIT]
    if unit is not None and unit.load == "loaded":
        state = f"{unit.active} ({unit.sub})"
        if unit.active != "active":
            return Outcome.failed(state, f"The kubelet's unit is {state}.")
        return Outcome.passed(state, "The kubelet runs.")
    if not found.running:
        return Outcome.failed("no process", "The kubelet does not run.")
    return Outcome.passed("a process", "The kubelet runs.")


class ClockOffset(Parameters, frozen=True):
    """`seconds` is how far the node's clock may be from the controller's."""

    seconds: float = 30.0

    expects = "a clock within {seconds:g} s of the controller's"


@check("node.clock-offset", ClockOffset)
def clock_offset(items: Items, parameters: ClockOffset) -> Outcome:
    """Compare the node's clock with the controller's before it was asked and after the answer."""
    asked, answered = items.variables.get("asked"), items.variables.get("answered")
    if asked is None or answered is None:
        return Outcome.skipped(
            "not noted", "The controller's clock at the time is not in the evidence."
        )
    earliest, latest = _moment("asked", asked), _moment("answered", answered)
    now = items[NOW]
    off = min(0.0, now - earliest) + max(0.0, now - latest)
    if abs(off) > parameters.seconds:
        return Outcome.failed(
            f"{off:+.1f} s", f"The node's clock differs from the controller's by {off:+.0f} s."
        )
    return Outcome.passed(f"within {abs(off):.1f} s", "The node's clock is right.")


def _moment(name: str, value: object) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Unreadable(f"variable {name}", f"not a moment but {value!r}")
    return found
