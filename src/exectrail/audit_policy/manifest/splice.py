"""Edits of a manifest's text that leave every other character alone.

Each function gives a new Document, re-read and compared with the same edit done on the data: what
can't be done exactly raises ManifestError. `cut` takes out exactly what `append` and `put` put in.
"""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from exectrail.audit_policy.manifest.document import Data, Document, ManifestError, Node, Path

_PLAIN = re.compile(r"(--|/)?[A-Za-z][A-Za-z0-9_./=-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_DASH = re.compile(r" *- +")


def append(doc: Document, path: Path, items: list[Data]) -> Document:
    """Add `items` at the end of the list at `path`."""
    node = doc.node(path)
    _check_unshared(doc, path)
    expected, target = _copy(doc, path)
    target.extend(items)
    if node.flow:
        return _append_flow(doc, node, [json.dumps(item) for item in items], expected)
    lines = _items(items, _dash_column(doc, node))
    at = _line_end(doc.text, node.end)
    return doc.replaced(at, at, "".join(f"\n{line}" for line in lines), expected)


def put(doc: Document, path: Path, value: Data, *, list_indent: int = 0) -> Document:
    """Add the key that `path` ends with, and its `value`, to the mapping before it.

    In a block it stands behind the nearest key that sorts before it, as kubeadm sorts its keys. A
    list below it is indented by `list_indent` characters.
    """
    key = str(path[-1])
    node = doc.node(path[:-1])
    _check_unshared(doc, path[:-1])
    expected, target = _copy(doc, path[:-1])
    target[key] = value
    if node.flow:
        return _append_flow(doc, node, [f"{json.dumps(key)}: {json.dumps(value)}"], expected)
    before = [i for i, other in enumerate(node.keys) if str(other.data) < key]
    previous = node.children[before[-1] if before else -1]
    column = node.keys[0].start - _line_start(doc.text, node.keys[0].start)
    lines = _entries({key: value}, column, list_indent)
    at = _line_end(doc.text, previous.end)
    return doc.replaced(at, at, "".join(f"\n{line}" for line in lines), expected)


def cut(doc: Document, path: Path) -> Document:
    """Take out one item of a list or one key of a mapping, with the comment on its lines.

    It must not be the only one of a block: YAML can't write an empty block.
    """
    start, end = extent(doc, path)
    expected, target = _copy(doc, path[:-1])
    del target[path[-1]]
    return doc.replaced(start, end, "", expected)


def extent(doc: Document, path: Path) -> tuple[int, int]:
    """Return the part of the text that `cut` takes out."""
    _check_unshared(doc, path)
    node, parent = doc.node(path), doc.node(path[:-1])
    if any(doc.shared(inner) for inner in node.within()):
        raise ManifestError("an anchor that is used elsewhere; write its value out", node.line)
    position = _position(parent, path[-1])
    starts = parent.keys or parent.children
    start = starts[position].start
    if parent.flow:
        if position:
            return parent.children[position - 1].end, node.end
        return start, starts[1].start if len(starts) > 1 else node.end
    line_start = _line_start(doc.text, start)
    lead = doc.text[line_start:start]
    if not line_start or not (lead.isspace() or not lead if parent.keys else _DASH.fullmatch(lead)):
        raise ManifestError("several values on one line; write an item a line", node.line)
    return line_start - 1, _line_end(doc.text, node.end)


def replace(doc: Document, path: Path, value: str) -> Document:
    """Give the text value at `path` another value; a comment behind it stays."""
    source = json.dumps(value) if doc.node(path).flow else _scalar(value)
    return restore(doc, path, source, value)


def restore(doc: Document, path: Path, source: str, value: Data) -> Document:
    """Write the value at `path` as `source`, which must mean `value`."""
    node = doc.node(path)
    _check_unshared(doc, path)
    expected, target = _copy(doc, path[:-1])
    target[path[-1]] = value
    return doc.replaced(node.start, node.end, source, expected)


def paste(doc: Document, path: Path, value: str, at: int, text: str) -> Document:
    """Put `text`, the item `value`, in as `path`: `at` characters behind the colon of its list."""
    place, index = path[:-1], int(path[-1])
    if not doc.find(place):
        raise ManifestError("the list is gone", doc.line(place))
    expected, target = _copy(doc, place)
    if not isinstance(target, list):
        raise ManifestError("not a list any more", doc.line(place))
    target.insert(index, value)
    start = behind_key(doc, place)[0] + at
    return doc.replaced(start, start, text, expected)


def source(doc: Document, path: Path) -> str:
    """Return the value at `path` as it is written."""
    node = doc.node(path)
    return doc.text[node.start : node.end]


def behind_key(doc: Document, path: Path) -> tuple[int, int]:
    """Return the part of the text from the colon of the key at `path` to its value's end."""
    parent, node = doc.node(path[:-1]), doc.node(path)
    key = parent.keys[_position(parent, path[-1])]
    return doc.text.index(":", key.end) + 1, node.end


def rewrite(doc: Document, path: Path, text: str, value: Data) -> Document:
    """Put `text` behind the colon of the key at `path`, which must mean `value`."""
    _check_unshared(doc, path)
    expected, target = _copy(doc, path[:-1])
    target[path[-1]] = value
    return doc.replaced(*behind_key(doc, path), text, expected)


def list_indent(doc: Document, mapping: Path, key: str) -> int:
    """Return how far the list under `key` is indented against it; 0, kubeadm's way, if unclear."""
    node, parent = doc.node((*mapping, key)), doc.node(mapping)
    if node.flow or parent.flow or not node.children:
        return 0
    first = parent.keys[0].start
    return max(0, _dash_column(doc, node) - (first - _line_start(doc.text, first)))


def _position(parent: Node, step: str | int) -> int:
    return step if isinstance(step, int) else [key.data for key in parent.keys].index(step)


def _copy(doc: Document, path: Path) -> tuple[Data, Any]:
    """Copy the data; return it and the part at `path`, to be changed."""
    expected = copy.deepcopy(doc.data)
    target: Any = expected
    for step in path:
        target = target[step]
    return expected, target


def _check_unshared(doc: Document, path: Path) -> None:
    for length in range(len(path) + 1):
        node = doc.node(path[:length])
        if doc.shared(node):
            raise ManifestError("an anchor that is used elsewhere; write its value out", node.line)


def _append_flow(doc: Document, node: Node, items: list[str], expected: Data) -> Document:
    if not node.children:
        at = doc.text.index("{" if isinstance(node.data, dict) else "[", node.start) + 1
        return doc.replaced(at, at, ", ".join(items), expected)
    start = (node.keys or node.children)[-1].start
    lead = doc.text[_line_start(doc.text, start) : start]
    separator = f",\n{lead}" if lead.isspace() else ", "
    at = node.children[-1].end
    return doc.replaced(at, at, "".join(separator + item for item in items), expected)


def _dash_column(doc: Document, node: Node) -> int:
    first = node.children[0]
    lead = doc.text[_line_start(doc.text, first.start) : first.start]
    if not _DASH.fullmatch(lead):
        raise ManifestError("a list that does not begin on its own line; write it so", first.line)
    return lead.index("-")


def _line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _items(items: list[Data], column: int) -> list[str]:
    lines = []
    for item in items:
        if isinstance(item, dict):
            first, *others = _entries(item, column + 2, 0)
            lines += [f"{' ' * column}- {first.lstrip()}", *others]
        else:
            lines.append(f"{' ' * column}- {_scalar(item)}")
    return lines


def _entries(entries: dict[str, Data], column: int, indent: int) -> list[str]:
    lines = []
    for key, value in entries.items():
        lead = f"{' ' * column}{key}:"
        if isinstance(value, dict):
            lines += [lead, *_entries(value, column + 2, indent)]
        elif isinstance(value, list):
            lines += [lead, *_items(value, column + indent)]
        else:
            lines.append(f"{lead} {_scalar(value)}")
    return lines


def _scalar(value: Data) -> str:
    """Write a value so that every reader of YAML 1.1 or 1.2 takes text for text."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if '"' in value and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value)
