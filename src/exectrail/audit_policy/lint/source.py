"""How a policy file is written, where that matters beside what its data are.

Kubernetes reads plain words and numbers by other rules than PyYAML does (``y``, ``1e3``, ``0o17``,
``12:30``, dates), refuses YAML directives, and reads a file that begins with ``{`` as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml

from exectrail.yamlfile import Document, Location

_TAG = "tag:yaml.org,2002:"
_WORDS = {
    "bool": {"y", "yes", "true", "on", "n", "no", "false", "off"},
    "null": {"", "~", "null"},
}
_NUMBER = re.compile(
    r"[-+]?(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|\.(?i:inf|nan))"
)
_PLAIN_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,9})?")
_DIRECTIVE = re.compile(r"^%.*", re.MULTILINE)


class Source:
    """A document with the line of each value, and what different readers take differently."""

    def __init__(self, document: Document) -> None:
        self.path = document.path
        self._text = document.raw.decode("utf-8-sig")
        self._lines: dict[Location, int] = {}
        self._odd: list[tuple[int, str]] = []
        root = yaml.compose(self._text, Loader=yaml.SafeLoader)
        if root is not None:
            self._walk(root, (), root.start_mark.line + 1)

    def line(self, where: Location) -> int:
        """Give the line of what stands at `where`, or of the nearest value around it."""
        while where not in self._lines:
            where = where[:-1]
        return self._lines[where]

    def ambiguities(self) -> Iterator[tuple[int, str]]:
        """Give line and explanation of everything that not every reader takes for the same."""
        yield from self._odd
        for found in _DIRECTIVE.finditer(self._text):
            line = self._text.count("\n", 0, found.start()) + 1
            yield line, "a YAML directive; Kubernetes may refuse it, nobody needs it: remove it"

    def json_error(self) -> tuple[int, str] | None:
        """Say why a file that Kubernetes takes for JSON is none."""
        if not self._text.lstrip().startswith("{"):
            return None
        try:
            json.loads(self._text, parse_constant=int)
        except json.JSONDecodeError as error:
            return error.lineno, f"the file begins with a brace and so must be JSON: {error.msg}"
        except ValueError:
            return 1, "the file begins with a brace and so must be JSON: NaN is no number"
        return None

    def _walk(self, node: yaml.Node, where: Location, line: int) -> None:
        self._lines[where] = line
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self._walk(value, (*where, key.value), key.start_mark.line + 1)
        elif isinstance(node, yaml.SequenceNode):
            for position, item in enumerate(node.value):
                self._walk(item, (*where, position), item.start_mark.line + 1)
        elif isinstance(node, yaml.ScalarNode) and _ambiguous(node):
            message = (
                f"not every reader of YAML takes {node.value!r} for the same; put it in quotes"
            )
            self._odd.append((line, message))


def _ambiguous(node: yaml.ScalarNode) -> bool:
    kind = node.tag.removeprefix(_TAG)
    if node.style:
        return kind != "str"
    if kind == "float":
        kind = "int"
    return kind != _kind(node.value) or (kind == "int" and not _PLAIN_NUMBER.fullmatch(node.value))


def _kind(text: str) -> str:
    """Say what Kubernetes takes the plain word `text` for."""
    for kind, words in _WORDS.items():
        if text.lower() in words and text in {text.lower(), text.title(), text.upper()}:
            return kind
    digits = text[:1] + text[1:].replace("_", "")
    return "int" if _NUMBER.fullmatch(digits) else "str"
