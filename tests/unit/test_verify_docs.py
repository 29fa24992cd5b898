"""docs/verify.md says what is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import yaml

from exectrail.compliance.requirements import load_profile

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/verify.md").read_text()


def _told(pattern: str) -> dict[str, str]:
    return {name: default.strip("` |") for name, default in re.findall(pattern, PAGE, re.MULTILINE)}


def test_the_variables_are_the_roles() -> None:
    specs = yaml.safe_load((ROOT / "roles/verify/meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]

    assert _told(r"^\| `(verify_\w+)` \| (.*?) \|") == {
        name: "false" if option["default"] is False else str(option["default"])
        for name, option in options.items()
    }


def test_the_options_are_those_of_the_checks() -> None:
    tree = ast.parse((ROOT / "checks/conftest.py").read_text())
    (table,) = [
        each.value
        for each in tree.body
        if isinstance(each, ast.AnnAssign) and ast.unparse(each.target) == "_OPTIONS"
    ]
    assert isinstance(table, ast.Tuple)
    options = {
        ast.literal_eval(row.elts[0]): row.elts[1]
        for row in table.elts
        if isinstance(row, ast.Tuple)
    }

    told = _told(r"^\| `(--[\w-]+)` \| ?(.*?) ?\|")
    assert told.keys() == options.keys() | {"--inventory", "--fail-on-warnings"}
    for name, default in options.items():
        if isinstance(default, ast.Constant) and name != "--limit":
            assert told[name] == default.value


def test_the_profile_loads(tmp_path: Path) -> None:
    (profile,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "ours.yml").write_text(profile)

    assert load_profile(str(tmp_path / "ours.yml")).profile.name == "ours"


def test_every_subject_has_a_file() -> None:
    subjects = {
        re.findall(r'SUBJECT = "(\w+)"', path.read_text())[0]
        for path in (ROOT / "checks").glob("test_*.py")
    }
    listed = re.findall(r"_SUBJECTS = \((.*?)\)", (ROOT / "checks/conftest.py").read_text())[0]

    assert subjects == {*ast.literal_eval(f"({listed})"), "node"}
