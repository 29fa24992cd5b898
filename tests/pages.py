"""The documentation as data: the commands that its pages show, and the words of these."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_CODE = re.compile(r"#.*\bexit code (\d(?: or \d)*)")
_OPERATORS = re.compile(r"[();|&]+")
_REDIRECTION = re.compile(r"\d?[<>]+&?")
_SETTING = re.compile(r"[A-Z_]+=")
_PROMPT = "$ "


@dataclass(frozen=True)
class Line:
    """A command line as it stands, and the exit codes that its comment promises."""

    text: str
    where: str
    exit_codes: frozenset[int]


def lines(page: Path) -> list[Line]:
    """Give the command lines of a page's console blocks, in order, without what they print.

    In a block with a prompt only what follows one is a command. After a backslash it goes on.
    """
    text = page.read_text(encoding="utf-8")
    found = []
    for block in _BLOCK.finditer(text):
        first = text[: block.start(1)].count("\n") + 1
        prompted = any(row.startswith(_PROMPT) for row in block[1].splitlines())
        rows = enumerate(block[1].splitlines(), first)
        for number, row in rows:
            if (prompted and not row.startswith(_PROMPT)) or not row.strip():
                continue
            command = row.removeprefix(_PROMPT)
            while command.endswith("\\"):
                command += "\n" + next(rows)[1]
            promised = _CODE.search(command)
            codes = frozenset(map(int, promised[1].split(" or "))) if promised else {0}
            found.append(Line(command, f"{page.name}:{number}", frozenset(codes)))
    return found


def spans(page: Path) -> list[str]:
    """Give what a page has between backticks in its text."""
    return _SPAN.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))


def commands(line: str) -> Iterator[list[str]]:
    """Give the words of each program that a line of a shell runs, without redirections.

    Of `ssh HOST COMMAND` and `sudo COMMAND` it is the command. Raises ValueError for an open quote.
    """
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    target = False
    for word in [*lexer, ";"]:
        if _OPERATORS.fullmatch(word):
            if words := _run(words):
                yield words
            words = []
        elif _REDIRECTION.fullmatch(word):
            target = True
        elif target:
            target = False
        else:
            words.append(word)


def _run(words: list[str]) -> list[str]:
    if words and (words[0] == "sudo" or _SETTING.match(words[0])):
        return _run(words[1:])
    if words[:1] == ["ssh"] and len(words) > 2 and not words[1].startswith("-"):
        return _run(words[2:])
    return words
