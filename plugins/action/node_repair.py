# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Repairs one node: reaches it for `exectrail.remediation.node`, which does the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript

from exectrail.compliance import collected, evidence, reachability
from exectrail.compliance import run as compliance
from exectrail.compliance.model import Evidence
from exectrail.errors import UsageError
from exectrail.remediation import run
from exectrail.remediation.model import Became
from exectrail.remediation.node import Node, Unheard, Unmet

_CHANGES = (Became.REPAIRED, Became.WOULD_REPAIR, Became.UNDONE, Became.WOULD_UNDO)


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what came of each check; what is left is told, and judged, at the end."""
        super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        self._host = str(self._vars["inventory_hostname"])
        self._folder = Path(str(self._task.args["report_dir"]))
        try:
            opened = run.opened(self._folder)
            node = Node(opened, self._collect, self._call)
            outcomes = node.undo() if opened.asked.undo else node.repair()
            run.save(self._folder, self._host, outcomes)
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"{self._host}: {error}"}
        return {
            "changed": any(each.became in _CHANGES for each in outcomes),
            "outcomes": [{"check": each.check, "became": str(each.became)} for each in outcomes],
            "diff": [
                {"before_header": name, "after_header": name, "before": before, "after": after}
                for each in outcomes
                for name, before, after in each.diff
            ],
        }

    def _collect(self) -> Evidence:
        """Read the node's evidence, and keep it for who wants to see it."""
        variables = {
            str(name): str(value)
            for name, value in (self._task.args.get("variables") or {}).items()
            if value not in (None, "")
        }
        groups = tuple(sorted(str(group) for group in self._vars.get("group_names", ())))
        about: dict[str, Any] = {"groups": groups, "variables": variables}
        try:
            answer = self.ask("node_evidence", self._vars)
        except AnsibleError as error:
            found = collected.unreachable(self._host, str(error), **about)
        else:
            found = collected.from_output(self._host, answer["stdout"], answer["stderr"], **about)
        evidence.save(found, compliance.evidence_path(self._folder, self._host))
        return found

    def _call(self, do: str, check: str, **more: Any) -> dict[str, Any]:
        """Let the node's script do something; Unmet with the reason if it did not."""
        request = {"do": do, "check": check, "dry": bool(self._task.check_mode), **more}
        try:
            said = self.ask("node_repair", self._vars, request)
        except AnsibleError as error:
            raise Unheard(_obstacle(str(error), self._host)) from error
        for line in reversed(said["stdout"].splitlines()):
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                if answer.get("failed"):
                    raise Unmet(f"{answer.get('msg')}.")
                return dict(answer["answer"])
        raise Unheard(_obstacle(f"{said['stdout']}\n{said['stderr']}", self._host))


def _obstacle(said: str, host: str) -> str:
    found = reachability.explain(said, host)
    return f"{found.problem}. {found.fix}"
