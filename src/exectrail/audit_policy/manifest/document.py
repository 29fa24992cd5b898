r"""A static pod's manifest as text and as data: where each value stands, or why it can't be edited.

Only what can be edited without guessing is accepted: one document, ``\n`` line ends, text keys,
none of them twice. Everything else is a ManifestError that names the line and the fix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

import yaml

from exectrail.errors import UsageError
from exectrail.printable import printable

_MAX_CHARACTERS = 1_000_000
_MAX_DEPTH = 40
_BREAKS = {"\r": "a carriage return", "\x85": "U+0085", "\u2028": "U+2028", "\u2029": "U+2029"}
_TEXT = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"}


class ManifestError(UsageError):
    """The manifest can't be edited as asked; nothing was changed. `line` counts from 1, or None."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem = problem
        self.line = line


class Other(NamedTuple):
    """A value that is neither text, boolean nor null: its tag (``*`` for an alias) and its text."""

    tag: str
    text: str


Data: TypeAlias = "str | bool | Other | list[Data] | dict[str, Data] | None"
Path: TypeAlias = tuple[str | int, ...]
"""Keys of mappings and positions in lists, outermost first."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its extent in the text.

    `start` and `end` are offsets in characters (comments and blank space behind are outside),
    `line` counts from 1 in the text as it was before all edits, `flow` says that the value is in,
    or is, a ``[...]`` or ``{...}``. The `children` of a mapping are its values; `keys` stand in
    the same order.
    """

    start: int
    end: int
    line: int
    data: Data
    flow: bool
    anchor: str | None = None
    keys: tuple[Node, ...] = ()
    children: tuple[Node, ...] = ()

    def within(self) -> Iterator[Node]:
        """Give this node and all below it."""
        yield self
        for child in self.children:
            yield from child.within()


class Document:
    """One YAML or JSON document, unchangeable; an edit is a new one."""

    def __init__(self, text: str, origin: list[int] | None = None) -> None:
        """Read `text`; raise ManifestError if it is anything but one plain document.

        `origin` holds, for each line, the number of the line that it was before all edits.
        """
        _check_characters(text)
        self.text = text
        self._origin = origin or list(range(1, text.count("\n") + 2))
        reader = _Reader(text, self._origin)
        self.root = reader.read()
        self._aliased = reader.aliased

    @property
    def data(self) -> Data:
        """The whole document; not to be changed."""
        return self.root.data

    def find(self, path: Path) -> Node | None:
        """Return the value at `path`, None if there is nothing."""
        node = self.root
        for step in path:
            if isinstance(node.data, dict):
                position = next((i for i, k in enumerate(node.keys) if k.data == step), None)
            elif isinstance(node.data, list) and isinstance(step, int):
                position = step if step < len(node.children) else None
            else:
                position = None
            if position is None:
                return None
            node = node.children[position]
        return node

    def node(self, path: Path) -> Node:
        """Return the value at `path`, which must be there."""
        found = self.find(path)
        if found is None:
            raise LookupError(path)
        return found

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the nearest thing around it."""
        while (found := self.find(path)) is None:
            path = path[:-1]
        return found.line

    def shared(self, node: Node) -> bool:
        """Say whether `node` is also used elsewhere, through an alias."""
        return node.anchor in self._aliased

    def replaced(self, start: int, end: int, text: str, expected: Data) -> Document:
        """Put `text` in the place of `start`..`end` and prove that just `expected` came of it."""
        line = self.text.count("\n", 0, start)
        gone, come = self.text.count("\n", start, end), text.count("\n")
        here = self._origin[line]
        origin = [*self._origin[: line + 1], *[here] * come, *self._origin[line + gone + 1 :]]
        try:
            edited = Document(self.text[:start] + text + self.text[end:], origin)
            proven = edited.data == expected
        except ManifestError:
            proven = False
        if not proven:
            raise ManifestError(
                "what stands here can't be edited without changing something else; "
                "write this part the way kubeadm does (an item a line)",
                here,
            )
        return edited


def _check_characters(text: str) -> None:
    if len(text) > _MAX_CHARACTERS:
        raise ManifestError(f"more than {_MAX_CHARACTERS} characters; this is no manifest")
    if text.startswith("\ufeff"):
        raise ManifestError("a byte order mark; save the file as UTF-8 without one", 1)
    for character, name in _BREAKS.items():
        at = text.find(character)
        if at >= 0:
            fix = "convert the line ends (dos2unix)" if character == "\r" else "remove it"
            raise ManifestError(f"{name}; {fix}", text.count("\n", 0, at) + 1)
    if text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else None
            raise ManifestError(
                "kubelet reads what begins with a brace as JSON, and this is none; correct it", line
            ) from error
    if not text.strip():
        raise ManifestError("the file is empty; take it from a backup or render it with kubeadm", 1)


class _Reader:
    """Builds nodes from the parser's events, because only these say where aliases stand."""

    def __init__(self, text: str, origin: list[int]) -> None:
        self.aliased: set[str] = set()
        self._text = text
        self._origin = origin
        self._loader: Any = None  # PyYAML's events are untyped

    def read(self) -> Node:
        try:
            self._loader = yaml.SafeLoader(self._text)
            self._loader.get_event()  # the stream's start
            if isinstance(self._loader.peek_event(), yaml.StreamEndEvent):
                raise ManifestError("nothing but comments; render the manifest with kubeadm", 1)
            self._loader.get_event()  # the document's start
            root = self._node(self._loader.get_event(), depth=0, flow=False)
            self._loader.get_event()  # the document's end
            event = self._loader.get_event()
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise ManifestError("a control character; remove it", line) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = printable(error.problem or error.context or "", limit=200)
            if r"'\t'" in problem:
                problem = "a tab; indent with spaces"
            raise ManifestError(f"not YAML: {problem}", mark.line + 1 if mark else None) from error
        except (ValueError, OverflowError) as error:  # an escape beyond Unicode, "\\U00110000"
            raise ManifestError("not YAML: an escape that stands for no character") from error
        if not isinstance(event, yaml.StreamEndEvent):
            self._fail(event, "a second document; kubelet reads the first alone, so keep just that")
        return root

    def _node(self, event: Any, *, depth: int, flow: bool) -> Node:
        start, end = event.start_mark.index, event.end_mark.index
        line = self._origin[event.start_mark.line]
        anchor = event.anchor
        if depth > _MAX_DEPTH:
            self._fail(event, "values are nested too deeply; this is no Pod")
        if isinstance(event, yaml.AliasEvent):
            self.aliased.add(anchor)
            return Node(start, end, line, Other("*", anchor), flow)
        if isinstance(event, yaml.ScalarEvent):
            if event.style in {"|", ">"}:
                end = start + len(self._text[start:end].rstrip())
            return Node(start, end, line, self._scalar(event), flow, anchor)
        flow = bool(event.flow_style)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, depth, flow=flow)
        return self._mapping(event, depth, flow=flow)

    def _sequence(self, event: Any, depth: int, *, flow: bool) -> Node:
        children: list[Node] = []
        while not isinstance(last := self._loader.get_event(), yaml.SequenceEndEvent):
            children.append(self._node(last, depth=depth + 1, flow=flow))
        data = [child.data for child in children]
        return self._collection(event, last, data, (), children)

    def _mapping(self, event: Any, depth: int, *, flow: bool) -> Node:
        keys: list[Node] = []
        children: list[Node] = []
        data: dict[str, Data] = {}
        while not isinstance(last := self._loader.get_event(), yaml.MappingEndEvent):
            key = self._node(last, depth=depth + 1, flow=flow)
            if not isinstance(key.data, str):
                self._fail(last, "a key that is not text; put it in quotes")
            if key.data in data:
                self._fail(last, f"the key {printable(key.data)!r} is here twice; remove one")
            keys.append(key)
            children.append(self._node(self._loader.get_event(), depth=depth + 1, flow=flow))
            data[key.data] = children[-1].data
        return self._collection(event, last, data, tuple(keys), children)

    def _collection(
        self,
        event: Any,
        last: Any,
        data: list[Data] | dict[str, Data],
        keys: tuple[Node, ...],
        children: list[Node],
    ) -> Node:
        flow = bool(event.flow_style)
        end = last.end_mark.index if flow else children[-1].end
        tagged = Other(event.tag, "") if event.tag not in {None, "!"} else None
        start = event.start_mark
        line = self._origin[start.line]
        return Node(
            start.index,
            end,
            line,
            tagged or data,
            flow,
            event.anchor,
            keys,
            tuple(children),
        )

    def _scalar(self, event: Any) -> Data:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag in _TEXT:
            return str(event.value)
        if tag == "tag:yaml.org,2002:null":
            return None
        if tag == "tag:yaml.org,2002:bool":
            known = yaml.constructor.SafeConstructor.bool_values
            return known.get(event.value.lower(), Other(tag, event.value))
        return Other(tag, event.value)

    @staticmethod
    def _fail(event: Any, problem: str) -> NoReturn:
        raise ManifestError(problem, event.start_mark.line + 1)
