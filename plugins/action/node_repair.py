# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Repairs one node: reaches it for `exectrail.remediation.node`, which does the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import difference

from exectrail.compliance import collect
from exectrail.errors import UsageError
from exectrail.nodes import script
from exectrail.remediation import run
from exectrail.remediation.model import Became
from exectrail.remediation.node import Node, Unheard, Unmet

_CHANGES = (Became.REPAIRED, Became.WOULD_REPAIR, Became.UNDONE, Became.WOULD_UNDO)


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return what came of each check; what is left is told, and judged, at the end."""
        self._vars = task_vars
        self._host = str(self._vars["inventory_hostname"])
        self._folder = Path(str(self._task.args["report_dir"]))
        try:
            opened = run.opened(self._folder)
            node = Node(
                opened,
                lambda: self.evidence(self._folder, self._vars, collect.PREFLIGHT),
                self._call,
            )
            outcomes = node.undo() if opened.asked.undo else node.repair()
            run.save(self._folder, self._host, outcomes)
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"{self._host}: {error}"}
        return {
            "changed": any(each.became in _CHANGES for each in outcomes),
            "outcomes": [{"check": each.check, "became": str(each.became)} for each in outcomes],
            "diff": [difference(*row) for each in outcomes for row in each.diff],
        }

    def _call(self, do: str, check: str, **more: Any) -> dict[str, Any]:
        """Let the node's script do something; Unmet with the reason if it did not."""
        request = {"do": do, "check": check, "dry": bool(self._task.check_mode), **more}
        try:
            return dict(self.answer("node_repair", request, self._vars))
        except script.Refused as error:
            raise Unmet(f"{error}.") from error
        except script.Unheard as error:
            raise Unheard(str(error)) from error
