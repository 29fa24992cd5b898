"""Profiles: files that say what a fit node is, and how much each requirement matters."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from exectrail import yamlfile
from exectrail.compliance.checks import CHECKS, Check, Parameters
from exectrail.compliance.model import Profile, Severity
from exectrail.errors import UsageError
from exectrail.yamlfile import Document, Location, suggest

BUILT_IN = ("ack", "self_managed", "installed")

Text = Annotated[str, msgspec.Meta(min_length=1)]


class AppliesTo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The nodes that a requirement is for: those that meet every condition given."""

    os: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] | None = None
    """IDs of os-release."""
    resolver: Literal["systemd-resolved"] | None = None
    """The resolver that must be running."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A requirement as written. One whose id the included file has changes that one."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)+$")]
    check: str | UnsetType = UNSET
    """Which check judges it; the default is the one that is called like the requirement."""
    title: Text | UnsetType = UNSET
    severity: Severity | UnsetType = UNSET
    applies_to: AppliesTo | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    """Merged key by key into those of the included requirement."""
    remediation: str | UnsetType = UNSET
    references: tuple[str, ...] | UnsetType = UNSET
    waivable: bool | UnsetType = UNSET


class ProfileFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A requirements file."""

    name: Text
    title: Text
    include: str | UnsetType = UNSET
    """`ack`, `self_managed`, `installed` or a path, relative to this file."""
    gates: tuple[Severity, ...] | UnsetType = UNSET
    """The severities whose failure makes a node unfit; required unless a file is included."""
    requirements: tuple[Row, ...] = ()


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement, complete. `expected` says what a fit node shows."""

    id: str
    check: Check
    title: str
    severity: Severity
    applies_to: AppliesTo
    parameters: Parameters
    expected: str
    remediation: str
    references: tuple[str, ...]
    waivable: bool
    raw_parameters: dict[str, Any]


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """A profile and its requirements, in the order of the file."""

    profile: Profile
    checks: tuple[Requirement, ...]


def load_profile(name_or_path: str) -> Requirements:
    """Load a built-in profile by name, or a file; raise UsageError naming the file and line."""
    path = _built_in(name_or_path) or Path(name_or_path)
    if not path.is_file() and "/" not in name_or_path and not path.suffix:
        raise UsageError(
            f"There is no profile {name_or_path!r}{suggest(name_or_path, BUILT_IN)}. "
            "A file of your own needs its path: ./NAME.yml."
        )
    return _load(path, ())


def _built_in(name: str) -> Path | None:
    if name not in BUILT_IN:
        return None
    return Path(str(resources.files("exectrail") / "policies" / "requirements" / f"{name}.yml"))


def _load(path: Path, including: tuple[Path, ...]) -> Requirements:
    document = yamlfile.load(path)
    file = document.convert(document.data, ProfileFile)
    digest = hashlib.sha256(document.raw)
    gates, found = file.gates, dict[str, Requirement]()
    if isinstance(file.include, str):
        included = _included(document, file.include, (*including, path.resolve()))
        digest.update(included.profile.sha256.encode())
        gates = included.profile.gates if gates is UNSET else gates
        found = {requirement.id: requirement for requirement in included.checks}
    if isinstance(gates, UnsetType):
        document.fail((), "the key 'gates' is missing: which severities make a node unfit?")
    written: set[str] = set()
    for position, row in enumerate(file.requirements):
        location = ("requirements", position)
        if row.id in written:
            document.fail((*location, "id"), f"the requirement {row.id!r} is here twice")
        written.add(row.id)
        found[row.id] = _requirement(document, location, row, found.get(row.id))
    if not found:
        document.fail((), "there are no requirements: nothing would be checked")
    profile = Profile(
        name=file.name, title=file.title, sha256=digest.hexdigest(), gates=tuple(gates)
    )
    return Requirements(profile=profile, checks=tuple(found.values()))


def _included(document: Document, include: str, including: tuple[Path, ...]) -> Requirements:
    path = _built_in(include) or document.path.parent / include
    if path.resolve() in including:
        document.fail(("include",), f"{include} includes this file again")
    if not path.is_file():
        document.fail(("include",), f"there is no file {path}{suggest(include, BUILT_IN)}")
    return _load(path, including)


def _requirement(
    document: Document, location: Location, row: Row, base: Requirement | None
) -> Requirement:
    check = _check(document, location, row, base)
    inherited = base.raw_parameters if base and base.check is check else {}
    raw = {**inherited, **(row.parameters or {})}
    parameters = document.convert(raw, check.parameters, (*location, "parameters"))
    if base:
        changed = {
            name: value
            for name in ("title", "severity", "applies_to", "remediation", "references", "waivable")
            if (value := getattr(row, name)) is not UNSET
        }
        return msgspec.structs.replace(
            base,
            check=check,
            parameters=parameters,
            raw_parameters=raw,
            expected=parameters.expected(),
            **changed,
        )
    if isinstance(row.title, UnsetType) or isinstance(row.severity, UnsetType):
        missing = "title" if row.title is UNSET else "severity"
        document.fail(location, f"the new requirement {row.id!r} needs the key {missing!r}")
    return Requirement(
        id=row.id,
        check=check,
        title=row.title,
        severity=row.severity,
        applies_to=row.applies_to or AppliesTo(),
        parameters=parameters,
        raw_parameters=raw,
        expected=parameters.expected(),
        remediation=row.remediation or "",
        references=row.references or (),
        waivable=row.waivable is not False,
    )


def _check(document: Document, location: Location, row: Row, base: Requirement | None) -> Check:
    if isinstance(row.check, str):
        if row.check not in CHECKS:
            document.fail(
                (*location, "check"), f"unknown check {row.check!r}{suggest(row.check, CHECKS)}"
            )
        return CHECKS[row.check]
    if base:
        return base.check
    if row.id not in CHECKS:
        document.fail(
            (*location, "id"),
            f"unknown requirement {row.id!r}{suggest(row.id, CHECKS)} "
            "(a new one needs the key 'check')",
        )
    return CHECKS[row.id]
