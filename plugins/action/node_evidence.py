# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the evidence scripts on the node and keeps their answers on the controller."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript

from exectrail.compliance import collected, evidence, installation, run
from exectrail.compliance.model import Evidence, HostState
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
        try:
            found = self._collect(host, directory, task_vars)
            evidence.save(found, run.evidence_path(directory, host))
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"The evidence of {host} can't be kept: {error}"}
        if found.state is HostState.UNREACHABLE:
            return {"unreachable": True, "msg": f"{host}: {found.problem}. {found.fix}"}
        return {"changed": False, "items": len(found.items), "problem": found.problem}

    def _collect(self, host: str, directory: Path, task_vars: dict[str, Any]) -> Evidence:
        variables: dict[str, Any] = {
            # Plain text: Ansible hands out strings of a type of its own.
            str(name): str(value)
            for name, value in (self._task.args.get("variables") or {}).items()
            if value not in (None, "")
        }
        requests: dict[str, dict[str, Any] | None] = {"node_evidence": None}
        if boolean(self._task.args.get("installation", False)):
            known = installation.variables(directory, host)
            variables |= known
            requests |= installation.requests(known)
        groups = tuple(sorted(str(group) for group in task_vars.get("group_names", ())))
        asked = time.time()
        try:
            answer = self.ask_all(requests, task_vars)
        except AnsibleError as error:
            return collected.unreachable(host, str(error), groups=groups, variables=variables)
        if len(requests) > 1:
            variables |= {"asked": asked, "answered": time.time()}
        return collected.from_output(
            host, answer["stdout"], answer["stderr"], groups=groups, variables=variables
        )
