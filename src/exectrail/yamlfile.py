"""YAML files that people write: read strictly, every complaint with the file and the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml

from exectrail.errors import UsageError

T = TypeVar("T")
Key = str | int
Location = tuple[Key, ...]
"""Where a value stands in a document: keys of mappings and positions in lists, outermost first."""

_MAX_VALUES = 20_000
_MAX_DEPTH = 24
_MOST_NAMES = 24
_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_STEP = re.compile(r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]")


class Document:
    """A file's data (`data`), its bytes (`raw`) and the line of every value in it."""

    def __init__(self, path: Path, raw: bytes, data: Any, lines: dict[Location, int]) -> None:
        self.path = path
        self.raw = raw
        self.data = data
        self._lines = lines

    def fail(self, location: Location, problem: str) -> NoReturn:
        """Raise a UsageError that names the file and the line nearest to `location`."""
        while location not in self._lines:
            location = location[:-1]
        raise UsageError(f"{self.path}:{self._lines[location]}: {problem}")

    def convert(self, value: Any, shape: type[T], location: Location = ()) -> T:
        """Read `value`, which stands at `location`, as `shape`; raise UsageError if it is not."""
        try:
            return msgspec.convert(value, shape)
        except msgspec.ValidationError as error:
            problem, _, where = str(error).partition(" - at ")
            at = location + _steps(where)
            unknown = re.match(r"Object contains unknown field `(.*)`$", problem, re.DOTALL)
            if unknown:
                known = _fields(shape, at[len(location) :])
                at = (*at, unknown[1])
                problem = f"unknown key {unknown[1]!r}{suggest(unknown[1], known)}"
            elif problem == "Expected `str`, got `float`":
                problem += ": put the value in quotes"
            self.fail(at, problem)


def suggest(name: str, known: Iterable[str]) -> str:
    """End a complaint about an unknown name: what was probably meant, or what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    more = ", …" if len(names) > _MOST_NAMES else ""
    return f"; there are: {', '.join(names[:_MOST_NAMES])}{more}" if names else ""


def load(path: Path) -> Document:
    """Read one YAML document; raise UsageError for anything that is not exactly that."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        root = yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: this is not UTF-8 text") from error
    except yaml.reader.ReaderError as error:
        line = raw.decode("utf-8-sig")[: error.position].count("\n") + 1
        raise UsageError(f"{path}:{line}: a control character; remove it") from error
    except yaml.MarkedYAMLError as error:
        raise UsageError(f"{path}:{_line(error)}: {_explain(error)}") from error
    except RecursionError as error:
        raise UsageError(f"{path}:1: values are nested too deeply") from error
    if root is None:
        raise UsageError(f"{path}:1: the file is empty")
    reader = _Reader(path)
    return Document(path, raw, reader.value(root, ()), reader.lines)


class _Reader:
    """Turns nodes into plain data; aliases count each time, so that they can't multiply."""

    def __init__(self, path: Path) -> None:
        self.lines: dict[Location, int] = {}
        self._path = path
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.lines[location] = node.start_mark.line + 1
        if len(location) > _MAX_DEPTH or len(self.lines) > _MAX_VALUES:
            self._fail(node, "values are nested too deeply, or an alias repeats too many of them")
        if isinstance(node, yaml.CollectionNode) and node.tag not in _TAGS:
            self._fail(node, f"the tag {node.tag} has no meaning here")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.value(item, (*location, position)) for position, item in enumerate(node.value)
            ]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._fail(key_node, "a key must be text; put it in quotes")
            if key in found:
                first = self.lines[(*location, key)]
                self._fail(key_node, f"the key {key!r} is here twice (first in line {first})")
            found[key] = self.value(value_node, (*location, key))
            self.lines[(*location, key)] = key_node.start_mark.line + 1
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._scalars.construct_object(node)
            if isinstance(value, str):
                value.encode()  # "\\ud800" is half a character: no report could hold it
        except yaml.MarkedYAMLError as error:
            self._fail(node, _explain(error))
        except (ValueError, LookupError, AttributeError):
            self._fail(node, f"{node.value!r} can't be read as the number or date it looks like")
        return value

    def _fail(self, node: yaml.Node, problem: str) -> NoReturn:
        raise UsageError(f"{self._path}:{node.start_mark.line + 1}: {problem}")


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "this is not YAML"
    if r"'\t'" in problem:
        return "a tab; YAML is indented with spaces"
    return problem


def _steps(where: str) -> Location:
    """Turn msgspec's ``$.requirements[3].id`` into a location."""
    return tuple(
        found["name"] if found["name"] is not None else int(found["index"])
        for found in _STEP.finditer(where.strip("`"))
    )


def _fields(shape: Any, steps: Location) -> list[str]:
    """Name the keys of the structure at `steps` inside `shape`."""
    described: Any = msgspec.inspect.type_info(shape)
    for step in steps:
        if isinstance(step, int):
            described = described.item_type
        else:
            described = {field.encode_name: field.type for field in described.fields}[step]
    return [field.encode_name for field in described.fields]
