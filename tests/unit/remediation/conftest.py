"""A node in a folder: the files of a machine, and stand-ins for the programs that change it.

Units are files in ``units/`` that hold whether they are active, packages files in ``pkg/`` that
hold their version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.scripts import load

WANTS = "etc/systemd/system/timers.target.wants"


class Killed(BaseException):
    """Stands for the end of the process in the middle: nothing may catch it."""


class Machine:
    """The node, and the script as it is sent to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.module = load("node_repair")
        self.candidate = "1.1.0"
        self.fresh = False
        self.broken: set[str] = set()
        self.calls: list[list[str]] = []
        for folder in ("etc/systemd/system", "run", "units", "pkg"):
            (root / folder).mkdir(parents=True)

    def start(self, command: list[str], _seconds: int = 0) -> tuple[int, str, str]:
        """Stand in for Node.start: exit code and what was said."""
        program, *words = command
        if words[0] in self.broken:
            return 1, "", f"Failed to {words[0]} {words[-1]}: as the test wants\n"
        if words[0] != "show":
            self.calls.append(command)
        does = {
            "systemctl": self._systemctl,
            "apt-get": self._apt_get,
            "apt-cache": lambda *_: f"{words[-1]}:\n  Candidate: {self.candidate}\n",
            "dpkg-query": self._dpkg_query,
            "dpkg": lambda _, name: (self.root / "pkg" / name).unlink(),
        }
        said = does[program](*words)
        return (100, "", "E: as the test wants") if said is False else (0, said or "", "")

    def _systemctl(self, verb: str, *words: str) -> str | None:
        if verb == "daemon-reload":
            return None
        name = words[-1]
        unit, link = self.root / "units" / name, self.root / WANTS / name
        masked = (self.root / "etc/systemd/system" / name).is_symlink()
        if verb == "show":
            load = "masked" if masked else "loaded" if unit.exists() else "not-found"
            enabled = "masked" if masked else "enabled" if link.is_symlink() else "disabled"
            active = unit.read_text().strip() if unit.exists() else "inactive"
            return f"LoadState={load}\nUnitFileState={enabled}\nActiveState={active}\n"
        if verb == "enable":
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(f"/lib/systemd/system/{name}")
        elif verb == "disable" and "--runtime" not in words:
            link.unlink(missing_ok=True)
        elif verb in ("start", "stop"):
            unit.write_text("active\n" if verb == "start" else "inactive\n")
        return None

    def _apt_get(self, *words: str) -> bool | None:
        if words[-1] == "update":
            self.fresh = True
        elif not self.fresh:
            return False
        else:
            (self.root / "pkg" / words[-1]).write_text("1.1.0")
        return None

    def _dpkg_query(self, *words: str) -> str | bool:
        package = self.root / "pkg" / words[-1]
        return package.exists() and f"ii {package.read_text()}"

    def unit(self, name: str, *, on: bool) -> None:
        (self.root / "units" / name).write_text("active\n" if on else "inactive\n")
        if on:
            (self.root / WANTS).mkdir(exist_ok=True)
            (self.root / WANTS / name).symlink_to(f"/lib/systemd/system/{name}")

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Give the script's answer, or {"refused": why}."""
        asked = json.loads(json.dumps({"do": do, "check": "node.test", "dry": False, **request}))
        node = self.module.Node(str(self.root))
        try:
            answer: dict[str, Any] = self.module.DOES[do](node, asked)
        except (self.module.Refused, self.module.Failed, OSError) as error:
            return {"refused": self.module.words(error)}
        return json.loads(json.dumps(answer))

    def changes(self, *actions: dict[str, Any]) -> list[dict[str, Any]]:
        """Read what is there for each action, as a controller does."""
        node = self.module.Node(str(self.root))
        return [{"action": each, "before": self.module.state_of(node, each)} for each in actions]

    def apply(self, *actions: dict[str, Any], await_clock: int = 0) -> dict[str, Any]:
        return self.ask("apply", changes=self.changes(*actions), await_clock=await_clock)

    def undo(self, **request: Any) -> dict[str, Any]:
        return self.ask("undo", state="undone", **request)

    def journals(self) -> list[dict[str, Any]]:
        found = (self.root / "var/lib/exectrail/repairs").glob("*/journal.json")
        return [json.loads(path.read_text()) for path in sorted(found)]

    def tree(self) -> dict[str, Any]:
        """Everything that a repair may change, down to owner, mode and time."""
        return {str(path): _seen(path) for path in self._paths()}

    def _paths(self) -> Iterator[Path]:
        for top in ("etc", "units", "pkg"):
            yield from sorted((self.root / top).rglob("*"))


def _seen(path: Path) -> tuple[Any, ...]:
    info = path.lstat()
    if path.is_symlink():
        return (str(path.readlink()),)
    if path.is_dir():
        return (info.st_mode,)
    # A stand-in rewrites a unit's file; what counts is what it says.
    time = 0 if path.parent.name == "units" else info.st_mtime_ns
    return (info.st_mode, info.st_uid, info.st_gid, time, path.read_bytes())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(made.module.Node, "start", made.start)
    monkeypatch.setattr(made.module.shutil, "which", lambda name: name == "apt-get")
    return made
