"""Runs one of the project's playbooks with ansible-playbook, as a child that may be interrupted."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exectrail.errors import UsageError

_CHECKOUT = Path(__file__).resolve().parents[2]
_INTERRUPTED = 99
"""ansible-playbook's exit status."""


def run(name: str, variables: Mapping[str, Any], arguments: Sequence[str]) -> bool:
    """Run playbook `name` and wait; True if it was interrupted or killed.

    A variable that is None or False, as options are that were not given, is left to the inventory.
    The playbook of a checkout is preferred; an installed package uses that of the collection
    ``exectrail.audit``. What the run found is read from its report, not from an exit status.
    """
    if importlib.util.find_spec("ansible") is None:
        raise UsageError(
            f"ansible-core is not installed for {sys.executable}: pip install 'exectrail[ansible]'"
        )
    checkout = _CHECKOUT / "playbooks" / f"{name}.yml"
    command = [
        *(sys.executable, "-m", "ansible", "playbook"),
        str(checkout) if checkout.exists() else f"exectrail.audit.{name}",
        *arguments,
        *("--extra-vars", json.dumps(_given(variables))),
    ]
    environment = {**os.environ, "ANSIBLE_STDOUT_CALLBACK": "exectrail.audit.progress"}
    if checkout.exists() and not _user_has_configuration():
        environment["ANSIBLE_CONFIG"] = str(_CHECKOUT / "ansible.cfg")
    child = subprocess.Popen(command, env=environment, stdin=None)
    # Who ends us alone, as a CI server does, means Ansible too.
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
    interrupted = False
    while True:
        try:
            status = child.wait()
        except KeyboardInterrupt:
            # The terminal has sent it to Ansible too, which ends its ssh children and stops.
            interrupted = True
        else:
            return interrupted or status < 0 or status == _INTERRUPTED


def _given(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: str(value.absolute()) if isinstance(value, Path) else value
        for name, value in variables.items()
        if value is not None and value is not False
    }


def _user_has_configuration() -> bool:
    return (
        "ANSIBLE_CONFIG" in os.environ
        or Path("ansible.cfg").exists()
        or (Path.home() / ".ansible.cfg").exists()
        or Path("/etc/ansible/ansible.cfg").exists()
    )


def selecting(sources: Sequence[str], limit: str | None = None) -> list[str]:
    """Return the arguments that name inventories and hosts to Ansible's programs.

    Raise UsageError for an inventory that isn't there; Ansible would go on without it.
    """
    for source in sources:
        if "," not in source and not Path(source).exists():
            raise UsageError(
                f"There is no inventory {source}. Give the path of one with -i; "
                "a list of names needs a comma: -i node1,"
            )
    named = [argument for source in sources for argument in ("-i", source)]
    return [*named, "--limit", limit] if limit else named
