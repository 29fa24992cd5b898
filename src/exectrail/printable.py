r"""Text from nodes made printable: control sequences become visible escapes such as ``\x1b``.

Whatever a terminal, a browser or an XML reader would obey, hide or refuse is replaced: C0 and C1
controls, DEL, the introducers of ANSI and OSC sequences, bidirectional and zero-width characters,
line and paragraph separators, noncharacters and lone surrogates. Everything returned is legal in
XML 1.0. Escaping for HTML or XML is still the renderer's business.
"""

from __future__ import annotations


def printable(text: str, *, limit: int = 0) -> str:
    r"""Return `text` on one line; newlines and tabs are shown as ``\n`` and ``\t``.

    With a `limit`, what is longer is cut to that many characters and says how many are missing.
    """
    if limit and len(text) > limit:
        return f"{printable(text[:limit])}... ({len(text) - limit} more characters)"
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def printable_lines(text: str) -> str:
    """Return `text` with its line breaks kept; for text of ours, such as a remediation."""
    lines = text.expandtabs(4).strip("\n").split("\n")
    return "\n".join(printable(line.rstrip()) for line in lines)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
