"""The script as a module, and the small trees that stand for a node."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.scripts import MODULES, load

SCRIPT = MODULES / "node_evidence.py"


MODULE = load("node_evidence")


@dataclass(frozen=True)
class Link:
    """A symbolic link in a tree."""

    target: str


@dataclass(frozen=True)
class Program:
    """An executable shell script in a tree."""

    body: str


@dataclass(frozen=True)
class Sparse:
    """A file of that many bytes which takes no space."""

    size: int


class Fifo:
    """A named pipe that nobody writes to."""


class Socket:
    """A listening unix socket."""


class Directory:
    """An empty directory."""


def build(root: Path, files: dict[str, Any]) -> None:
    """Put `files` (absolute path on the node → what is there) below `root`."""
    for name, content in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case str():
                path.write_text(content)
            case bytes():
                path.write_bytes(content)
            case Link():
                path.symlink_to(content.target)
            case Program():
                path.write_text("#!/bin/sh\n" + content.body)
                path.chmod(0o755)
            case Sparse():
                with path.open("wb") as file:
                    file.truncate(content.size)
            case Fifo():
                os.mkfifo(path)
            case Socket():
                here = Path.cwd()
                os.chdir(path.parent)  # a socket's path has room for 108 bytes only
                with socket.socket(socket.AF_UNIX) as listener:
                    listener.bind(path.name)
                os.chdir(here)
            case Directory():
                path.mkdir(exist_ok=True)
            case _:
                raise TypeError(content)


def systemctl(states: dict[str, tuple[str, str, str]]) -> dict[str, Any]:
    """A systemd that answers `show` with these units (load, enabled, active), others not found."""
    lines = "\n".join(
        f"{unit}) echo LoadState={load}; echo UnitFileState={enabled}; echo ActiveState={active};;"
        for unit, (load, enabled, active) in states.items()
    )
    body = f"""
shift; while [ "$1" != -p ]; do shift; done; shift 2
first=yes
for unit; do
  [ "$first" ] || echo
  first=
  echo "Id=$unit"
  case $unit in
{lines}
    *) printf "LoadState=not-found\\nUnitFileState=\\nActiveState=inactive\\n";;
  esac
done
"""
    masked = Link("/dev/null")
    files: dict[str, Any] = {
        f"/etc/systemd/system/{unit}": masked if load == "masked" else "[Unit]\n"
        for unit, (load, _, _) in states.items()
    }
    return {**files, "/run/systemd/system": Directory(), "/usr/bin/systemctl": Program(body)}
