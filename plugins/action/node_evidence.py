# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the evidence script on the node and keeps its answer on the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import (
    NO_PYTHON,
    NodeScript,
)

from exectrail.compliance import evidence, run
from exectrail.compliance.model import Evidence, HostState
from exectrail.compliance.reachability import Obstacle, explain
from exectrail.errors import UsageError


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ``changed: false`` and whether the node could be read."""
        super().run(tmp, task_vars)
        del tmp
        task_vars = task_vars or {}
        host = str(task_vars["inventory_hostname"])
        directory = Path(self._task.args["report_dir"])
        found = self._collect(host, task_vars)
        try:
            evidence.save(found, run.evidence_path(directory, host))
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"The evidence of {host} can't be kept: {error}"}
        if found.state is HostState.UNREACHABLE:
            return {"unreachable": True, "msg": f"{host}: {found.problem}. {found.fix}"}
        return {"changed": False, "items": len(found.items), "problem": found.problem}

    def _collect(self, host: str, task_vars: dict[str, Any]) -> Evidence:
        variables = {
            # Plain text: Ansible hands out strings of a type of its own.
            str(name): str(value)
            for name, value in (self._task.args.get("variables") or {}).items()
            if value not in (None, "")
        }
        groups = tuple(sorted(str(group) for group in task_vars.get("group_names", ())))
        common: dict[str, Any] = {"host": host, "groups": groups, "variables": variables}
        try:
            answer = self.ask("node_evidence", task_vars)
        except AnsibleError as error:
            return _unreachable(explain(str(error), host), common)
        for line in reversed(answer["stdout"].splitlines()):
            if line.startswith("{") and '"evidence"' in line:
                return Evidence(items=json.loads(line)["evidence"]["items"], **common)
        said = f"{answer['stdout']}\n{answer['stderr']}"
        if NO_PYTHON in said:
            return Evidence(
                items={"python.interpreters": []},
                problem="the node has no Python 3",
                fix="apt-get install python3 || dnf install python3 || zypper install python3",
                **common,
            )
        return _unreachable(explain(said, host), common)


def _unreachable(obstacle: Obstacle, common: dict[str, Any]) -> Evidence:
    return Evidence(
        state=HostState.UNREACHABLE, problem=obstacle.problem, fix=obstacle.fix, **common
    )
