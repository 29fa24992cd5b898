"""Which of two releases is the older one."""

from __future__ import annotations

import re

_FORM = re.compile(
    r"v?(?P<release>[0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(?P<pre>a|b|c|rc|alpha|beta|pre|preview)[-_.]?(?P<pre_number>[0-9]*))?"
    r"(?:[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>[0-9]*))?"
    r"(?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>[0-9]*))?"
    r"(?:\+.*)?",
    re.IGNORECASE,
)
_PRE = {"a": 1, "alpha": 1, "b": 2, "beta": 2, "c": 3, "rc": 3, "pre": 3, "preview": 3}
_FINAL = 4

_Key = tuple[tuple[int, ...], int, int, int, int, int]


def is_older(version: str, than: str) -> bool:
    """Say whether `version` comes before `than` as Python packages count: 1.0rc1 before 1.0.

    What is no version is neither older nor newer.
    """
    mine, theirs = _key(version), _key(than)
    return mine is not None and theirs is not None and mine < theirs


def _key(text: str) -> _Key | None:
    found = _FORM.fullmatch(text.strip())
    if not found:
        return None
    release = tuple(int(number) for number in found["release"].split("."))
    while release and not release[-1]:
        release = release[:-1]
    pre = _PRE[found["pre"].lower()] if found["pre"] else _FINAL
    if found["dev"] and not found["pre"] and not found["post"]:
        pre = 0  # 1.0.dev1 comes before 1.0a1
    return (
        release,
        pre,
        _number(found["pre_number"]),
        _number(found["post_number"]) + 1 if found["post"] else 0,
        0 if found["dev"] else 1,
        _number(found["dev_number"]),
    )


def _number(text: str | None) -> int:
    return int(text) if text else 0
