# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a stand-alone Python script on the node, sent over the connection's standard input.

One round trip, no temporary file, no Python that Ansible itself could use is needed on the node,
and check mode is the same run.
"""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

NO_PYTHON = "exectrail: no Python 3 here"
_PYTHONS = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "python3",
    *(f"python3.{minor}" for minor in range(14, 5, -1)),
)
_MODULES = Path(__file__).parent.parent / "modules"


class NodeScript(ActionBase):
    """An action whose module of the same name is such a script."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def ask(
        self, script: str, task_vars: dict[str, Any], request: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the script with a request; give what it wrote to `stdout` and `stderr`."""
        become = self._connection.become
        # Before ansible-core 2.19 a way to become root doesn't say whether it needs a terminal.
        pipes = become is None or getattr(become, "pipelining", become.name != "su")
        if self._connection.has_pipelining and pipes:
            data = (_MODULES / f"{script}.py").read_bytes()
            if request is not None:
                coded = base64.b64encode(json.dumps(request).encode())
                data = b'REQUEST = "' + coded + b'"\n' + data
            answer: dict[str, Any] = self._low_level_execute_command(
                _command(self._interpreter(task_vars)), in_data=data
            )
            return answer
        # su and some connections have no standard input to give: Ansible copies the script then.
        arguments = {} if request is None else {"request": request}
        answer = self._execute_module(module_args=arguments, task_vars=task_vars)
        said = str(answer.pop("module_stdout", ""))
        wrong = f"{answer.pop('module_stderr', '')}\n{answer.get('msg', '')}"
        if answer.keys() & {"evidence", "answer"} or (answer.get("failed") and not said):
            said = json.dumps(answer, separators=(",", ":"), default=str)
        return {"stdout": said, "stderr": wrong}

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        configured = self._templar.template(task_vars.get("ansible_python_interpreter") or "auto")
        return "" if str(configured).startswith("auto") else str(configured)


def _command(interpreter: str) -> str:
    """Build a POSIX shell line that runs standard input with the first Python 3 that is there."""
    names = " ".join(shlex.quote(name) for name in ((interpreter,) if interpreter else _PYTHONS))
    return (
        f'for p in {names}; do command -v "$p" >/dev/null 2>&1 && exec "$p" -I -; done; '
        f"echo {shlex.quote(NO_PYTHON)}; exit 127"
    )
