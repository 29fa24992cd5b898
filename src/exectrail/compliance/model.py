"""The vocabulary of a compliance run: statuses, results, waivers and the report document.

The classes here *are* the JSON of ``report.json``; ``docs/reference/report.schema.json`` is
generated from them. Times are RFC 3339 in UTC, durations are seconds.
"""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Any

import msgspec


class Status(StrEnum):
    """What one requirement found on one node."""

    PASS = "pass"  # noqa: S105  a status
    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"
    ERROR = "error"


class Severity(StrEnum):
    """How much a failing requirement matters; the profile says which ones gate."""

    BLOCKER = "blocker"
    MAJOR = "major"
    MINOR = "minor"
    INFO = "info"


class Verdict(StrEnum):
    """The outcome of a whole run; `Report.exit_code` is its number."""

    FIT = "fit"
    WARNINGS = "warnings"
    UNFIT = "unfit"
    UNKNOWN = "unknown"


class ExitCode:
    """Exit codes shared by every command (the highest that applies wins)."""

    FIT = 0
    WARNINGS = 1
    UNFIT = 2
    UNKNOWN = 3
    USAGE = 4


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """A waiver row as it applied to one result. An expired one no longer excuses the failure."""

    reason: str
    owner: str
    expires: dt.date
    expired: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement judged on one node."""

    check: str
    title: str
    host: str
    status: Status
    severity: Severity
    expected: str
    observed: str
    message: str
    remediation: str = ""
    references: tuple[str, ...] = ()
    waiver: Waiver | None = None

    @property
    def waived(self) -> bool:
        """Whether a waiver that is still valid covers this result."""
        return self.waiver is not None and not self.waiver.expired


class HostState(StrEnum):
    """Whether a node could be looked at."""

    CHECKED = "checked"
    UNREACHABLE = "unreachable"
    NOT_REACHED = "not-reached"


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node: how it could be reached, what it is, and one result per requirement.

    `facts` are a few strings for the reader (os, kernel, role, sensor …), never judged.
    `problem` and `fix` say why a node that is not `checked` could not be looked at.
    """

    host: str
    state: HostState
    results: tuple[Result, ...]
    facts: dict[str, str] = {}
    problem: str = ""
    fix: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Which requirements were applied, and the severities whose failure gates."""

    name: str
    title: str
    sha256: str
    gates: tuple[Severity, ...]


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Results by status (waived ones are in `waived` and in their status), and nodes by state."""

    hosts: int
    hosts_fit: int
    hosts_unreachable: int
    passed: int
    failed: int
    gating: int
    warned: int
    skipped: int
    errors: int
    waived: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run over a fleet: what ``report.json`` holds."""

    schema_version: int
    run_id: str
    tool_version: str
    started: dt.datetime
    finished: dt.datetime
    profile: Profile
    strict: bool
    verdict: Verdict
    exit_code: int
    counts: Counts
    hosts: tuple[HostReport, ...]
    interrupted: bool = False


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was collected on one node, as saved in ``evidence/<host>.json``.

    `items` is the module's flat map (docs/reference/evidence.md): each value is either the item
    itself or ``{"unreadable": "why"}``. A node that could not be reached has no items, and says
    why in `problem` and what to do in `fix`.
    """

    host: str
    state: HostState = HostState.CHECKED
    groups: tuple[str, ...] = ()
    variables: dict[str, Any] = {}
    items: dict[str, Any] = {}
    problem: str = ""
    fix: str = ""
