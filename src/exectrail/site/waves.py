"""In which order nodes are changed, and when the rest are left alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from exectrail.errors import UsageError

_PERCENT = re.compile(r"([0-9]{1,3})\s*%")
_ALL = 100


def plan(hosts: Sequence[str], sizes: Sequence[int | str]) -> list[list[str]]:
    """Cut `hosts` into waves of these sizes, each a number or a share of all (``"10%"``).

    A wave has at least one host; the last size goes on until no host is left. UsageError for a
    size that is none.
    """
    steps = [_size(each, len(hosts)) for each in sizes]
    if not steps:
        raise UsageError('install_waves is empty; the default is [1, "10%", "25%"].')
    waves: list[list[str]] = []
    begun = 0
    while begun < len(hosts):
        ended = begun + steps[min(len(waves), len(steps) - 1)]
        waves.append(list(hosts[begun:ended]))
        begun = ended
    return waves


def _size(given: int | str, total: int) -> int:
    text = str(given).strip()
    share = _PERCENT.fullmatch(text)
    if share and 0 < int(share[1]) <= _ALL:
        return max(1, total * int(share[1]) // _ALL)
    if text.isdigit() and int(text):
        return int(text)
    raise UsageError(
        f"install_waves: {given!r} is no size of a wave; give a number of nodes from 1 on or a "
        'share of them such as "10%".'
    )


def may_go_on(
    *, first: Collection[str], failed: Collection[str], total: int, percentage: int
) -> bool:
    """Say whether the next wave may begin after some of `total` hosts have `failed`.

    A failure in the `first` wave ends it, whatever the share: that wave is there to try. Only who
    allows for all to fail goes on then.
    """
    if percentage >= _ALL or not failed:
        return True
    return set(failed).isdisjoint(first) and len(failed) * _ALL <= percentage * total
