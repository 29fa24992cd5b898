"""What the agent needs of a node beside the kernel."""

from __future__ import annotations

from typing import Annotated

import msgspec

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing, plain_check
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.items.node import CLOCK, LOG_DISK, PYTHONS, SYSTEMD_VERSION
from exectrail.versions import VersionText, parse, required

Amount = Annotated[int, msgspec.Meta(ge=0)]


class Python(Parameters, frozen=True):
    """`minimum` is the oldest version."""

    minimum: VersionText = "3.8"

    expects = "a Python {minimum} or later"


@check("node.python", Python)
def python(items: Items, parameters: Python) -> Outcome:
    """Pass if any interpreter on the node is new enough."""
    interpreters = items[PYTHONS]
    seen = listing([f"{found.version} ({found.path})" for found in interpreters]) or "none"
    versions = [parse(found.version) for found in interpreters]
    if any(version and version >= required(parameters.minimum) for version in versions):
        return Outcome.passed(seen, f"There is a Python {parameters.minimum} or later.")
    if None in versions:
        raise Unreadable(PYTHONS.name, f"the version of an interpreter is none: {seen}")
    return Outcome.failed(seen, f"There is no Python {parameters.minimum} or later.")


class Systemd(Parameters, frozen=True):
    """`minimum` is the oldest version."""

    minimum: Amount = 239

    expects = "systemd {minimum} or later"


@check("node.systemd", Systemd)
def systemd(items: Items, parameters: Systemd) -> Outcome:
    """Compare the version; a node without systemd fails."""
    version = items[SYSTEMD_VERSION]
    if version is None:
        return Outcome.failed("none", "The node does not run systemd.")
    if version < parameters.minimum:
        return Outcome.failed(
            str(version), f"systemd {version} is older than {parameters.minimum}."
        )
    return Outcome.passed(str(version), f"systemd {version} is new enough.")


@plain_check("node.clock", "a synchronised clock")
def clock(items: Items) -> Outcome:
    """Ask the kernel whether its clock is synchronised, whoever does it."""
    state = items[CLOCK]
    by = f"by {state.by}" if state.by else "by nothing that is known"
    if state.synchronised:
        return Outcome.passed(f"synchronised, {by}", "The clock is synchronised.")
    return Outcome.failed(f"not synchronised, {by}", "The clock is not synchronised.")


class LogSpace(Parameters, frozen=True):
    """`min_free_bytes` and `min_free_inodes` must be left for the log folder."""

    min_free_bytes: Amount
    min_free_inodes: Amount

    def expected(self) -> str:
        """Name the amounts."""
        return (
            f"{_mebibytes(self.min_free_bytes)} and {self.min_free_inodes} inodes free for the logs"
        )


@check("node.log-space", LogSpace)
def log_space(items: Items, parameters: LogSpace) -> Outcome:
    """Compare what root can still write; a file system that does not count inodes has enough."""
    disk = items[LOG_DISK]
    counted = bool(disk.inodes_total)
    inodes = f"{disk.inodes_free} inodes" if counted else "inodes not counted"
    seen = f"{_mebibytes(disk.bytes_free)}, {inodes} free in {disk.path}"
    scarce = [
        what
        for what, missing in (
            ("bytes", disk.bytes_free < parameters.min_free_bytes),
            ("inodes", counted and disk.inodes_free < parameters.min_free_inodes),
        )
        if missing
    ]
    if scarce:
        return Outcome.failed(
            seen, f"{disk.path} has too few {' and '.join(scarce)} left for the logs."
        )
    return Outcome.passed(seen, f"{disk.path} has room for the logs.")


def _mebibytes(count: int) -> str:
    return f"{count // (1024 * 1024)} MiB"
