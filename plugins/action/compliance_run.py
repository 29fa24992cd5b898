# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Opens and closes a compliance run on the controller; never connects to a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.utils.color import ANSIBLE_COLOR
from ansible.utils.display import Display
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import (
    MISSING,
    RunAction,
)

if not MISSING:
    from exectrail.compliance import run
    from exectrail.compliance.model import Verdict
    from exectrail.compliance.render import console
    from exectrail.compliance.render.write import write_reports
    from exectrail.compliance.verdict import blocked, judge
    from exectrail.hostnames import fold
    from exectrail.nodes import fleet


class ActionModule(RunAction):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false``."""
        directory = Path(str(self._task.args["report_dir"]))
        if self._task.args["stage"] == "begin":
            return self._begin(directory, task_vars)
        self.must_have_begun(task_vars, "__preflight_begun")
        return _finish(directory)

    def _begin(self, directory: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        args = self._task.args
        inventory = self.inventory(task_vars)
        addresses = {}
        if boolean(args.get("installation", False)):
            variables = task_vars["hostvars"]
            addresses = {host: fleet.names(host, variables[host]) for host in inventory}
        opened = run.begin(
            directory,
            profile=str(args["profile"]),
            waivers=str(args.get("waivers") or ""),
            strict=boolean(args.get("strict", False)),
            selected=[str(host) for host in task_vars["ansible_play_hosts_all"]],
            inventory=inventory,
            addresses=addresses,
            run_id=str(args["run_id"]) if args.get("run_id") else None,
        )
        return {"changed": False, "hosts": len(opened.selected)}


def _finish(directory: Path) -> dict[str, Any]:
    report = run.finish(directory)
    display = Display()
    display.display(console.render(report, colour=bool(ANSIBLE_COLOR)).rstrip("\n"))
    files = write_reports(report, directory)
    display.display(f"Reports: {' '.join(str(path) for path in files.values())}", stderr=True)
    unfit: dict[Verdict, list[str]] = {}
    for host in report.hosts:
        verdict = judge([host], report.profile.gates, strict=report.strict)
        if verdict is not Verdict.FIT:
            unfit.setdefault(verdict, []).append(host.host)
    told = [f"{fold(hosts)}: {verdict}" for verdict, hosts in unfit.items()]
    return {
        "changed": False,
        "verdict": str(report.verdict),
        "exit_code": report.exit_code,
        "unfit": "\n".join([*told, f"{files['html']} says why."]) if told else "",
        "blocked": blocked(report),
        "files": {kind: str(path) for kind, path in files.items()},
    }
