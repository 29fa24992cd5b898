# Copyright: the Exectrail authors
# SPDX-License-Identifier: Apache-2.0
"""What the actions have in common: a request that can't be met is one failure, with its words."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

try:
    import jinja2  # noqa: F401  what the package needs, so that its absence is said here
    import msgspec  # noqa: F401
    import yaml  # noqa: F401

    from exectrail.errors import UsageError
except ImportError as error:
    MISSING: ImportError | None = error
else:
    MISSING = None
"""Why the package can't be used; nothing of it can be imported then."""


class Action(ActionBase):
    """Subclasses implement `perform`; a UsageError that it raises is one failure."""

    _supports_check_mode = True
    _supports_async = False

    def perform(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Do what the task's arguments say and give its result."""
        raise NotImplementedError

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what was done, or fail with one message when the request is bad."""
        super().run(tmp, task_vars)
        del tmp
        if MISSING:
            raise AnsibleError(
                f"{MISSING}. Install the package exectrail for the Python that runs Ansible: "
                f"{sys.executable} -m pip install {Path(__file__).resolve().parents[2]}"
            )
        try:
            return self.perform(task_vars or {})
        except UsageError as error:
            return {"failed": True, "msg": str(error)}


class RunAction(Action):
    """One that works on the run's folder on the controller and never connects to a node."""

    _requires_connection = False

    @staticmethod
    def inventory(task_vars: dict[str, Any]) -> dict[str, list[str]]:
        """Return every host with its groups."""
        groups = task_vars["groups"]
        found: dict[str, list[str]] = {str(host): [] for host in groups["all"]}
        for group, hosts in groups.items():
            for host in hosts:
                found.setdefault(str(host), []).append(str(group))
        return found

    def must_have_begun(self, task_vars: dict[str, Any], registered: str) -> None:
        """Raise UsageError unless the run's first step has registered its result by this name."""
        if registered not in task_vars:
            raise UsageError(
                "This run was not begun, so it can't go on here: leave --start-at-task out. "
                "What is right already is left alone; --tags chooses a part."
            )


def plain(value: Any) -> Any:
    """Turn Ansible's own kinds of text, lists and mappings into plain data."""
    return json.loads(json.dumps(value, default=_builtin))


def _builtin(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return str(value)


def difference(name: str, before: str, after: str) -> dict[str, str]:
    """Give a row of a task's result, from which Ansible shows what has changed."""
    return {"before_header": name, "after_header": name, "before": before, "after": after}
