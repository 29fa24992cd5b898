"""Host names folded for people: ``node01 … node14`` becomes ``node[01-14]``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

_NUMBER = re.compile(r"([0-9]{1,18})")

_Parts = tuple[str, ...]
"""A name split at its numbers: text, number, text, number, … text."""


class _Folded(NamedTuple):
    first: str
    before: str
    ranges: list[list[str]]
    after: str


def in_order(hosts: Iterable[str]) -> list[str]:
    """Sort host names the way people count: node2 before node10."""
    return sorted(hosts, key=_rank)


def fold(hosts: Iterable[str], *, limit: int = 0) -> str:
    """Fold names that differ in one number, each range in brackets, separated by ``", "``.

    Leading zeros are kept: ``[08-11]`` is 08, 09, 10, 11. With a `limit`, only so many ranges
    are shown and the rest is counted: ``node[1,3,5] and 12 more``.
    """
    families: dict[_Parts, list[_Parts]] = defaultdict(list)
    for host in set(hosts):
        parts = _split(host)
        families[parts[::2]].append(parts)
    folded = [item for family in families.values() for item in _fold_family(family)]
    folded.sort(key=lambda item: _rank(item.first))
    return _join(folded, limit)


def _fold_family(family: list[_Parts]) -> list[_Folded]:
    """Fold at the number that leaves the fewest pieces, the rightmost of equals."""
    if len(family) == 1:
        name = "".join(family[0])
        return [_Folded(name, name, [], "")]
    positions = range(len(family[0]) - 2, 0, -2)
    at = min(positions, key=lambda at: len({(*p[:at], "", *p[at + 1 :]) for p in family}))
    rows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for parts in family:
        rows["".join(parts[:at]), "".join(parts[at + 1 :])].append(parts[at])
    folded = []
    for (before, after), numbers in rows.items():
        numbers.sort(key=lambda number: (int(number), len(number)))
        first = before + numbers[0] + after
        if len(numbers) == 1:
            folded.append(_Folded(first, first, [], ""))
        else:
            folded.append(_Folded(first, before, _ranges(numbers), after))
    return folded


def _ranges(numbers: list[str]) -> list[list[str]]:
    ranges: list[list[str]] = []
    for number in numbers:
        if ranges and number == str(int(ranges[-1][-1]) + 1).zfill(len(ranges[-1][-1])):
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ranges


def _join(folded: list[_Folded], limit: int) -> str:
    room = limit or sum(max(len(item.ranges), 1) for item in folded)
    shown, hidden = [], 0
    for _, before, ranges, after in folded:
        kept = ranges[: max(room, 0)]
        hidden += sum(len(each) for each in ranges[len(kept) :])
        if kept:
            spans = [each[0] if len(each) == 1 else f"{each[0]}-{each[-1]}" for each in kept]
            shown.append(f"{before}[{','.join(spans)}]{after}")
        elif not ranges and room > 0:
            shown.append(before)
        elif not ranges:
            hidden += 1
        room -= max(len(ranges), 1)
    return ", ".join(shown) + (f" and {hidden} more" if hidden else "")


@lru_cache(maxsize=20_000)
def _split(host: str) -> _Parts:
    return tuple(_NUMBER.split(host))


@lru_cache(maxsize=20_000)
def _rank(host: str) -> tuple[tuple[str, int], ...]:
    parts = _split(host)
    # The name itself at the end tells node1 and node01 apart.
    return (*zip(parts[::2], (*map(int, parts[1::2]), -1), strict=True), (host, 0))
