"""Watches the folders that runtimes make, one for each container."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from exectrail_agent.containers.inotify import Inotify

_MAX_ENTRIES = 4096
_NOTHING_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Match:
    """A folder that the pattern with this number matches; `parts` are what its stars stand for."""

    pattern: int
    parts: tuple[str, ...]


@dataclass(frozen=True)
class _Node:
    match: Match
    depth: int
    path: str


class FolderWatch:
    """Tells which folders that match the patterns came, went, or had one of `names` written.

    A pattern is a path below `root`, in which ``*`` stands for any name but a hidden one. Its
    folders need not exist yet. Symbolic links are followed before the first star only.
    """

    def __init__(self, root: Path, patterns: Sequence[str], names: Sequence[str]) -> None:
        self.problem = ""
        self._root = str(root)
        self._patterns = [tuple(pattern.strip("/").split("/")) for pattern in patterns]
        self._names = frozenset(names)
        self._nodes: dict[int, dict[Match, _Node]] = {}
        self._inotify = Inotify()

    def fileno(self) -> int:
        """Return what is readable when folders changed."""
        return self._inotify.fileno()

    def rescan(self) -> set[Match]:
        """Return all the folders there are, and watch them."""
        self.problem = ""
        return {
            found
            for number in range(len(self._patterns))
            for found in self._descend(_Node(Match(number, ()), 0, self._root))
        }

    def changed(self) -> set[Match] | None:
        """Return the folders that changed since last asked; None if that is not known any more."""
        changed: set[Match] = set()
        for change in self._inotify.read():
            if change.overflow:
                return None
            nodes = self._nodes.get(change.watch, {})
            if change.ended:
                del self._nodes[change.watch]
            for node in list(nodes.values()):
                pattern = self._patterns[node.match.pattern]
                if node.depth == len(pattern):
                    if change.ended or change.name in self._names:
                        changed.add(node.match)
                elif change.appeared and _matches(pattern[node.depth], change.name):
                    changed.update(self._descend(self._inner(node, change.name)))
                elif change.left and _matches(pattern[node.depth], change.name):
                    changed.update(self._below(self._inner(node, change.name)))
        return changed

    def close(self) -> None:
        """Stop watching."""
        self._inotify.close()

    def _inner(self, node: _Node, name: str) -> _Node:
        star = self._patterns[node.match.pattern][node.depth] == "*"
        parts = (*node.match.parts, name) if star else node.match.parts
        return _Node(Match(node.match.pattern, parts), node.depth + 1, f"{node.path}/{name}")

    def _descend(self, node: _Node) -> Iterator[Match]:
        pattern = self._patterns[node.match.pattern]
        try:
            # Watched before it is listed: what comes in between is seen twice, not never.
            watch = self._inotify.watch(node.path, follow="*" not in pattern[: node.depth])
            self._nodes.setdefault(watch, {})[node.match] = node
            if node.depth == len(pattern):
                yield node.match
                return
            names = self._list(node.path) if pattern[node.depth] == "*" else [pattern[node.depth]]
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                self.problem = f"{node.path} can't be watched: {os.strerror(error.errno or 0)}"
            return
        for name in names:
            yield from self._descend(self._inner(node, name))

    def _list(self, path: str) -> list[str]:
        names: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if len(names) == _MAX_ENTRIES:
                    self.problem = f"{path} has more than {_MAX_ENTRIES} folders: some are left out"
                    break
                if _matches("*", entry.name) and entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
        return names

    def _below(self, gone: _Node) -> Iterator[Match]:
        for nodes in self._nodes.values():
            for node in nodes.values():
                complete = node.depth == len(self._patterns[node.match.pattern])
                if complete and (node.path + "/").startswith(gone.path + "/"):
                    yield node.match


def _matches(component: str, name: str) -> bool:
    return component == name or (component == "*" and not name.startswith("."))
