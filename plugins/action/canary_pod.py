# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Has the first master that answers enter the canary pods, and keeps what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript

from exectrail.compliance import canary, run
from exectrail.errors import UsageError


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false``; unreachable if another master has to do it."""
        directory = Path(str(self._task.args["report_dir"]))
        if canary.path(directory).exists():
            return {"changed": False}
        if self._task.check_mode:
            canary.keep(directory, {"hosts": {}})
            self._display.display(
                "No canary pods in check mode: an image that they pull would stay on the nodes."
            )
            return {"changed": False, "skipped": True}
        opened = run.load(directory)
        request = canary.request(
            str(self._task.args["image"]),
            str(self._task.args.get("namespace") or "default"),
            {name: opened.addresses.get(name, (name,)) for name in opened.selected},
        )
        try:
            answer = self.answer(canary.SCRIPT, request, task_vars)
        except UsageError as error:
            return {"unreachable": True, "msg": f"{task_vars['inventory_hostname']}: {error}"}
        kept = canary.keep(directory, answer).hosts
        problems = {name: each.problem for name, each in kept.items() if each.problem}
        return {"changed": False, "entered": len(kept) - len(problems), "problems": problems}
