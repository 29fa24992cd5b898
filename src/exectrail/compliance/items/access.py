"""Typed access to a node's evidence: a value, or an exception that says why there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from exectrail import versions

T = TypeVar("T")


class Unreadable(Exception):  # noqa: N818  a state of the evidence, not a fault of the program
    """The item that would decide was not collected, could not be read, or is malformed.

    `fix` is what to do about it, where that is known.
    """

    def __init__(self, item: str, why: str, fix: str = "") -> None:
        super().__init__(f"{item}: {why}")
        self.fix = fix


class Item(Generic[T]):
    """The name of an item and the type its value must have."""

    def __init__(self, name: str, shape: Any) -> None:
        self.name = name
        self.shape = shape


class Items:
    """The items of one node. `missing` says why an item that is not there is not there.

    `groups` are those of the inventory that the node is in.
    """

    def __init__(
        self,
        items: Mapping[str, Any],
        variables: Mapping[str, Any],
        missing: str = "not collected",
        groups: Collection[str] = (),
    ) -> None:
        self.variables = variables
        self.groups = groups
        self._items = items
        self._missing = missing
        self._read: dict[str, Any] = {}

    def __getitem__(self, item: Item[T]) -> T:
        """Give the value; raise Unreadable if there is none of the right type."""
        if item.name not in self._read:
            try:
                self._read[item.name] = self._convert(item)
            except Unreadable as problem:
                self._read[item.name] = problem
        found = self._read[item.name]
        if isinstance(found, Unreadable):
            raise found
        return cast(T, found)

    def _convert(self, item: Item[T]) -> Any:
        if item.name not in self._items:
            raise Unreadable(item.name, self._missing)
        value = self._items[item.name]
        if isinstance(value, dict) and value.keys() == {"unreadable"}:
            raise Unreadable(item.name, str(value["unreadable"]))
        try:
            return msgspec.convert(value, item.shape)
        except ValueError as error:  # msgspec's own, or half a character in a text
            raise Unreadable(item.name, f"not of the expected form ({error})") from error


def gather(*sources: Callable[[], Iterable[str]]) -> tuple[list[str], Unreadable | None]:
    """Collect what every source found, and the first reason why one could not be read.

    For checks in which one finding decides, whatever the other sources would have said.
    """
    found: list[str] = []
    unreadable: Unreadable | None = None
    for source in sources:
        try:
            found += source()
        except Unreadable as problem:
            unreadable = unreadable or problem
    return found, unreadable


def observed(text: str, item: str) -> versions.Version:
    """Read a version that `item` holds; raise Unreadable if it is none."""
    version = versions.parse(text)
    if version is None:
        raise Unreadable(item, f"{text!r} is no version")
    return version
