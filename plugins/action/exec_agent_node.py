# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Reads an installation of the agent, decides what it needs, and waits until it sees."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from ansible.errors import AnsibleActionFail
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import (
    NO_PYTHON,
    NodeScript,
)

from exectrail.compliance.hostile import printable
from exectrail.compliance.reachability import explain
from exectrail.site import agent


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Do what `do` says; never changes anything on a node."""
        super().run(tmp, task_vars)
        del tmp
        self._vars = task_vars or {}
        does = {"build": self._build, "look": self._look, "decide": self._decide}
        return {"changed": False, **{**does, "await": self._await}[str(self._task.args["do"])]()}

    def _build(self) -> dict[str, Any]:
        file, checkout = (str(self._task.args.get(name) or "") for name in ("file", "checkout"))
        if not file:
            built = _run(
                "make", "--silent", "--no-print-directory", f"--directory={checkout}", "agent"
            )
            if built.returncode:
                raise AnsibleActionFail(f"The agent can't be built: {built.stderr.strip()}")
        path = Path(file or f"{checkout}/build/exectrail-agent.pyz").resolve()
        if not path.is_file():
            raise AnsibleActionFail(
                f"There is no {path} on this machine: `make agent` builds one, as "
                "build/exectrail-agent.pyz."
            )
        said = _run(sys.executable, "-I", str(path), "--version")
        if said.returncode:
            raise AnsibleActionFail(f"{path} does not tell its version: {said.stderr.strip()}")
        version = said.stdout.strip()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return {
            "path": str(path),
            "version": version,
            "digest": digest,
            "release": f"{version}-{digest[:12]}",
        }

    def _look(self) -> dict[str, Any]:
        return {"node": self._call("kubeconfig", "log_folder")}

    def _decide(self) -> dict[str, Any]:
        args = self._task.args
        node = msgspec.convert(_plain(args["node"]), agent.Node, strict=False)
        wanted = msgspec.convert(_plain(args["wanted"]), agent.Wanted, strict=False)
        found: dict[str, Any] = msgspec.to_builtins(agent.decide(node, wanted))
        return {**found, "installed": agent.version(node)}

    def _await(self) -> dict[str, Any]:
        seconds = int(self._task.args["seconds"])
        problem = self._call("log_folder", seconds=seconds)["problem"]
        if problem:
            raise AnsibleActionFail(
                f"The agent is not healthy after {seconds} s: {printable(problem, limit=1000)}"
            )
        return {}

    def _call(self, *arguments: str, **more: Any) -> dict[str, Any]:
        asked = {name: str(self._task.args[name]) for name in ("do", *arguments)} | more
        said = self.ask("exec_agent_node", self._vars, asked)
        for line in reversed(said["stdout"].splitlines()):
            if line.startswith("{"):
                answer = json.loads(line)
                if "answer" in answer:
                    return dict(answer["answer"])
        text = f"{said['stdout']}\n{said['stderr']}"
        if NO_PYTHON in text:
            raise AnsibleActionFail(
                f"there is no {self._interpreter(self._vars) or 'Python 3'} here: install Python "
                "3.8 or newer and name it in exec_agent_python"
            )
        obstacle = explain(text, str(self._vars["inventory_hostname"]))
        raise AnsibleActionFail(f"{obstacle.problem}. {obstacle.fix}")

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        """Ask the Python that is to run the agent, for its version and its libraries count."""
        named = self._task.args.get("python")
        return str(named) if named else super()._interpreter(task_vars)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def _plain(value: Any) -> Any:
    """Turn Ansible's tagged data into plain data."""
    return json.loads(json.dumps(value, default=str))
