"""Results grouped the way people act on them: by finding, with the nodes that share it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeVar

from exectrail.compliance.model import (
    HostReport,
    HostState,
    Profile,
    Report,
    Result,
    Severity,
    Status,
    Waiver,
)
from exectrail.compliance.verdict import gating
from exectrail.hostnames import in_order

_BAD = (Status.FAIL, Status.ERROR, Status.WARN)
_SEVERITIES = tuple(Severity)
_NAME = re.compile(r"[\w.:-]*\w")

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Rank(IntEnum):
    """How much a result matters to the run; the smaller, the worse."""

    GATING = 0
    FAILING = 1
    WARNING = 2
    WAIVED = 3
    FINE = 4


def rank(result: Result, profile: Profile) -> Rank:
    """Say whether a result gates, merely fails or warns, is excused, or is nothing to act on."""
    if result.status not in _BAD:
        return Rank.FINE
    if result.waived:
        return Rank.WAIVED
    if result.status is Status.WARN:
        return Rank.WARNING
    return Rank.GATING if gating(result, profile.gates) else Rank.FAILING


class Variant(NamedTuple):
    """What was seen on those of a finding's hosts that look the same."""

    expected: str
    observed: str
    message: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check with one outcome; `variants` and `remediations` have the commonest first."""

    rank: Rank
    check: str
    title: str
    status: Status
    severity: Severity
    hosts: tuple[str, ...]
    variants: tuple[Variant, ...]
    remediations: tuple[tuple[str, tuple[str, ...]], ...]
    references: tuple[str, ...]


class Obstructed(NamedTuple):
    """Nodes that could not be looked at, or not into, for one reason.

    For that reason `checks` could not be judged, and one of them gates if `gates`.
    """

    state: HostState
    problem: str
    fix: str
    hosts: tuple[str, ...]
    checks: tuple[str, ...]
    gates: bool


class WaiverUse(NamedTuple):
    """One waiver and the failures of one check that it covers (or covered, when expired)."""

    check: str
    title: str
    waiver: Waiver
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A report by finding, worst first; `waivers` has the expired ones first."""

    findings: tuple[Finding, ...]
    obstructed: tuple[Obstructed, ...]
    waivers: tuple[WaiverUse, ...]
    passed: dict[str, int]
    skipped: dict[str, int]

    @property
    def gating(self) -> int:
        """How many findings gate; one reason why nodes could not be read is one finding."""
        found = sum(finding.rank is Rank.GATING for finding in self.findings)
        return found + sum(
            each.gates for each in self.obstructed if each.state is HostState.CHECKED
        )


def consequence(result: Result, host: HostReport) -> bool:
    """Whether a result is an error for no other reason than the node's own `problem`."""
    return (
        bool(host.problem)
        and result.status is Status.ERROR
        and result.remediation == host.fix
        and not result.waiver
    )


def group(report: Report) -> Findings:
    """Group results; those that are errors because a node could not be read are `obstructed`."""
    groups: dict[tuple[Rank, str, Status, Severity], list[Result]] = defaultdict(list)
    waivers: dict[tuple[str, Waiver], list[Result]] = defaultdict(list)
    tallies: dict[Status, Counter[str]] = {Status.PASS: Counter(), Status.SKIP: Counter()}
    for host in report.hosts:
        if host.state is not HostState.CHECKED:
            continue
        for result in host.results:
            if consequence(result, host):
                continue
            place = rank(result, report.profile)
            if place is Rank.FINE:
                tallies[result.status][result.check] += 1
                continue
            groups[place, result.check, result.status, result.severity].append(result)
            if result.waiver:
                waivers[result.check, result.waiver].append(result)
    uses = [
        WaiverUse(check, results[0].title, waiver, _hosts(results))
        for (check, waiver), results in waivers.items()
    ]
    uses.sort(key=lambda use: (not use.waiver.expired, use.waiver.expires, use.check))
    return Findings(
        findings=tuple(sorted((_finding(*item) for item in groups.items()), key=_badness)),
        obstructed=_obstructed(report),
        waivers=tuple(uses),
        passed=dict(tallies[Status.PASS]),
        skipped=dict(tallies[Status.SKIP]),
    )


def _finding(key: tuple[Rank, str, Status, Severity], results: list[Result]) -> Finding:
    place, check, status, severity = key
    variants: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    remediations: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        variants[result.expected, result.observed, result.message].append(result)
        if result.remediation:
            remediations[result.remediation].append(result)
    return Finding(
        rank=place,
        check=check,
        title=results[0].title,
        status=status,
        severity=severity,
        hosts=_hosts(results),
        variants=tuple(Variant(*told, _hosts(alike)) for told, alike in _commonest(variants)),
        remediations=tuple((fix, _hosts(alike)) for fix, alike in _commonest(remediations)),
        references=tuple(dict.fromkeys(link for result in results for link in result.references)),
    )


def _obstructed(report: Report) -> tuple[Obstructed, ...]:
    groups: dict[tuple[HostState, str, str], list[HostReport]] = defaultdict(list)
    for host in report.hosts:
        checked = host.state is HostState.CHECKED
        if not checked or any(consequence(result, host) for result in host.results):
            problem, fix = _without(host.host, host.problem), _without(host.host, host.fix)
            groups[host.state, problem, fix].append(host)
    return tuple(_obstacle(*item, report.profile) for item in _commonest(groups))


def _obstacle(
    key: tuple[HostState, str, str], hosts: list[HostReport], profile: Profile
) -> Obstructed:
    state, problem, fix = key
    if len(hosts) == 1:
        problem, fix = hosts[0].problem, hosts[0].fix
    results = [each for host in hosts for each in host.results if consequence(each, host)]
    return Obstructed(
        state=state,
        problem=problem,
        fix=fix,
        hosts=tuple(in_order(host.host for host in hosts)),
        checks=tuple(dict.fromkeys(result.check for result in results)),
        gates=any(gating(result, profile.gates) for result in results),
    )


def _without(host: str, text: str) -> str:
    """Make what is said of several hosts the same text: the host's name becomes ``NODE``."""
    return _NAME.sub(lambda match: "NODE" if match[0] == host else match[0], text)


def _commonest(groups: dict[_Key, list[_Value]]) -> list[tuple[_Key, list[_Value]]]:
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def _hosts(results: Iterable[Result]) -> tuple[str, ...]:
    return tuple(in_order(result.host for result in results))


def _badness(finding: Finding) -> tuple[Rank, int, int, int, str]:
    return (
        finding.rank,
        _SEVERITIES.index(finding.severity),
        _BAD.index(finding.status),
        -len(finding.hosts),
        finding.check,
    )
