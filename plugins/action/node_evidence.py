# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the evidence scripts on the node and keeps their answers on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript

from exectrail.compliance import collect
from exectrail.compliance.model import HostState
from exectrail.errors import UsageError


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false`` and whether the node could be read."""
        host = str(task_vars["inventory_hostname"])
        directory = Path(self._task.args["report_dir"])
        try:
            known, requests = {}, collect.PREFLIGHT
            if boolean(self._task.args.get("installation", False)):
                known = collect.known_before(directory, host)
                requests = collect.verification(known)
            found = self.evidence(directory, task_vars, requests, **known)
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"The evidence of {host} can't be kept: {error}"}
        if found.state is HostState.UNREACHABLE:
            return {"unreachable": True, "msg": f"{host}: {found.problem}. {found.fix}"}
        return {"changed": False, "items": len(found.items), "problem": found.problem}
