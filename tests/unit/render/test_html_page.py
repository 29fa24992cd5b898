"""The HTML page as text; tests/integration/test_html_report.py opens it in a browser."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exectrail.compliance.model import HostState
from exectrail.compliance.render import html
from tests.unit.render.reports import HOSTILE, hostile_report, node, report, result, saved, waiver

VOID = {"meta", "link", "img", "input", "br", "hr"}
LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "ping"}


class Page(HTMLParser):
    """What a page is made of; fails on tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in {*self.open[-1:], "all"}:
            self.texts.setdefault(tag, []).append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def check_safe(page: Page) -> None:
    """Only our own script and style, no handler, and nothing that loads anything."""
    assert page.count("script") == page.count("style") == 1
    assert {"img", "iframe", "object", "embed", "link", "base", "svg"}.isdisjoint(
        tag for tag, _ in page.tags
    )
    for _, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert LOADING.isdisjoint(attributes)
        assert re.match(r"#[fo]\d+$|https?://", attributes.get("href") or "#f0")
    (policy,) = (
        attributes["content"]
        for tag, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (text,) = page.texts[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("name", ["mixed", "fit", "hostile"])
def test_the_page_needs_nothing_else(name: str) -> None:
    check_safe(Page(html.render(saved(name))))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text(text: str) -> None:
    harmless = Page(html.render(hostile_report("a\x00")))
    page = Page(html.render(hostile_report(text)))
    check_safe(page)
    # <code>, <pre> and <p> depend on what looks like a command, and <a> on what is a link.
    shape = [tag for tag, _ in page.tags if tag not in {"code", "pre", "p", "a"}]
    assert shape == [tag for tag, _ in harmless.tags if tag not in {"code", "pre", "p", "a"}]
    assert all(part.replace("\n", "").isprintable() for part in page.texts["all"])


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_text(text: str) -> None:
    check_safe(Page(html.render(hostile_report(text))))


def test_a_template_in_a_text_is_not_run() -> None:
    page = html.render(report(node(result(observed="{{ 7 * 7 }}", message="{% raw %}"))))
    assert "{{ 7 * 7 }}" in page
    assert "{% raw %}" in page


def test_everything_of_the_report_is_on_the_page() -> None:
    mixed = saved("mixed")
    words = " ".join(" ".join(Page(html.render(mixed)).texts["all"]).split())
    for host in mixed.hosts:
        for each in host.results:
            if host.state is HostState.CHECKED and each.status not in {"pass", "skip"}:
                assert each.observed in words
                assert each.message in words
                assert each.title in words
                assert each.expected in words
            if each.waiver:
                assert each.waiver.owner in words
                assert each.waiver.reason in words
                assert str(each.waiver.expires) in words
        assert host.problem in words
    assert "UNKNOWN" in words.upper()
    assert mixed.profile.sha256 in words


def test_nodes_that_are_alike_share_a_row() -> None:
    nodes = [node(result("pass"), host=f"n{i:04}") for i in range(5000)]
    page = html.render(report(*nodes, node(result(), host="odd")))
    assert "n[0000-4999]" in page
    assert Page(page).count("tr") < 12
    assert len(page) < 40_000


def test_every_cell_that_tells_of_something_leads_to_it() -> None:
    blind = [result("error", check=f"c{i}", remediation="Do.") for i in range(3)]
    nodes = [
        node(*blind, host="blind", problem="no Python 3", fix="Do."),
        node(result("pass", check="c0"), result("warn", check="c1"), host="seen"),
    ]
    page = Page(html.render(report(*nodes)))
    ids = {attributes["id"] for tag, attributes in page.tags if tag == "article"}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) == 4
    assert {f"#{id_}" for id_ in ids} == set(links)


def test_many_observations_are_counted_not_listed() -> None:
    many = report(*(node(result(observed=f"saw {i}"), host=f"n{i}") for i in range(203)))
    page = html.render(many)
    assert page.count('class="variant"') == 200
    assert "And 3 more observations" in page


@pytest.mark.parametrize(
    ("reference", "linked"),
    [
        ("https://example.org/a?b=1&c", True),
        ("http://example.org/", True),
        ("javascript:alert(1)", False),
        ("JavaScript:https://x", False),
        ("systemd.exec(5)", False),
    ],
)
def test_only_web_addresses_are_links(reference: str, linked: bool) -> None:  # noqa: FBT001
    page = Page(html.render(report(node(result(references=(reference,))))))
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert (reference in links) is linked
    assert any(reference in text for text in page.texts["all"])


@pytest.mark.parametrize(
    "edge",
    [
        report(),
        report(node()),
        report(node(state=HostState.UNREACHABLE)),
        report(node(result("pass")), node(result("pass", check="other"), host="b")),
        report(node(result(waiver=waiver(expired=True)))),
        report(node(result(remediation="", references=())), interrupted=True),
    ],
    ids=["no node", "no check", "nothing known", "different checks", "expired", "interrupted"],
)
def test_odd_reports_have_a_page_too(edge: object) -> None:
    check_safe(Page(html.render(edge)))
