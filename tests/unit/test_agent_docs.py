"""The page about installing the agent, its role and its configuration say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from exectrail_agent.config import OPTIONS, Option

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/exec_agent"
PAGE = (ROOT / "docs/agent-install.md").read_text()
SPECS: dict[str, dict[str, Any]] = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())[
    "argument_specs"
]["main"]["options"]
# The role's own, or nobody's choice.
FIXED = {("agent", "sensor"), ("bpf", "pins"), ("paths", "state"), ("paths", "runtime")}


def _variables() -> dict[tuple[str, str], str]:
    sections = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__exec_agent_options"]
    return {
        (section, option): variable
        for section, options in sections.items()
        for option, variable in options.items()
    }


VARIABLES = _variables()
SETTABLE = [each for each in OPTIONS if (each.section, each.name) not in FIXED]


def test_every_option_of_the_agent_has_a_variable() -> None:
    assert set(VARIABLES) == {(each.section, each.name) for each in SETTABLE}
    assert set(VARIABLES.values()) <= set(SPECS)


@pytest.mark.parametrize("option", SETTABLE, ids=lambda each: each.name)
def test_a_variable_that_is_not_set_means_the_agents_default(option: Option) -> None:
    spec = SPECS[VARIABLES[option.section, option.name]]

    if "default" in spec:
        assert spec["default"] == option.default
    elif option.default:
        assert f"by default {option.default}" in spec["description"]


def test_the_variables_of_the_page_are_the_roles() -> None:
    rows = re.findall(r"^\| `(exec_agent_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    defaults = {VARIABLES[each.section, each.name]: each.default for each in SETTABLE}
    defaults |= {name: spec["default"] for name, spec in SPECS.items() if "default" in spec}

    told = [(name, default.strip("` ")) for name, default in rows]
    assert told == [
        (name, str(defaults[name]).replace("False", "false").replace("True", "true"))
        for name in SPECS
    ]


def test_variables_in_the_text_exist() -> None:
    assert set(re.findall(r"\bexec_agent_\w+", PAGE)) - {"exec_agent_hosts"} <= set(SPECS)


def test_the_capabilities_that_are_told_are_the_units() -> None:
    unit = (ROLE / "templates/exectrail-agent.service.j2").read_text()
    given = re.findall(r"capabilities = \[.*\]|^CapabilityBoundingSet=.*", unit, re.MULTILINE)
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| (`CAP_.*?) \|", page, re.MULTILINE)

    assert set(re.findall(r"CAP_\w+", str(given))) == set(re.findall(r"CAP_\w+", str(rows)))
