"""What becomes of the checks that were named, on one node. Pure, but for asking the node."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from exectrail.compliance.checks import CHECKS
from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.model import Evidence, Result, Status
from exectrail.compliance.requirements import Requirement, Requirements
from exectrail.compliance.waivers import WaiverBook
from exectrail.errors import UsageError
from exectrail.remediation.model import (
    Action,
    Became,
    Change,
    HandOver,
    Link,
    Look,
    Outcome,
    Package,
    Seen,
    Unit,
    UnitState,
    WriteFile,
)
from exectrail.remediation.owners import OWNERS, hand_over
from exectrail.remediation.repairs import REPAIRS
from exectrail.yamlfile import suggest


class Case(NamedTuple):
    """A named requirement and its result on a node."""

    requirement: Requirement
    result: Result


class Job(msgspec.Struct, frozen=True):
    """The changes that a repair needs on a node, and how long the clock then has."""

    changes: tuple[Change, ...]
    await_clock: int


def named(text: str, requirements: Requirements) -> tuple[str, ...]:
    """Read ``CHECK[,CHECK…]``; raise UsageError for one that the profile does not have."""
    checks = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    known = {requirement.id for requirement in requirements.checks}
    if not checks:
        raise UsageError(
            "No check is named, so nothing is repaired: remediate=CHECK[,CHECK…]. "
            f"There are repairs for {', '.join(sorted(REPAIRS))}."
        )
    for check in checks:
        if check in known:
            continue
        profile = requirements.profile.name
        if check in CHECKS:
            owner = OWNERS.get(check)
            advice = f"It is for {owner.who} to do: {owner.why}" if owner else "Choose another"
            raise UsageError(f"The profile {profile!r} does not require {check!r}. {advice}.")
        raise UsageError(f"The profile {profile!r} has no check {check!r}{suggest(check, known)}")
    return checks


def judge(
    evidence: Evidence,
    requirements: Requirements,
    waivers: WaiverBook,
    checks: Sequence[str],
    today: dt.date,
) -> list[Case]:
    """Judge the named requirements, in the order in which they were named."""
    report = evaluate(evidence, requirements, waivers, today=today)
    cases = {
        requirement.id: Case(requirement, result)
        for requirement, result in zip(requirements.checks, report.results, strict=True)
    }
    return [cases[check] for check in checks]


def settled(case: Case) -> Outcome | None:
    """Say what came of a check that needs no repair, or can't have one; None if it is to be made.

    One that is waived is left alone: somebody answers for the node's being as it is.
    """
    check, result = case.result.check, case.result
    if result.status in (Status.PASS, Status.SKIP):
        return Outcome(check, Became.NOTHING, result.message)
    if result.waived and result.waiver:
        until = f"{result.waiver.owner} waives it until {result.waiver.expires}"
        return Outcome(check, Became.WAIVED, f"{until}: {result.waiver.reason}")
    if result.status is Status.ERROR:
        fix = f" {result.remediation}" if result.remediation else ""
        return Outcome(check, Became.UNKNOWN, f"{result.message}{fix}")
    if case.requirement.check.id not in REPAIRS:
        message = hand_over(case.requirement.check.id, case.requirement.remediation)
        return Outcome(check, Became.BY_HAND, f"{result.message} {message}")
    return None


def look(case: Case, evidence: Evidence) -> Look | Outcome:
    """Say what has to be read on the node before its repair can be planned."""
    requirement = case.requirement
    try:
        return REPAIRS[requirement.check.id].look(_items(evidence), requirement.parameters)
    except (HandOver, Unreadable) as reason:
        return _not_ours(case, reason)


def plan(case: Case, evidence: Evidence, found: Mapping[str, Any]) -> Job | Outcome:
    """Decide what to change, from the node's answer; what is right already is left out."""
    requirement = case.requirement
    seen = msgspec.convert(found, Seen)
    try:
        made = REPAIRS[requirement.check.id].plan(_items(evidence), requirement.parameters, seen)
    except (HandOver, Unreadable) as reason:
        return _not_ours(case, reason)
    changes = [
        Change(action, _state(action, found))
        for action in made.actions
        if not _is_so(action, _state(action, found))
    ]
    if not changes:
        message = f"{case.result.message} All that its repair would do is so already."
        return Outcome(requirement.id, Became.FAILED, message)
    return Job(tuple(changes), made.await_clock)


def _not_ours(case: Case, reason: Exception) -> Outcome:
    became = Became.BY_HAND if isinstance(reason, HandOver) else Became.UNKNOWN
    return Outcome(case.result.check, became, f"{case.result.message} {reason}")


def _items(evidence: Evidence) -> Items:
    return Items(evidence.items, evidence.variables, evidence.problem or "not collected")


def _state(action: Action, found: Mapping[str, Any]) -> dict[str, Any]:
    match action:
        case Unit():
            state = found["units"][action.name]
        case Package():
            state = found["package"]
        case _:
            state = found["paths"][action.path]
    return dict(state)


def _is_so(action: Action, state: Mapping[str, Any]) -> bool:
    match action:
        case WriteFile():
            return (state["kind"], state.get("text")) == ("file", action.text)
        case Link():
            return (state["kind"], state.get("target")) == ("link", action.target)
        case Unit():
            unit = msgspec.convert(state, UnitState)
            return unit.runs == unit.starts == action.on
        case Package():
            return state["installed"] is not None


def diffs(changes: Sequence[Change]) -> tuple[tuple[str, str, str], ...]:
    """Show changes: what is changed, and the text that stands for it before and after."""
    return tuple(
        (_header(each.action), _shown(each.action, each.before), _after(each)) for each in changes
    )


def _header(action: Action) -> str:
    return action.name if isinstance(action, Unit | Package) else action.path


def _after(change: Change) -> str:
    if change.after is not None:
        return _shown(change.action, change.after)
    match change.action:
        case WriteFile():
            return change.action.text
        case Link():
            return f"link to {change.action.target}\n"
        case Unit():
            return "enabled, active\n" if change.action.on else "disabled, inactive\n"
        case Package():
            return "installed\n"


def _shown(action: Action, state: Mapping[str, Any]) -> str:
    if isinstance(action, Unit):
        return ", ".join(word for word in (state["enabled"], state["active"]) if word) + "\n"
    if isinstance(action, Package):
        return f"{state['installed'] or 'not installed'}\n"
    if state["kind"] == "link":
        return f"link to {state['target']}\n"
    # Bytes that are no text must not stop the terminal that shows them.
    return str(state.get("text", "")).encode("utf-8", "backslashreplace").decode()
