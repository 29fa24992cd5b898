"""Text laid out for a terminal: widths, wrapping, and what in a remediation is a command."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from textwrap import dedent
from typing import NamedTuple

from exectrail.printable import printable_lines

_CODE_OR_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+|`")
_SENTENCE_START = re.compile(r"[A-Z][A-Za-z'-]*[,:.;]?(?:\s|$)")


class Block(NamedTuple):
    """A piece of a remediation: a paragraph, or whole lines of commands to paste."""

    is_command: bool
    text: str


def blocks(remediation: str) -> Iterator[Block]:
    """Tell the prose of a remediation from its commands.

    Prose starts with a capitalised word and goes on until a line ends with a full stop or a colon;
    every other line is a command, and so is every line that is indented. Within prose, a command
    stands between backticks.
    """
    lines = [line for line in printable_lines(remediation).split("\n") if line]
    before = "."
    kinds = []
    for line in lines:
        starts = _SENTENCE_START.match(line) is not None
        goes_on = not line.startswith(" ") and not before.endswith((".", ":"))
        is_command = not (starts or goes_on)
        before = "." if is_command else line
        kinds.append((is_command, line))
    for is_command, piece in groupby(kinds, key=itemgetter(0)):
        text = [line for _, line in piece]
        yield Block(is_command, dedent("\n".join(text)) if is_command else " ".join(text))


def wrap(text: str, width: int, *, indent: str = "") -> list[str]:
    """Break `text` into lines of at most `width` columns, within a word only if it is longer.

    The `indent` is put before every line and counts. There is always at least one line.
    """
    room = width - len(indent)
    pieces = []
    for word in text.split():
        rest = word
        while columns(rest) > room:
            taken = _fitting(rest, room)
            pieces.append(rest[:taken])
            rest = rest[taken:]
        pieces.append(rest)
    return _fill(pieces, width, indent)


def wrap_prose(text: str, width: int, *, indent: str = "") -> list[str]:
    """Break `text` like `wrap`, but never a word nor what is between backticks."""
    return _fill(_CODE_OR_WORD.findall(text), width, indent)


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(word: str, width: int) -> int:
    used = 0
    for index, character in enumerate(word):
        used += _width(character)
        if used > width:
            return max(index, 1)
    return len(word)


def _fill(words: list[str], width: int, indent: str) -> list[str]:
    lines = [indent]
    for word in words:
        if lines[-1] == indent:
            lines[-1] += word
        elif columns(lines[-1]) + 1 + columns(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(indent + word)
    return lines
