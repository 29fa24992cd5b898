"""The nodes of an Ansible inventory, and a shell line run on all of them at the same time.

Connections are as testinfra maps them from the inventory: ssh with its users, keys, ports and jump
hosts, or none for this machine. No terminal is asked for anything, and no node is waited for
longer than said.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import msgspec

from exectrail import playbook
from exectrail.errors import UsageError

_AT_ONCE = 32
"""Nodes asked at the same time."""
_SSH_FAILED = 255
_NAMES = ("ansible_host", "exec_agent_node_name")


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """Every host with its groups and with the names and addresses that it goes by.

    `selected` are those that the limit leaves; `raw` is what ansible-inventory says.
    """

    groups: dict[str, tuple[str, ...]]
    addresses: dict[str, tuple[str, ...]]
    selected: tuple[str, ...]
    raw: dict[str, Any]


class Answer(NamedTuple):
    """What a node said. `unreachable` says what ssh said instead; moments are epoch seconds."""

    host: str
    out: str
    err: str
    unreachable: str
    asked: float
    answered: float


def names(host: str, variables: Mapping[str, Any]) -> tuple[str, ...]:
    """Give the names and addresses that a host goes by, that in the inventory first."""
    found = [host, *(str(variables[name]) for name in _NAMES if variables.get(name))]
    return tuple(dict.fromkeys(found))


def load(sources: Sequence[str], limit: str | None = None) -> Inventory:
    """Read inventories with ansible-inventory; raise UsageError if that leaves no host."""
    limited = _start(playbook.selecting(sources, limit)) if limit else None
    raw = _end(_start(playbook.selecting(sources)))
    found = parse(raw)
    if limited:
        chosen = parse(_end(limited)).selected
        found = msgspec.structs.replace(found, selected=chosen)
    if not found.groups:
        raise UsageError("The inventory has no hosts: nothing would be checked. Name one with -i.")
    if not found.selected:
        raise UsageError(f"No host matches the limit {limit}: nothing would be checked.")
    return found


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ansible", "inventory", "--list", *arguments],
        env={**os.environ, "ANSIBLE_VERBOSITY": "0", "ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _end(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = child.communicate()
    try:
        found: dict[str, Any] = json.loads(out)
    except ValueError:
        said = " ".join(err.split()) or "ansible-inventory said nothing"
        raise UsageError(f"The inventory can't be read: {said}") from None
    return found


def parse(raw: dict[str, Any]) -> Inventory:
    """Turn what ``ansible-inventory --list`` prints into an inventory of which all is selected."""
    groups: dict[str, set[str]] = {}

    def enter(group: str, above: tuple[str, ...]) -> None:
        path = (*above, group)
        for host in raw.get(group, {}).get("hosts", ()):
            groups.setdefault(host, set()).update(path)
        for child in raw.get(group, {}).get("children", ()):
            enter(child, path)

    enter("all", ())
    variables = raw.get("_meta", {}).get("hostvars", {})
    return Inventory(
        groups={host: tuple(sorted(found)) for host, found in sorted(groups.items())},
        addresses={host: names(host, variables.get(host, {})) for host in sorted(groups)},
        selected=tuple(sorted(groups)),
        raw=raw,
    )


def ask(inventory: Inventory, lines: Mapping[str, str], *, seconds: float) -> Generator[Answer]:
    """Run its shell line on every host and give each answer as it comes, in any order.

    `seconds` is how long each may take, connecting included. What still runs when the caller
    closes the generator is ended.
    """
    connections = _Connections(inventory)
    children = _Children()
    with ThreadPoolExecutor(max_workers=min(max(len(lines), 1), _AT_ONCE)) as pool:
        waiting: list[Future[Answer]] = [
            pool.submit(_ask, connections, children, host, line, seconds)
            for host, line in lines.items()
        ]
        try:
            for each in as_completed(waiting):
                yield each.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            children.end()


def _ask(
    connections: _Connections, children: _Children, host: str, line: str, seconds: float
) -> Answer:
    asked = time.time()
    try:
        ended = connections.run(host, line, children, seconds)
    except subprocess.TimeoutExpired:
        return Answer(host, "", "", f"timed out after {seconds:.0f} s", asked, time.time())
    out, err = (text.decode("utf-8", "replace") for text in (ended.stdout, ended.stderr))
    refused = f"{err}\n" if ended.returncode == _SSH_FAILED else ""
    return Answer(host, out, err, refused, asked, time.time())


class _Connections:
    """testinfra's way to each host, with programs started and bounded here."""

    def __init__(self, inventory: Inventory) -> None:
        try:
            from testinfra.utils.ansible_runner import (  # type: ignore[import-untyped]  # noqa: PLC0415  an extra
                AnsibleRunner,
            )
        except ImportError as error:
            raise UsageError(
                f"pytest-testinfra is not installed for {sys.executable}: "
                "pip install pytest-testinfra"
            ) from error
        self._runner = AnsibleRunner()
        # It would ask ansible-inventory itself, for one source only.
        self._runner.inventory = inventory.raw

    def run(
        self, host: str, line: str, children: _Children, seconds: float
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the line there; raise subprocess.TimeoutExpired."""
        connected = self._runner.get_host(host)
        if connected is None:
            said = "its ansible_connection is none that testinfra knows"
            return subprocess.CompletedProcess("", _SSH_FAILED, b"", said.encode())
        # testinfra gives hosts with the same address the same one.
        backend = copy.copy(connected.backend)
        done: list[subprocess.CompletedProcess[bytes]] = []

        def run_local(command: str, *arguments: str) -> Any:
            ended = children.run(backend.quote(command, *arguments), seconds)
            done.append(ended)
            return backend.result(ended.returncode, b"", ended.stdout, ended.stderr)

        backend.run_local = run_local
        with contextlib.suppress(RuntimeError):  # for ssh's own exit status, which is in `done`
            backend.run(line)
        return done[-1]


class _Children:
    """Programs under way, each the leader of a process group without a terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._over = False

    def run(self, line: str, seconds: float) -> subprocess.CompletedProcess[bytes]:
        """Run a line of shell here; raise subprocess.TimeoutExpired when its time is over."""
        with self._lock:
            if self._over:
                return subprocess.CompletedProcess(line, _SSH_FAILED, b"", b"interrupted")
            child = subprocess.Popen(
                ["/bin/sh", "-c", line],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(child)
        try:
            out, err = child.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(child)
            child.communicate()
            raise
        finally:
            with self._lock:
                self._running.discard(child)
        return subprocess.CompletedProcess(line, child.returncode, out, err)

    def end(self) -> None:
        """End what runs and let nothing new begin."""
        with self._lock:
            self._over = True
            for child in self._running:
                _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
