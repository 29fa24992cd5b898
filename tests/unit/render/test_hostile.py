"""Text from nodes: nothing that a terminal or a reader of XML would obey gets through."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.printable import printable, printable_lines
from tests.unit.render.reports import HOSTILE

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("tab\tand\nline\r", r"tab\tand\nline\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\x7f\x00", r"\x9b31m\x7f\x00"),
        ("\u202eright to left\u2066", r"\u202eright to left\u2066"),
        ("zero\u200bwidth\u00ad\ufeff", r"zero\u200bwidth\xad\ufeff"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
        ("\ufffe\uffff", r"\ufffe\uffff"),
        ("no\u00a0break", r"no\xa0break"),
        ("Grüße, 日本語", "Grüße, 日本語"),
        ("", ""),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT)
def test_any_text_becomes_one_printable_line_that_xml_can_hold(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert ET.fromstring(f"<a>{escape(shown)}</a>").text in {shown, None}  # noqa: S314
    assert printable(shown) == shown


@pytest.mark.parametrize(
    ("length", "shown"),
    [(9, "xxxxxxxxx"), (10, "xxxxxxxxxx"), (11, "xxxxxxxxxx... (1 more characters)")],
)
def test_a_long_text_says_how_much_is_missing(length: int, shown: str) -> None:
    assert printable("x" * length, limit=10) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_lines_keep_their_breaks_and_nothing_else(text: str) -> None:
    shown = printable_lines(f"first\n{text}\nlast\n")
    assert all(line.isprintable() for line in shown.split("\n"))
    assert shown.startswith("first\n")
    assert shown.endswith("\nlast")
