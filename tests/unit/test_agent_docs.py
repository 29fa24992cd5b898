"""The page about installing the agent, its role and its configuration say the same."""

import itertools
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


@pytest.mark.parametrize("option", SETTABLE, ids=lambda each: each.name)
def test_a_variable_has_the_options_choices(option: Option) -> None:
    choices = SPECS[VARIABLES[option.section, option.name]].get("choices")
    allowed = option.kind.allowed

    assert (allowed == f"one of {', '.join(choices)}") if choices else "one of" not in allowed


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


def test_the_limits_that_are_told_are_the_kernel_halfs() -> None:
    headers = (ROOT / "src/exectrail_agent/bpf").glob("*.h")
    lines = re.findall(
        r"^#define (\w+) (\d+)\b", "".join(each.read_text() for each in headers), re.MULTILINE
    )
    limit = {name: int(number) for name, number in lines}
    page = (ROOT / "docs/agent.md").read_text()
    table = page.partition("## How far it follows")[2].partition("\n## ")[0]
    told = [
        [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", row)]
        for row in re.findall(r"^\| (.*?) \| [A-Z]", table, re.MULTILINE)
    ]

    # Each part of a record's text has at least what is between its limit and the one before.
    ends = [0, *(limit[f"{name}_LIMIT"] for name in ("CGROUP", "PARENT_CGROUP", "EXECUTABLE"))]
    ends += [limit["CWD_LIMIT"], limit["PARENT_EXECUTABLE_LIMIT"]]
    room = [(end - begin) // 1024 for begin, end in itertools.pairwise(ends)]
    cgroup, parents_cgroup, program, folder, parents_program = room
    arguments = limit["ARGV_MAX"] // 1024
    assert (cgroup, program) == (parents_cgroup, folder)
    assert told == [
        [limit["SESSIONS_MAX"]],
        [limit["DEPTH_MAX"]],
        [limit["TASKS_MAX"]],
        [limit["CGROUPS_MAX"], cgroup],
        [limit["STEPS_MAX"], program, parents_program],
        [limit["VARIABLES_MAX"], arguments],
        [arguments],
    ]
