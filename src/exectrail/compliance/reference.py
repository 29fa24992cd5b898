"""Writes the reference pages of requirements, waivers and reports.

``python -m exectrail.compliance.reference docs/reference``
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance import requirements, waivers
from exectrail.compliance.checks import CHECKS, Check
from exectrail.compliance.render.json import report_schema
from exectrail.compliance.requirements import BUILT_IN, Requirement, load_profile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ABSENT = "not required"
_INSTALLED = "installed"
"""The profile of what was installed; the others say what can be installed."""
_INTRODUCTION = """\
Made from the profiles and the checks themselves by
`python -m exectrail.compliance.reference docs/reference`.

Failures of severity `blocker` and `major` gate in every profile. An item of the evidence that
decides and could not be read is an error, never a pass. A file of your own can include a profile
and change severities and parameters, or add requirements: its form is
[requirements.schema.json](requirements.schema.json)."""


def requirements_schema() -> dict[str, Any]:
    """Give the JSON Schema of a requirements file, the parameters of every check included."""
    ids = sorted(CHECKS)
    shapes = [requirements.ProfileFile, *(CHECKS[check_id].parameters for check_id in ids)]
    (document, *parameters), components = msgspec.json.schema_components(
        shapes, ref_template="#/$defs/{name}"
    )
    for check_id, reference in zip(ids, parameters, strict=True):
        # A row may set some of the parameters and inherit the others.
        components[reference["$ref"].removeprefix("#/$defs/")].pop("required", None)
        components["Row"].setdefault("allOf", []).append(_if_judged_by(check_id, reference))
    components["Row"]["properties"]["check"]["enum"] = ids
    return {"$schema": _DIALECT, "title": "Requirements", **document, "$defs": components}


def _if_judged_by(check_id: str, parameters: dict[str, Any]) -> dict[str, Any]:
    named = {"properties": {"check": {"const": check_id}}, "required": ["check"]}
    implied = {"properties": {"id": {"const": check_id}, "check": False}}
    return {
        "if": {"anyOf": [named, implied]},
        "then": {"properties": {"parameters": parameters}},
    }


def waivers_schema() -> dict[str, Any]:
    """Give the JSON Schema of a file of waivers."""
    (row,), components = msgspec.json.schema_components(
        [waivers.Row], ref_template="#/$defs/{name}"
    )
    return {
        "$schema": _DIALECT,
        "title": "Waivers",
        "type": "array",
        "items": row,
        "$defs": components,
    }


def checks_page() -> str:
    """Give the reference page of the checks, in Markdown."""
    profiles = {
        name: {requirement.id: requirement for requirement in load_profile(name).checks}
        for name in BUILT_IN
    }
    listed = {check_id for rows in profiles.values() for check_id in rows}
    before = [name for name in BUILT_IN if name != _INSTALLED]
    lines = ["# Checks", "", _INTRODUCTION, "", "Before the installation (preflight):", ""]
    lines += _table({name: profiles[name] for name in before})
    lines += [
        "",
        "After the installation (verify):",
        "",
        *_table({_INSTALLED: profiles[_INSTALLED]}),
    ]
    for check_id in sorted(listed):
        found = {name: rows[check_id] for name, rows in profiles.items() if check_id in rows}
        lines += ["", *_section(check_id, found)]
    return "\n".join(lines) + "\n"


def _table(profiles: dict[str, dict[str, Requirement]]) -> list[str]:
    """Say, for each requirement of some profiles, how much it matters in each."""
    titles = {
        check_id: requirement.title
        for rows in profiles.values()
        for check_id, requirement in rows.items()
    }
    lines = [
        "| id | what is required | " + " | ".join(profiles) + " |",
        "|---|---|" + "---|" * len(profiles),
    ]
    for check_id in sorted(titles):
        severities = [
            rows[check_id].severity if check_id in rows else _ABSENT for rows in profiles.values()
        ]
        cells = [f"[{check_id}](#{_anchor(check_id)})", titles[check_id], *severities]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _anchor(check_id: str) -> str:
    return check_id.replace(".", "")


def _section(check_id: str, found: dict[str, Requirement]) -> list[str]:
    check = next(iter(found.values())).check
    lines = [f"## {check_id}", "", inspect.getdoc(check.judge) or "", ""]
    if check.after:
        links = " and ".join(f"[{earlier}](#{_anchor(earlier)})" for earlier in check.after)
        lines += [f"Skipped unless {links} passes.", ""]
    lines += [
        f"- **{name}** ({requirement.severity}{_condition(requirement)}) expects "
        f"{requirement.expected}."
        for name, requirement in found.items()
    ]
    lines += _parameters(check, found)
    sources = dict.fromkeys(
        source for requirement in found.values() for source in requirement.references
    )
    return [*lines, "", "Sources: " + "; ".join(sources) + "."]


def _condition(requirement: Requirement) -> str:
    conditions = []
    if requirement.applies_to.os:
        conditions.append(f"only where os-release has ID={' or '.join(requirement.applies_to.os)}")
    if requirement.applies_to.resolver:
        conditions.append(f"only where {requirement.applies_to.resolver} runs")
    return "".join(f", {condition}" for condition in conditions)


def _parameters(check: Check, found: dict[str, Requirement]) -> list[str]:
    names = check.parameters.__struct_fields__
    if not names:
        return []
    lines = [
        "",
        f"| parameter | {' | '.join(found)} |",
        "|---|" + "---|" * len(found),
    ]
    for name in names:
        values = [
            json.dumps(
                msgspec.to_builtins(getattr(requirement.parameters, name)), ensure_ascii=False
            )
            for requirement in found.values()
        ]
        lines.append(f"| `{name}` | " + " | ".join(f"`{value}`" for value in values) + " |")
    return lines


def pages() -> dict[str, str]:
    """Give every page by its file name."""
    schemas = {
        "report": report_schema(),
        "requirements": requirements_schema(),
        "waivers": waivers_schema(),
    }
    return {
        "checks.md": checks_page(),
        **{f"{name}.schema.json": _schema_text(schema) for name, schema in schemas.items()},
    }


def _schema_text(schema: dict[str, Any]) -> str:
    """Return `schema` as the text of a file under docs/reference."""
    return json.dumps(_dedented(schema), indent=2, ensure_ascii=False) + "\n"


def _dedented(value: Any) -> Any:
    # Descriptions are docstrings, which Python keeps indented before 3.13.
    if isinstance(value, dict):
        return {
            key: inspect.cleandoc(each)
            if key == "description" and isinstance(each, str)
            else _dedented(each)
            for key, each in value.items()
        }
    return [_dedented(each) for each in value] if isinstance(value, list) else value


if __name__ == "__main__":
    for page, text in pages().items():
        (Path(sys.argv[1]) / page).write_text(text, encoding="utf-8")
