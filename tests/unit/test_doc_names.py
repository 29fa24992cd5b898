"""What the documentation names exists: pages, files, checks, variables, and messages."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from exectrail.compliance.requirements import BUILT_IN, load_profile
from tests.pages import PAGES, ROOT, spans

PATH = re.compile(
    r"(?:\.github|bench|checks|docs|inventories|lab|packaging|playbooks|plugins|policies|roles|src"
    r"|tests)(?:/[\w.-]+)+"
)
# Made by the reader, or by a run.
MADE = ("inventories/mine",)
# The references have names of the same form for what is no check.
GUIDES = [page for page in PAGES if page.parent.name != "reference"]
CHECK = re.compile(r"(?:agent|audit|cluster|node)\.[a-z]+(?:-[a-z]+)*")
TROUBLE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    found = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text())
    targets = [((page.parent / path) if path else page, anchor) for path, anchor in found]

    assert [
        f"{path}#{anchor}"
        for path, anchor in targets
        if not path.exists() or (anchor and anchor not in anchors(path))
    ] == []


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_checkout_exist(page: Path) -> None:
    named = [path for path in spans(page) if PATH.fullmatch(path) and not path.startswith(MADE)]

    assert [path for path in named if not (ROOT / path).exists()] == []


@functools.cache
def checks() -> frozenset[str]:
    return frozenset(each.id for name in BUILT_IN for each in load_profile(name).checks)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_checks_exist(page: Path) -> None:
    named = {name for name in spans(page) if CHECK.fullmatch(name)}

    assert named - checks() == set()


def test_each_check_of_the_installation_has_its_row() -> None:
    rows = re.findall(r"^\| `([a-z.-]+)` \|", TROUBLE, re.MULTILINE)

    assert rows == [each.id for each in load_profile("installed").checks]


@functools.cache
def variables() -> frozenset[str]:
    files = ROOT.glob("roles/*/meta/argument_specs.yml")
    specs = [yaml.safe_load(path.read_text()) for path in files]
    texts = [path.read_text() for path in ROOT.glob("playbooks/*.yml")]
    own = {name for text in texts for name in re.findall(r"-e (\w+)=|\b(\w+_hosts)\b", text)}
    return frozenset(
        {name for each in specs for name in each["argument_specs"]["main"]["options"]}
        | {name for pair in own for name in pair}
    )


def roles() -> str:
    return "|".join(sorted(path.name for path in (ROOT / "roles").iterdir()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_variables_exist(page: Path) -> None:
    named = {name for span in spans(page) for name in re.findall(rf"^(?:{roles()})_\w+", span)}

    assert named - variables() == set()


def test_variables_of_the_example_exist() -> None:
    files = (ROOT / "inventories/example/group_vars").iterdir()
    named = {name for path in files for name in yaml.safe_load(path.read_text())}

    assert named <= variables()


def texts() -> Iterator[str]:
    """All that the code can say, with … for what it puts in."""
    for path in [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "") for part in node.values]
                yield "".join(part if isinstance(part, str) else "…" for part in parts)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.sub(r"%[sd]", "…", node.value)
    for path in [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/*.yml"), ROOT / "Makefile"]:
        yield re.sub(r"\{\{.*?\}\}", "…", " ".join(path.read_text(encoding="utf-8").split()))


def test_every_message_is_one_of_the_code() -> None:
    told = []
    for table in re.findall(r"^\| it says \|.*\n(?:\|.*\n)+", TROUBLE, re.MULTILINE):
        told += [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]
    said = "\n".join(texts())

    missing = [row for row in told if not re.search(pattern(row), said)]
    assert len(told) > 20
    assert missing == []


def pattern(row: str) -> str:
    return ".{0,200}?".join(re.escape(part.strip()) for part in row.split("…"))
