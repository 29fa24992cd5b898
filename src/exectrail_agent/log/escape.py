"""Text from anywhere: bytes that can be had back from it, and nothing that anybody obeys."""

from __future__ import annotations


def to_text(raw: bytes) -> tuple[str, bool]:
    r"""Return text, and whether it is escaped.

    UTF-8 is itself. In anything else each byte that is none becomes ``\xhh`` and each backslash
    ``\\``.
    """
    try:
        return raw.decode(), False
    except UnicodeDecodeError:
        return raw.replace(b"\\", b"\\\\").decode(errors="backslashreplace"), True


def clean(text: str) -> str:
    """Return `text` as JSON readers everywhere take it: without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return to_text(text.encode(errors="surrogatepass"))[0]
    return text


def visible(text: object) -> str:
    """Return `text` on one line, with what a terminal would obey shown as escapes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in str(text)
    )
