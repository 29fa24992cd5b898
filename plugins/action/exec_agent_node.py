# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""Reads an installation of the agent, decides what it needs, and changes it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.exectrail.audit.plugins.plugin_utils.node_script import NodeScript
from ansible_collections.exectrail.audit.plugins.plugin_utils.run_action import difference, plain

from exectrail.errors import UsageError
from exectrail.nodes import script
from exectrail.nodes.reachability import NO_PYTHON, explain
from exectrail.printable import printable_lines
from exectrail.site import agent


class ActionModule(NodeScript):
    """See the documentation of the module of the same name."""

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do what `do` says."""
        self._vars = task_vars
        does = {"build": self._build, "look": self._look, "decide": self._decide}
        return {"changed": False, **{**does, "change": self._change}[str(self._task.args["do"])]()}

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
        args = self._task.args
        asked = {name: str(args[name]) for name in ("kubeconfig", "log_folder")}
        return {"node": self._call("look", asked)}

    def _compared(self) -> tuple[agent.Node, agent.Wanted, agent.Decision]:
        args = self._task.args
        node = msgspec.convert(plain(args["node"]), agent.Node, strict=False)
        wanted = msgspec.convert(plain(args["wanted"]), agent.Wanted, strict=False)
        return node, wanted, agent.decide(node, wanted)

    def _decide(self) -> dict[str, Any]:
        node, _, plan = self._compared()
        found: dict[str, Any] = msgspec.to_builtins(plan)
        # Not to be made again from templates.
        return {**found, "installed": agent.version(node), "wanted": self._task.args["wanted"]}

    def _change(self) -> dict[str, Any]:
        args = self._task.args
        node, wanted, plan = self._compared()
        asked = {"python": wanted.python, "log_folder": str(args["log_folder"])}
        said: dict[str, Any] = {"changed": plan.work, "sensor": plan.sensor}
        if self._task.check_mode:
            pass
        elif wanted.state == "absent":
            said = self._call("uninstall", asked | {"remove_logs": wanted.remove_logs})
        else:
            program = base64.b64encode(Path(str(args["file"])).read_bytes()).decode()
            plans = {name: getattr(plan, name) for name in ("restart", "sensor", "trial")}
            wants = {"release": wanted.release, "files": wanted.files, "program": program}
            said = self._call("install", asked | plans | wants | {"seconds": int(args["seconds"])})
        return {
            **said,
            "diff": [difference(*row) for row in agent.changes(node, wanted, said["sensor"])],
        }

    def _call(self, do: str, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            said = self.ask({"exec_agent_node": {"do": do, **asked}}, self._vars)
        except AnsibleConnectionFailure as error:
            # As a failure, which a rescue can tell; Ansible drops a node that it calls unreachable.
            told = explain(str(error), str(self._vars["inventory_hostname"]))
            raise AnsibleActionFail(
                f"{told.problem}. {told.fix}", result={"unheard": True}
            ) from None
        if NO_PYTHON in said["stdout"]:
            raise AnsibleActionFail(
                f"there is no {self._interpreter(self._vars) or 'Python 3'} here: install Python "
                "3.8 or newer and name it in exec_agent_python"
            )
        host = str(self._vars["inventory_hostname"])
        try:
            return dict(script.answer(said["stdout"], said["stderr"], host))
        except UsageError as error:
            raise AnsibleActionFail(printable_lines(str(error))) from error

    def _interpreter(self, task_vars: dict[str, Any]) -> str:
        """Ask the Python that is to run the agent, for its version and its libraries count."""
        named = self._task.args.get("python")
        return str(named) if named else super()._interpreter(task_vars)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
