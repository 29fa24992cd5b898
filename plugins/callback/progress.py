# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: One line for each node that has been read
version_added: 0.1.0
description:
  - Shows a compliance run as one line per node, and every failure of the run itself in full.
  - The verdict is printed by the run; this plugin judges nothing.
author:
  - The Exectrail authors (@exectrail)
extends_documentation_fragment:
  - ansible.builtin.default_callback
"""

READ = "exectrail.audit.node_evidence"
RUN = "exectrail.audit.compliance_run"


class CallbackModule(CallbackBase):
    """Counts nodes as their evidence arrives."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "exectrail.audit.progress"

    def __init__(self) -> None:
        super().__init__()
        self._expected = 0
        self._done = 0
        self._judged = False
        self._started: dict[str, float] = {}

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Say so if the playbook had nothing to do."""
        if not stats.processed:
            self._display.error("No host matched: nothing was checked.")

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note when the node was asked."""
        if task.action == READ:
            self._started[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a node that was read."""
        host, action, values = _parts(result)
        if action == RUN and "hosts" in values:
            self._expected = values["hosts"]
            self._display.display(f"Reading {self._expected} nodes")
        elif action == RUN:
            self._judged = True
        elif action == READ:
            self._line(host, values.get("problem") or "read")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002
        """Print why a node or the run failed; a verdict has been printed already."""
        del ignore_errors
        host, action, values = _parts(result)
        message = str(values.get("msg", "failed"))
        if action == READ:
            self._line(host, message)
        elif not self._judged:
            self._display.error(message, wrap_text=False)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print a node that could not be read."""
        host, _action, values = _parts(result)
        self._line(host, str(values.get("msg", "unreachable")).removeprefix(f"{host}: "))

    def _line(self, host: str, text: str) -> None:
        self._done += 1
        width = len(str(self._expected))
        seconds = time.monotonic() - self._started.get(host, time.monotonic())
        self._display.display(
            f"[{self._done:>{width}}/{self._expected}] {host}  {text} ({seconds:.1f} s)"
        )


def _parts(result: Any) -> tuple[str, str, dict[str, Any]]:
    """Give host, action and values; the public names are there from ansible-core 2.19 on."""
    if hasattr(result, "host"):
        return str(result.host), result.task.action, result.result
    return str(result._host), result._task.action, result._result  # noqa: SLF001
