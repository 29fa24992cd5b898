# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs stand-alone Python scripts on the node, sent over the connection's standard input.

One round trip, no temporary file, no Python that Ansible itself could use is needed on the node,
and check mode is the same run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from exectrail.compliance.bundle import NO_PYTHON, Script, bundle, from_input

__all__ = ["NO_PYTHON", "NodeScript"]

_MODULES = Path(__file__).parent.parent / "modules"


class NodeScript(ActionBase):
    """An action whose work is done by such scripts, which are modules of the collection."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def ask(
        self, script: str, task_vars: dict[str, Any], request: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run one script with a request; give what it wrote to `stdout` and `stderr`."""
        return self.ask_all({script: request}, task_vars)

    def ask_all(
        self, requests: dict[str, dict[str, Any] | None], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        """Run the scripts named, each with its request, side by side in one call."""
        become = self._connection.become
        # Before ansible-core 2.19 a way to become root doesn't say whether it needs a terminal.
        pipes = become is None or getattr(become, "pipelining", become.name != "su")
        if self._connection.has_pipelining and pipes:
            scripts = [
                Script(name, (_MODULES / f"{name}.py").read_text(encoding="utf-8"), request)
                for name, request in requests.items()
            ]
            answer: dict[str, Any] = self._low_level_execute_command(
                from_input(self._interpreter(task_vars)), in_data=bundle(scripts).encode()
            )
            return answer
        # su and some connections have no standard input to give: Ansible copies each script then.
        answers = [self._copied(*each, task_vars) for each in requests.items()]
        return {key: "\n".join(each[key] for each in answers) for key in ("stdout", "stderr")}

    def _copied(
        self, script: str, request: dict[str, Any] | None, task_vars: dict[str, Any]
    ) -> dict[str, str]:
        arguments = {} if request is None else {"request": request}
        answer = self._execute_module(
            module_name=f"exectrail.audit.{script}", module_args=arguments, task_vars=task_vars
        )
        said = str(answer.pop("module_stdout", ""))
        wrong = f"{answer.pop('module_stderr', '')}\n{answer.get('msg', '')}"
        if answer.keys() & {"evidence", "answer"} or (answer.get("failed") and not said):
            said = json.dumps(answer, separators=(",", ":"), default=str)
        return {"stdout": said, "stderr": wrong}

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        configured = self._templar.template(task_vars.get("ansible_python_interpreter") or "auto")
        return "" if str(configured).startswith("auto") else str(configured)
