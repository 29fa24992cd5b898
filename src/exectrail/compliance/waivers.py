"""Waivers: failures that somebody answers for, until a date."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import msgspec

from exectrail import yamlfile
from exectrail.compliance.model import Waiver
from exectrail.yamlfile import Document, Location, suggest

_GROUP = "group:"

Text = Annotated[str, msgspec.Meta(pattern=r"\S")]


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A waiver as written."""

    check: str
    """The id of a requirement."""
    hosts: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    """Names, globs and ``group:NAME``."""
    reason: Text
    owner: Text
    expires: dt.date
    """The last day on which it holds."""


class WaiverBook:
    """The waivers of a run, looked up by requirement and host."""

    def __init__(self, rows: Mapping[str, Collection[tuple[frozenset[str], Row]]]) -> None:
        self._rows = rows

    def find(self, check: str, host: str, today: dt.date) -> Waiver | None:
        """Give the waiver that covers a failure: of several, the one that holds longest."""
        rows = [row for hosts, row in self._rows.get(check, ()) if host in hosts]
        if not rows:
            return None
        row = max(rows, key=lambda row: row.expires)
        return Waiver(
            reason=row.reason,
            owner=row.owner,
            expires=row.expires,
            expired=row.expires < today,
        )


NO_WAIVERS = WaiverBook({})


def load_waivers(
    path: Path,
    check_ids: Collection[str],
    hosts: Mapping[str, Collection[str]],
    not_waivable: Collection[str] = (),
) -> WaiverBook:
    """Read a file of waivers; raise UsageError naming the line that can't be meant.

    `check_ids` are the requirements of the profile, `hosts` maps every host of the inventory to
    its groups, `not_waivable` are the requirements that nothing excuses.
    """
    document = yamlfile.load(path)
    rows: dict[str, list[tuple[frozenset[str], Row]]] = {}
    for position, row in enumerate(document.convert(document.data, tuple[Row, ...])):
        at = (position, "check")
        if row.check not in check_ids:
            document.fail(at, f"unknown check {row.check!r}{suggest(row.check, check_ids)}")
        if row.check in not_waivable:
            document.fail(at, f"the profile does not let {row.check!r} be waived")
        covered = frozenset(
            host
            for number, pattern in enumerate(row.hosts)
            for host in _matching(document, (position, "hosts", number), pattern, hosts)
        )
        rows.setdefault(row.check, []).append((covered, row))
    return WaiverBook(rows)


def _matching(
    document: Document, at: Location, pattern: str, hosts: Mapping[str, Collection[str]]
) -> list[str]:
    if pattern.startswith(_GROUP):
        group = pattern.removeprefix(_GROUP)
        found = [host for host, groups in hosts.items() if group in groups]
        if not found:
            groups = {name for names in hosts.values() for name in names}
            document.fail(at, f"no host is in a group {group!r}{suggest(group, groups)}")
        return found
    if pattern in hosts:
        return [pattern]
    found = [host for host in hosts if fnmatchcase(host, pattern)]
    if not found:
        document.fail(at, f"no host is called {pattern!r}{suggest(pattern, hosts)}")
    return found
