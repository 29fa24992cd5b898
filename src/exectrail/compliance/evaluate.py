"""Judges one node's evidence: exactly one result per requirement, whatever the evidence holds."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable

from exectrail.compliance.checks import Outcome
from exectrail.compliance.checks.operating_system import DEFAULT_ID
from exectrail.compliance.checks.sensor import ExecSensor, choose
from exectrail.compliance.items.access import Items, Unreadable, gather
from exectrail.compliance.items.node import (
    DISTRIBUTION,
    KERNEL_RELEASE,
    KUBERNETES_VERSION,
    MANAGER,
    OS_RELEASE,
    ROLE,
)
from exectrail.compliance.model import Evidence, HostReport, HostState, Result, Status
from exectrail.compliance.requirements import AppliesTo, Requirement, Requirements
from exectrail.compliance.waivers import NO_WAIVERS, WaiverBook

_LONGEST = 600
"""Characters of one text in a result: a node's text may be of any length."""
_FIX_UNREADABLE = (
    "Run it as root (ansible_become: true), when the node is not busy. If that does not help, look "
    "on the node why the item can't be read."
)
_WAIVABLE = (Status.FAIL, Status.WARN, Status.ERROR)


def evaluate(
    evidence: Evidence,
    requirements: Requirements,
    waivers: WaiverBook = NO_WAIVERS,
    *,
    today: dt.date,
) -> HostReport:
    """Give one result per requirement, in the profile's order. Pure; never raises.

    An item that decides and could not be read is an error, never a pass; so is a fault in a check.
    A node that could not be looked at has an error for each requirement, which no waiver covers.
    """
    items = Items(
        evidence.items, evidence.variables, evidence.problem or "not collected", evidence.groups
    )
    checked = evidence.state is HostState.CHECKED

    def result(requirement: Requirement) -> Result:
        outcome, remediation = _judged(evidence, items, requirement)
        waiver = None
        if checked and requirement.waivable and outcome.status in _WAIVABLE:
            waiver = waivers.find(requirement.id, evidence.host, today)
        message = _clean(outcome.message)
        if waiver and waiver.expired:
            message += f" The waiver of {waiver.owner} expired: it held until {waiver.expires}."
        return Result(
            check=requirement.id,
            title=requirement.title,
            host=host,
            status=outcome.status,
            severity=requirement.severity,
            expected=requirement.expected,
            observed=_clean(outcome.observed) or "nothing",
            message=message,
            remediation=remediation,
            references=requirement.references,
            waiver=waiver,
        )

    host = _clean(evidence.host)
    return HostReport(
        host=host,
        state=evidence.state,
        results=tuple(result(requirement) for requirement in requirements.checks),
        facts=_facts(items, requirements) if checked else {},
        problem=_clean(evidence.problem),
        fix=_clean(evidence.fix),
    )


def _judged(evidence: Evidence, items: Items, requirement: Requirement) -> tuple[Outcome, str]:
    """Give the outcome and what to do about it."""
    if evidence.state is not HostState.CHECKED:
        why = f"The node could not be looked at: {evidence.problem or evidence.state}."
        return Outcome(Status.ERROR, evidence.state, why), evidence.fix
    try:
        outcome = _not_applicable(items, requirement.applies_to) or requirement.check.judge(
            items, requirement.parameters
        )
    except Unreadable as problem:
        fix = problem.fix or evidence.fix or _FIX_UNREADABLE
        return Outcome(Status.ERROR, "unreadable", f"It can't be judged: {problem}."), fix
    except Exception as fault:  # noqa: BLE001  one broken check must not take the others with it
        return Outcome(
            Status.ERROR,
            "unknown",
            f"The check itself is at fault ({type(fault).__name__}: {fault}).",
        ), "Report it together with the evidence file of this node."
    needs_action = outcome.status in (Status.FAIL, Status.WARN)
    return outcome, requirement.remediation if needs_action else ""


def _not_applicable(items: Items, applies_to: AppliesTo) -> Outcome | None:
    """Say why the requirement is not for this node; one condition that is not met decides."""

    def system() -> list[str]:
        if applies_to.os is None:
            return []
        release = items[OS_RELEASE]
        found = release.get("ID", DEFAULT_ID)
        if found in applies_to.os:
            return []
        wanted = " or ".join(applies_to.os)
        derived = set(release.get("ID_LIKE", "").split()) & set(applies_to.os)
        return [f"{found!r} is {'only derived from' if derived else 'not'} {wanted}"]

    def resolver() -> list[str]:
        if applies_to.resolver is None or items[MANAGER].systemd_resolved:
            return []
        return [f"{applies_to.resolver} does not run"]

    unmet, unreadable = gather(system, resolver)
    if unmet:
        seen = "; ".join(unmet)
        return Outcome(Status.SKIP, seen, f"It does not apply to this node: {seen}.")
    if unreadable:
        raise unreadable
    return None


def _facts(items: Items, requirements: Requirements) -> dict[str, str]:
    """Describe the node in a few words; what could not be read is left out."""
    parameters = next(
        (r.parameters for r in requirements.checks if isinstance(r.parameters, ExecSensor)),
        ExecSensor(),
    )

    def kubernetes() -> str:
        version = items[KUBERNETES_VERSION]
        return f"{items[DISTRIBUTION]} {version}" if version else "none"

    facts: dict[str, Callable[[], str]] = {
        "os": lambda: items[OS_RELEASE].get("PRETTY_NAME", DEFAULT_ID),
        "kernel": lambda: items[KERNEL_RELEASE],
        "role": lambda: items[ROLE],
        "kubernetes": kubernetes,
        "sensor": lambda: choose(items, parameters).name,
    }
    found = {}
    for name, read in facts.items():
        with contextlib.suppress(Unreadable):
            found[name] = _clean(read())
    return found


def _clean(text: str) -> str:
    """Cut a long text, and replace the half characters that no file can hold."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
