"""The files that the guides show are real: what a reader pastes is accepted."""

import re
from pathlib import Path

import yaml

from exectrail.audit_policy import profiles
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


ROLL_OUT = (ROOT / "docs/audit-policy-roll-out.md").read_text()


def test_the_variables_of_the_roll_out_are_the_roles() -> None:
    specs = yaml.safe_load((ROOT / "roles/audit_policy/meta/argument_specs.yml").read_text())
    options = specs["argument_specs"]["main"]["options"]
    rows = re.findall(r"^\| `(audit_policy_\w+)` \| (.*?) \|", ROLL_OUT, re.MULTILINE)

    told = {name: default.strip("` ") for name, default in rows}
    assert told == {
        name: str(option["default"] or "").replace("True", "true").replace("False", "false")
        if option["default"] is not False
        else "false"
        for name, option in options.items()
    }


def test_the_rules_of_the_roll_out_are_rules() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", ROLL_OUT, re.DOTALL)

    assert profiles.render("ack", "1.30", yaml.safe_load(block)["audit_policy_rules_first"])
