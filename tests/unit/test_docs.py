"""What the guides show is real: files that a reader pastes are accepted, tables are complete."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from checks import conftest as checks
from exectrail.audit_policy import profiles
from exectrail.compliance.requirements import load_profile
from exectrail.compliance.waivers import load_waivers

ROOT = Path(__file__).parents[2]
PREFLIGHT, VERIFY, ROLL_OUT, REMEDIATE = (
    (ROOT / f"docs/{name}.md").read_text()
    for name in ("preflight", "verify", "audit-policy-roll-out", "remediate")
)


def the_block(page: str, holding: str = "") -> str:
    (found,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if holding in block
    ]
    return found


@pytest.mark.parametrize(
    ("page", "holding", "check"),
    [(PREFLIGHT, "include:", "ours.kernel"), (VERIFY, "", "agent.sees")],
)
def test_a_profile_of_a_guide_loads(tmp_path: Path, page: str, holding: str, check: str) -> None:
    (tmp_path / "ours.yml").write_text(the_block(page, holding))

    loaded = load_profile(str(tmp_path / "ours.yml"))

    assert loaded.profile.name == "ours"
    assert check in [requirement.id for requirement in loaded.checks]


def test_the_waiver_of_the_guide_loads(tmp_path: Path) -> None:
    (tmp_path / "waivers.yml").write_text(the_block(PREFLIGHT, "expires:"))

    load_waivers(
        tmp_path / "waivers.yml",
        ["node.automatic-upgrades"],
        {"worker-1": ["legacy"], "edge-1": []},
    )


def test_the_rules_of_the_roll_out_are_rules() -> None:
    rules = yaml.safe_load(the_block(ROLL_OUT))["audit_policy_rules_first"]

    assert profiles.render("ack", "1.30", rules)


def rows(page: str, names: str) -> dict[str, str]:
    """Give the second column of the rows of a page whose first is such a name."""
    found = re.findall(rf"^\| `({names})` \| ?(.*?) ?\|", page, re.MULTILINE)
    return {name: default.strip("` ") for name, default in found}


def written(default: Any) -> str:
    return {"True": "true", "False": "false", "[]": ""}.get(str(default), str(default))


@pytest.mark.parametrize(
    ("role", "page"), [("audit_policy", ROLL_OUT), ("verify", VERIFY), ("remediate", REMEDIATE)]
)
def test_the_variables_of_a_guide_are_the_roles(role: str, page: str) -> None:
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]

    told = rows(page, rf"{role}\w*")
    if role == "remediate":  # The playbook has a shorter name for it.
        told["remediate_checks"] = told.pop("remediate")
    assert told == {name: written(option["default"]) for name, option in options.items()}


def test_the_options_of_the_guide_are_those_of_the_checks() -> None:
    defaults = {name: default for name, default, _ in checks._OPTIONS}
    told = rows(VERIFY, r"--[\w-]+")

    assert told.keys() == defaults.keys() | {"--inventory", "--fail-on-warnings"}
    assert {name: told[name] for name in defaults if name != "--limit"} == {
        name: default for name, default in defaults.items() if name != "--limit"
    }


def test_every_subject_has_a_file() -> None:
    files = (ROOT / "checks").glob("test_*.py")
    subjects = {re.findall(r'SUBJECT = "(\w+)"', path.read_text())[0] for path in files}

    assert subjects == {*checks._SUBJECTS, "node"}
