"""What changed between two reports: node by node, check by check."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from exectrail.compliance.model import HostReport, HostState, Report, Result, Status
from exectrail.compliance.render.layout import wrap
from exectrail.hostnames import fold, in_order
from exectrail.printable import printable

_WIDTH = 80
_RANGES = 24
_FAILING = (Status.FAIL, Status.ERROR)
_BAD = (*_FAILING, Status.WARN)


class Change(StrEnum):
    """How a node, or one check on it, differs; in the order in which people want to know."""

    FAILING = "Newly failing"
    EXPIRED = "Failing again: the waiver expired"
    UNWAIVED = "Failing again: the waiver was withdrawn"
    LOST = "No longer reachable"
    GONE = "Nodes that are gone"
    DROPPED = "No longer checked"
    OTHER = "Changed"
    WAIVED = "Newly waived"
    FIXED = "Fixed"
    REACHED = "Reachable again"
    NEW = "New nodes"
    STILL = "Still failing"


_SUMMARY = {
    Change.FAILING: "newly failing",
    Change.EXPIRED: "newly failing",
    Change.UNWAIVED: "newly failing",
    Change.LOST: "newly unreachable",
    Change.FIXED: "fixed",
    Change.STILL: "still failing",
}

_Key = tuple[Change, str, str, str]
"""A difference without its hosts: change, check, before, after."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One change and the nodes it is on; `check` is empty when it is about the nodes themselves.

    `before` and `after` are what was found, for example ``fail (waived)`` and ``fail``.
    """

    change: Change
    check: str
    before: str
    after: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports compared; `differences` come in the order of `Change`."""

    old: Report
    new: Report
    differences: tuple[Difference, ...]


def compare(old: Report, new: Report) -> Comparison:
    """Compare two reports; a failure of a node that was not checked before counts as new."""
    before = {host.host: host for host in old.hosts}
    after = {host.host: host for host in new.hosts}
    hosts: dict[_Key, list[str]] = defaultdict(list)
    for host in in_order({*before, *after}):
        for key in _of_host(before.get(host), after.get(host)):
            hosts[key].append(host)
    order = list(Change)
    differences = [Difference(*key, tuple(alike)) for key, alike in hosts.items()]
    differences.sort(key=lambda each: (order.index(each.change), each.check, each.hosts))
    return Comparison(old, new, tuple(differences))


def _of_host(before: HostReport | None, after: HostReport | None) -> Iterator[_Key]:
    was = before.state if before else None
    now = after.state if after else None
    checked = HostState.CHECKED
    if was is not now or now is not checked:
        yield _of_state(was, now), "", was or "", now or ""
    if not after or now is not checked:
        return
    olds = {result.check: result for result in before.results} if before and was is checked else {}
    news = {result.check: result for result in after.results}
    for check in {**olds, **news}:
        old, new = olds.get(check), news.get(check)
        change = _of_check(old, new)
        if change:
            yield change, check, _told(old), _told(new)


def _of_state(was: HostState | None, now: HostState | None) -> Change:
    if now is None:
        return Change.GONE
    if was is None:
        return Change.NEW
    if now is HostState.CHECKED:
        return Change.REACHED
    return Change.LOST if was is HostState.CHECKED else Change.STILL


def _of_check(old: Result | None, new: Result | None) -> Change | None:
    if new is None:
        return Change.DROPPED
    if new.waived:
        return None if old and old.waived else Change.WAIVED
    if new.status in _FAILING:
        return _of_failure(old, new)
    if old is None or old.status is new.status:
        return None
    return Change.FIXED if new.status is Status.PASS and old.status in _BAD else Change.OTHER


def _of_failure(old: Result | None, new: Result) -> Change:
    if old is None or old.status not in _FAILING:
        return Change.FAILING
    if old.waived:
        return Change.EXPIRED if new.waiver else Change.UNWAIVED
    return Change.STILL if old.status is new.status else Change.OTHER


def _told(result: Result | None) -> str:
    if result is None:
        return "not checked"
    return f"{result.status} (waived)" if result.waived else result.status


def render_diff(comparison: Comparison) -> str:
    """Return the comparison as text of 80 columns; the last line counts the changes."""
    lines = [*_head(comparison)]
    for change in Change:
        found = [each for each in comparison.differences if each.change is change]
        if found:
            lines += ["", change]
            for each in found:
                lines += wrap(_line(each), _WIDTH, indent="  ")
    return "\n".join([*lines, "", _counted(comparison), ""])


def _head(comparison: Comparison) -> Iterator[str]:
    old, new = comparison.old, comparison.new
    for name, report in (("old", old), ("new", new)):
        fit = f"{report.counts.hosts_fit} of {report.counts.hosts} nodes fit"
        yield f"{name}  {report.started:%Y-%m-%d %H:%M:%S} UTC  {report.verdict.upper()}, {fit}"
    if old.profile.sha256 != new.profile.sha256:
        yield from wrap(
            f"The requirements differ ({printable(old.profile.name)}, then "
            f"{printable(new.profile.name)}): a change may come from that, not from a node.",
            _WIDTH,
        )
    if old.started > new.started:
        yield "The old report is younger than the new one: are they in the right order?"


def _line(difference: Difference) -> str:
    hosts = printable(fold(difference.hosts, limit=_RANGES))
    steps = [step for step in (difference.before, difference.after) if step]
    what = f"{printable(difference.check)} on {hosts}" if difference.check else hosts
    return f"{what}: {' -> '.join(dict.fromkeys(steps))}"


def _counted(comparison: Comparison) -> str:
    counts: Counter[str] = Counter()
    for each in comparison.differences:
        counts[_SUMMARY.get(each.change, "other changes")] += len(each.hosts)
    if not counts.keys() - {"still failing"}:
        return f"Nothing changed; {counts['still failing']} still failing."
    names = (*dict.fromkeys(_SUMMARY.values()), "other changes")
    return ", ".join(f"{counts[name]} {name}" for name in names)
