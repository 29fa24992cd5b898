# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the evidence script on the node and keeps its answer on the controller.

The script goes over the connection's standard input in one round trip: no temporary file, no
Python that Ansible itself could use is needed on the node, and check mode is the same run.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from exectrail.compliance import evidence, run
from exectrail.compliance.model import Evidence, HostState
from exectrail.compliance.reachability import Obstacle, explain
from exectrail.errors import UsageError

SCRIPT = Path(__file__).parent.parent / "modules" / "node_evidence.py"
PYTHONS = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "python3",
    *(f"python3.{minor}" for minor in range(14, 5, -1)),
)
NO_PYTHON = "exectrail: no Python 3 here"


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ``changed: false`` and whether the node could be read."""
        super().run(tmp, task_vars)
        del tmp
        task_vars = task_vars or {}
        host = str(task_vars["inventory_hostname"])
        directory = Path(self._task.args["report_dir"])
        found = self._collect(host, task_vars)
        try:
            evidence.save(found, run.evidence_path(directory, host))
        except (OSError, UsageError) as error:
            return {"failed": True, "msg": f"The evidence of {host} can't be kept: {error}"}
        if found.state is HostState.UNREACHABLE:
            return {"unreachable": True, "msg": f"{host}: {found.problem}. {found.fix}"}
        return {"changed": False, "items": len(found.items), "problem": found.problem}

    def _collect(self, host: str, task_vars: dict[str, Any]) -> Evidence:
        variables = {
            # Plain text: Ansible hands out strings of a type of its own.
            str(name): str(value)
            for name, value in (self._task.args.get("variables") or {}).items()
            if value not in (None, "")
        }
        groups = tuple(sorted(str(group) for group in task_vars.get("group_names", ())))
        common: dict[str, Any] = {"host": host, "groups": groups, "variables": variables}
        try:
            answer = self._ask(task_vars)
        except AnsibleError as error:
            return _unreachable(explain(str(error), host), common)
        for line in reversed(answer["stdout"].splitlines()):
            if line.startswith('{"changed"'):
                return Evidence(items=json.loads(line)["evidence"]["items"], **common)
        said = f"{answer['stdout']}\n{answer['stderr']}"
        if NO_PYTHON in said:
            return Evidence(
                items={"python.interpreters": []},
                problem="the node has no Python 3",
                fix="apt-get install python3 || dnf install python3 || zypper install python3",
                **common,
            )
        return _unreachable(explain(said, host), common)

    def _ask(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run the script; give what it wrote to `stdout` and `stderr`."""
        become = self._connection.become
        # Before ansible-core 2.19 a way to become root doesn't say whether it needs a terminal.
        pipes = become is None or getattr(become, "pipelining", become.name != "su")
        if self._connection.has_pipelining and pipes:
            answer: dict[str, Any] = self._low_level_execute_command(
                _command(self._interpreter(task_vars)), in_data=SCRIPT.read_bytes()
            )
            return answer
        # su and some connections have no standard input to give: Ansible copies the script then.
        answer = self._execute_module(task_vars=task_vars)
        if "evidence" in answer:
            answer = {"changed": False, "evidence": answer["evidence"]}
            return {"stdout": json.dumps(answer, separators=(",", ":")), "stderr": ""}
        return {
            "stdout": str(answer.get("module_stdout", "")),
            "stderr": f"{answer.get('module_stderr', '')}\n{answer.get('msg', '')}",
        }

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        configured = self._templar.template(task_vars.get("ansible_python_interpreter") or "auto")
        return "" if str(configured).startswith("auto") else str(configured)


def _unreachable(obstacle: Obstacle, common: dict[str, Any]) -> Evidence:
    return Evidence(
        state=HostState.UNREACHABLE, problem=obstacle.problem, fix=obstacle.fix, **common
    )


def _command(interpreter: str) -> str:
    """Build a POSIX shell line that runs standard input with the first Python 3 that is there."""
    names = " ".join(shlex.quote(name) for name in ((interpreter,) if interpreter else PYTHONS))
    return (
        f'for p in {names}; do command -v "$p" >/dev/null 2>&1 && exec "$p" -I -; done; '
        f"echo {shlex.quote(NO_PYTHON)}; exit 127"
    )
