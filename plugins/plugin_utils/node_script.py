# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs node scripts, sent over the connection's standard input.

One round trip, no temporary file, no Python that Ansible itself could use is needed on the node,
and check mode is the same run.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import Action

from exectrail.compliance import collect, evidence, run
from exectrail.compliance.model import Evidence
from exectrail.nodes import script
from exectrail.nodes.reachability import explain

_MODULES = Path(__file__).parent.parent / "modules"


class NodeScript(Action):
    """An action whose work is done by such scripts, which are modules of the collection."""

    _requires_connection = True

    def answer(self, name: str, request: dict[str, Any], task_vars: dict[str, Any]) -> Any:
        """Give the answer of one script; raise `script.Refused` or `script.Unheard`."""
        host = str(task_vars["inventory_hostname"])
        try:
            said = self.ask({name: request}, task_vars)
        except AnsibleError as error:
            raise script.Unheard(explain(str(error), host)) from error
        return script.answer(said["stdout"], said["stderr"], host)

    def evidence(
        self,
        directory: Path,
        task_vars: dict[str, Any],
        requests: dict[str, dict[str, Any]],
        **known: Any,
    ) -> Evidence:
        """Read the node and keep its evidence with the run in `directory`; raise OSError.

        `requests` are those of its scripts, `known` variables that are known before.
        """
        host = str(task_vars["inventory_hostname"])
        variables = {
            # Plain text: Ansible hands out strings of a type of its own.
            str(name): str(value)
            for name, value in (self._task.args.get("variables") or {}).items()
            if value not in (None, "")
        }
        groups = tuple(sorted(str(group) for group in task_vars.get("group_names", ())))
        about: dict[str, Any] = {"groups": groups, "variables": variables | known}
        asked = time.time()
        try:
            said = self.ask(requests, task_vars)
        except AnsibleError as error:
            found = collect.unreachable(host, str(error), **about)
        else:
            if known:
                about["variables"] |= {"asked": asked, "answered": time.time()}
            found = collect.from_output(host, said["stdout"], said["stderr"], **about)
        evidence.save(found, run.evidence_path(directory, host))
        return found

    def ask(self, requests: dict[str, dict[str, Any]], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the scripts named, each with its request; give what they wrote, by stdout, stderr."""
        program = script.program(_MODULES, requests)
        line = script.from_input(self._interpreter(task_vars))
        become = self._connection.become
        # Before ansible-core 2.19 a way to become root doesn't say whether it needs a terminal.
        pipes = become is None or getattr(become, "pipelining", become.name != "su")
        answer: dict[str, Any]
        if self._connection.has_pipelining and pipes:
            answer = self._low_level_execute_command(line, in_data=program.encode())
            return answer
        # su and some connections have no standard input to give.
        folder = self._make_tmp_path()
        try:
            path = f"{folder}/program.py"
            self._transfer_data(path, program)
            self._fixup_perms2((folder, path))
            answer = self._low_level_execute_command(f"exec <{shlex.quote(path)}; {line}")
            return answer
        finally:
            self._remove_tmp_path(folder)

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        configured = self._templar.template(task_vars.get("ansible_python_interpreter") or "auto")
        return "" if str(configured).startswith("auto") else str(configured)
