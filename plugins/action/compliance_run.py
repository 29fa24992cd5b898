# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Opens and closes a compliance run on the controller; never connects to a node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.color import ANSIBLE_COLOR
from ansible.utils.display import Display

try:
    from exectrail.compliance import run
    from exectrail.compliance.render import console
    from exectrail.compliance.render.write import write_reports
    from exectrail.compliance.verdict import judge
    from exectrail.errors import UsageError
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ``changed: false``; fail with one message when the request or the fleet is bad."""
        super().run(tmp, task_vars)
        del tmp
        if MISSING:
            raise AnsibleError(
                f"{MISSING}. Install the package exectrail for the Python that runs Ansible: "
                f"{sys.executable} -m pip install {Path(__file__).resolve().parents[2]}"
            )
        directory = Path(str(self._task.args["report_dir"]))
        try:
            if self._task.args["stage"] == "begin":
                return self._begin(directory, task_vars or {})
            return _finish(directory)
        except UsageError as error:
            return {"failed": True, "msg": str(error)}

    def _begin(self, directory: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        args = self._task.args
        groups = task_vars["groups"]
        inventory: dict[str, list[str]] = {str(host): [] for host in groups["all"]}
        for group, hosts in groups.items():
            for host in hosts:
                inventory.setdefault(str(host), []).append(str(group))
        opened = run.begin(
            directory,
            profile=str(args["profile"]),
            waivers=str(args.get("waivers") or ""),
            strict=boolean(args.get("strict", False)),
            selected=[str(host) for host in task_vars["ansible_play_hosts_all"]],
            inventory=inventory,
            run_id=str(args["run_id"]) if args.get("run_id") else None,
        )
        return {"changed": False, "hosts": len(opened.selected)}


def _finish(directory: Path) -> dict[str, Any]:
    report = run.finish(directory)
    display = Display()
    display.display(console.render(report, colour=bool(ANSIBLE_COLOR)).rstrip("\n"))
    files = write_reports(report, directory)
    display.display(f"Reports: {' '.join(str(path) for path in files.values())}", stderr=True)
    gates = report.profile.gates
    return {
        "changed": False,
        "verdict": str(report.verdict),
        "exit_code": report.exit_code,
        "verdicts": {
            host.host: str(judge([host], gates, strict=report.strict)) for host in report.hosts
        },
        "files": {kind: str(path) for kind, path in files.items()},
    }
