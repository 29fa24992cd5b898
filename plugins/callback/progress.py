# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Phases, a line for each node that has been read, and for each step that lasts
version_added: 0.1.0
description:
  - Shows the phases of a run, one line for each node whose evidence has been read, one for each
    step that has taken more than two seconds, differences if they are asked for, and every failure
    in full.
  - Verdicts and summaries are printed by the run; this plugin judges nothing.
author:
  - The Exectrail authors (@exectrail)
extends_documentation_fragment:
  - ansible.builtin.default_callback
"""

READ = "exectrail.audit.node_evidence"
RUN = "exectrail.audit.compliance_run"
_OURS = "exectrail.audit."
# Their failures are of the run, not of the node that they happened to be carried out for.
_RUNS = (RUN, *(f"{_OURS}{name}_run" for name in ("audit_policy", "remediation", "site")))
_LONG_SECONDS = 2
# Of a result, what may tell why it has failed; never what it was asked with.
_TELLING = ("msg", "stderr", "stdout", "module_stderr", "module_stdout", "reason")


class CallbackModule(CallbackBase):
    """Counts nodes as their evidence arrives, and seconds as steps go by."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "exectrail.audit.progress"

    def __init__(self) -> None:
        super().__init__()
        self._expected = 0
        self._done = 0
        self._judged = False
        self._phase = ""
        self._started: dict[str, float] = {}

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Say so if the playbook had nothing to do."""
        if not stats.processed:
            self._display.error("No host matched: nothing was checked.")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Remember the phase; it is shown when something of it is."""
        self._judged = False
        self._phase = play.get_name().strip()

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Note when the node was asked."""
        del task
        self._started[host.get_name()] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a node that was read, or a step that has taken its time."""
        host, action, values = _parts(result)
        if action == RUN and "hosts" in values:
            self._expected, self._done = values["hosts"], 0
            self._show(f"Reading {self._expected} nodes")
        elif action == RUN:
            self._judged = True
        elif action == READ:
            self._line(host, values.get("problem") or "read")
        else:
            self._step(host, _name(result), values)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002
        """Print why a node or the run failed; a verdict has been printed already."""
        del ignore_errors
        host, action, values = _parts(result)
        if action == READ:
            self._line(host, str(values.get("msg", "failed")))
        elif action in _RUNS:
            self._error(str(values.get("msg", "failed")))
        elif action.startswith(_OURS):
            told = str(values.get("msg", "failed"))
            self._error(told if host in told else f"{host}: {told}")
        elif not (self._judged and action.endswith("assert")):
            items = [one for one in values.get("results", ()) if one.get("failed")]
            why = "\n".join(_told(one) for one in items or [values])
            self._error(f"{host}: {_name(result)}: {why}")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print a node that could not be read."""
        host, action, values = _parts(result)
        text = str(values.get("msg", "unreachable")).removeprefix(f"{host}: ")
        if action == READ:
            self._line(host, text)
        else:
            self._error(f"{host}: {text}")

    def v2_on_file_diff(self, result: Any) -> None:
        """Show what changes in files, if that was asked for."""
        _, _, values = _parts(result)
        for one in values.get("results") or [values]:
            if one.get("changed") and one.get("diff"):
                self._show(self._get_diff(one["diff"]).rstrip("\n"))

    def _line(self, host: str, text: str) -> None:
        self._done += 1
        width = len(str(self._expected))
        self._show(
            f"[{self._done:>{width}}/{self._expected}] {host}  {text} ({self._seconds(host):.1f} s)"
        )

    def _step(self, host: str, name: str, values: dict[str, Any]) -> None:
        if (seconds := self._seconds(host)) >= _LONG_SECONDS:
            changed = "changed" if values.get("changed") else "ok"
            self._show(f"  {host}  {name}: {changed} ({seconds:.1f} s)")

    def _seconds(self, host: str) -> float:
        return time.monotonic() - self._started.get(host, time.monotonic())

    def _error(self, message: str) -> None:
        self._head()
        self._display.error(message, wrap_text=False)

    def _show(self, text: str) -> None:
        self._head()
        self._display.display(text)

    def _head(self) -> None:
        """Show the phase when it has something to show."""
        if self._phase:
            self._display.display(f"== {self._phase}")
            self._phase = ""


def _told(values: dict[str, Any]) -> str:
    found = [str(values[name]).strip() for name in _TELLING if values.get(name)]
    return "\n".join(dict.fromkeys(found)) or str(values.get("censored", "failed"))


def _name(result: Any) -> str:
    """Give the name of the task, without that of its role."""
    task = result.task if hasattr(result, "task") else result._task  # noqa: SLF001
    return str(task.name or task.action)


def _parts(result: Any) -> tuple[str, str, dict[str, Any]]:
    """Give host, action and values; the public names are there from ansible-core 2.19 on."""
    if hasattr(result, "host"):
        return str(result.host), result.task.action, result.result
    return str(result._host), result._task.action, result._result  # noqa: SLF001
