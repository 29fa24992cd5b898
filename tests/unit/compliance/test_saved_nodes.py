"""Saved nodes keep their verdicts.

Adding an operating system is adding two files: NAME.json, the evidence of a node (a file of a
report folder's evidence/), and NAME.expected.yml, its status per profile and requirement.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from exectrail.compliance.evaluate import evaluate
from tests.unit.compliance.nodes import FIXTURES, TODAY, load, profile

SAVED = sorted(FIXTURES.glob("*.json"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["ack", "self_managed"])
def test_every_requirement_has_the_expected_status(path: Path, name: str) -> None:
    expected = yaml.safe_load(path.with_suffix(".expected.yml").read_text())
    report = evaluate(load(path.stem), profile(name), today=TODAY)
    assert {result.check: result.status.value for result in report.results} == expected[name]
    assert report.facts == expected["facts"]
