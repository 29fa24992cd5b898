"""What a repair is made of: what it reads on a node, what it changes there, and what came of it.

The classes are the JSON that goes to the node's script and comes back from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class WriteFile(msgspec.Struct, frozen=True, tag_field="do", tag="write"):
    """A file with this text; one that is there keeps its owner and mode, a new one is 0644."""

    path: str
    text: str


class Link(msgspec.Struct, frozen=True, tag_field="do", tag="link"):
    """A symbolic link, in the place of whatever file or link is there."""

    path: str
    target: str


class Unit(msgspec.Struct, frozen=True, tag_field="do", tag="unit"):
    """A unit of systemd, on now and at every boot, or off."""

    name: str
    on: bool


class Package(msgspec.Struct, frozen=True, tag_field="do", tag="package"):
    """A package of the distribution, installed."""

    name: str
    manager: str


Action = WriteFile | Link | Unit | Package


class PathState(msgspec.Struct, frozen=True):
    """What a path is: missing, link, file or other."""

    kind: str
    text: str = ""
    target: str = ""


class UnitState(msgspec.Struct, frozen=True):
    """A unit in systemctl's words."""

    load: str
    enabled: str
    active: str

    @property
    def runs(self) -> bool:
        """Whether it runs now."""
        return self.active in ("active", "activating", "reloading")

    @property
    def starts(self) -> bool:
        """Whether it will start at the next boot."""
        return self.enabled in ("enabled", "enabled-runtime")


class PackageState(msgspec.Struct, frozen=True):
    """A package: the version that is installed, and whether the node's sources have one."""

    name: str
    manager: str
    installed: str | None
    offered: bool


class Resolver(msgspec.Struct, frozen=True):
    """Whether systemd-resolved answers at its stub, and which nameservers it has of its own."""

    answers: bool
    links: bool
    globally: bool


class Look(msgspec.Struct, frozen=True):
    """What a plan has to know beside the evidence. `packages` maps package managers to names."""

    paths: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    packages: dict[str, str] = {}
    resolver: bool = False


class Seen(msgspec.Struct, frozen=True):
    """The node's answer."""

    paths: dict[str, PathState] = {}
    units: dict[str, UnitState] = {}
    package: PackageState | None = None
    resolver: Resolver | None = None


class Plan(msgspec.Struct, frozen=True):
    """What to do; `await_clock` are the seconds that the clock then has to become synchronised."""

    actions: tuple[Action, ...]
    await_clock: int = 0


class Change(msgspec.Struct, frozen=True):
    """An action, and the node's own words for what is there before and after it."""

    action: Action
    before: dict[str, Any]
    after: dict[str, Any] | None = None


class Became(StrEnum):
    """What came of one named check on one node."""

    REPAIRED = "repaired"
    WOULD_REPAIR = "would be repaired"
    NOTHING = "nothing to do"
    WAIVED = "waived"
    UNDONE = "undone"
    WOULD_UNDO = "would be undone"
    BY_HAND = "not without you"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(msgspec.Struct, frozen=True):
    """One row of the summary. `diff` has header, text before and text after of each change."""

    check: str
    became: Became
    message: str
    diff: tuple[tuple[str, str, str], ...] = ()


class HandOver(Exception):  # noqa: N818  a decision, not a fault of the program
    """The repair needs judgement; the message says whose, and what they have to do."""
