# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Opens and closes a run of repairs on the controller; never connects to a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.display import Display
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import (
    MISSING,
    RunAction,
)

if not MISSING:
    from exectrail.hostnames import fold
    from exectrail.remediation import run


class ActionModule(RunAction):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false``; fail once for all nodes if something is left to do."""
        directory = Path(str(self._task.args["report_dir"]))
        if self._task.args["stage"] == "begin":
            return self._begin(directory, task_vars)
        summary, text = run.finish(directory)
        Display().display(text)
        result = {"changed": False, "exit_code": summary.exit_code}
        if not summary.left:
            return result
        alike: dict[str, list[str]] = {}
        for host, told in summary.left.items():
            alike.setdefault(told, []).append(host)
        left = "; ".join(f"{fold(hosts, limit=8)}: {told}" for told, hosts in alike.items())
        return {**result, "failed": True, "msg": f"Left to do, as said above: {left}"}

    def _begin(self, directory: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        args = self._task.args
        named = args.get("checks") or ""
        opened = run.begin(
            directory,
            named if isinstance(named, str) else ",".join(map(str, named)),
            undo=boolean(args.get("undo", False)),
            dry=bool(self._task.check_mode),
            profile=str(args["profile"]),
            waivers=str(args.get("waivers") or ""),
            strict=False,
            selected=[str(host) for host in task_vars["ansible_play_hosts_all"]],
            inventory=self.inventory(task_vars),
            run_id=str(args["run_id"]) if args.get("run_id") else None,
        )
        return {"changed": False, "hosts": len(opened.selected)}
