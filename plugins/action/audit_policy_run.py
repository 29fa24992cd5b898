# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Opens, decides and sums up a roll-out on the controller; never connects to a node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import (
    MISSING,
    RunAction,
    plain,
)

if not MISSING:
    from exectrail.audit_policy.rollout import run
    from exectrail.printable import printable


class ActionModule(RunAction):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Return ``changed: false``."""
        directory = Path(str(self._task.args["run_dir"]))
        if self._task.args["stage"] == "begin":
            return self._begin(directory, task_vars)
        return _plan(directory)

    def _begin(self, directory: Path, task_vars: dict[str, Any]) -> dict[str, Any]:
        settings = plain(self._task.args["settings"])
        group = str(settings.pop("masters_group"))
        masters = [str(host) for host in task_vars["groups"].get(group, ())]
        selected = [str(host) for host in task_vars["ansible_play_hosts_all"]]
        begun = run.begin(directory, {**settings, "masters": masters, "selected": selected})
        return {
            "changed": False,
            "others": [host for host in begun.masters if host not in begun.selected],
            "first": begun.masters[0],
        }


def _plan(directory: Path) -> dict[str, Any]:
    made = run.make_plan(directory)
    display = Display()
    for note in made.notes:
        display.display(printable(note, limit=2000))
    if made.not_applicable:
        display.display(f"Not applicable: {printable(made.not_applicable, limit=2000)}")
    for host, change in made.changes.items():
        display.display(f"{host}: to change, because {', '.join(change.reasons)}")
    if made.differing:
        display.display(
            f"Left out by the limit, and different from these settings: {', '.join(made.differing)}"
        )
    if not (made.changes or made.not_applicable or made.differing):
        display.display("Every master has the settings, and its API server obeys them.")
    return {
        "changed": False,
        "changes": list(made.changes),
        "kubeadm": made.kubeadm is not None,
        "leaving": list(made.leaving),
        "applicable": not made.not_applicable,
        "notes": list(made.notes),
        "differing": list(made.differing),
    }
