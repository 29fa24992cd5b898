# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Has the first master that answers enter the canary pods, and keeps what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript

from exectrail.compliance import canary, run
from exectrail.compliance.reachability import explain
from exectrail.errors import UsageError


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ``changed: false``; unreachable if another master has to do it."""
        super().run(tmp, task_vars)
        del tmp
        task_vars = task_vars or {}
        host = str(task_vars["inventory_hostname"])
        directory = Path(str(self._task.args["report_dir"]))
        if canary.path(directory).exists():
            return {"changed": False}
        try:
            opened = run.load(directory)
            request = canary.request(
                str(self._task.args["image"]),
                str(self._task.args.get("namespace") or "default"),
                {name: opened.addresses.get(name, (name,)) for name in opened.selected},
            )
            try:
                said = self.ask(canary.SCRIPT, task_vars, request)
            except AnsibleError as error:
                said = {"stdout": "", "stderr": str(error)}
            answer = canary.read(said["stdout"])
            if answer is None:
                found = explain(f"{said['stdout']}\n{said['stderr']}", host)
                return {"unreachable": True, "msg": f"{host}: {found.problem}. {found.fix}"}
            kept = canary.keep(directory, answer).hosts
        except UsageError as error:
            return {"failed": True, "msg": str(error)}
        problems = {name: each.problem for name, each in kept.items() if each.problem}
        return {"changed": False, "entered": len(kept) - len(problems), "problems": problems}
