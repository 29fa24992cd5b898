"""The examples in the guides are real: what a reader pastes is accepted."""

import re
from pathlib import Path

import pytest

from exectrail.compliance.requirements import load_profile
from exectrail.compliance.waivers import load_waivers

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/preflight.md").read_text(), re.DOTALL)


def test_the_profile_of_the_guide_loads(tmp_path: Path) -> None:
    (profile,) = [block for block in BLOCKS if "include:" in block]
    (tmp_path / "ours.yml").write_text(profile)

    loaded = load_profile(str(tmp_path / "ours.yml"))

    assert "ours.kernel" in [requirement.id for requirement in loaded.checks]


def test_the_waiver_of_the_guide_loads(tmp_path: Path) -> None:
    (waiver,) = [block for block in BLOCKS if "expires:" in block]
    (tmp_path / "waivers.yml").write_text(waiver)

    load_waivers(
        tmp_path / "waivers.yml",
        ["node.automatic-upgrades"],
        {"worker-1": ["legacy"], "edge-1": []},
    )


GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [target for target in targets if not (page.parent / target).exists()] == []
