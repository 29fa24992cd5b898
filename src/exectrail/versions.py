"""Version numbers as people and programs write them."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

Version = tuple[int, int, int]

VersionText = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,2}$")]
"""A version in a requirements file: one to three numbers."""

_LEADING = re.compile(r"v?([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.([0-9]{1,6}))?(?![0-9])")


def parse(text: str) -> Version | None:
    """Read the numbers that `text` begins with, missing ones as 0; None if there are none.

    What follows them (``-30-cloud-amd64``, ``+k3s1``, ``-rc1``) does not count.
    """
    found = _LEADING.match(text)
    if not found:
        return None
    major, minor, patch = (int(number or 0) for number in found.groups())
    return major, minor, patch


def required(text: str) -> Version:
    """Read a `VersionText`."""
    version = parse(text)
    if version is None:
        raise ValueError(text)
    return version
