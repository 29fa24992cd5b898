"""A copy of this checkout as it is on the disk, for tests that do in it what its readers do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """A command that has ended, with all that it has said."""

    code: int
    said: str


@dataclass(frozen=True)
class Checkout:
    """The copy. It has this checkout's environment, `.venv`, and imports its own sources."""

    folder: Path

    def run(self, *command: str, timeout: float, programs: Path | None = None) -> Ended:
        """Run a command in it, with a folder of programs before those of this machine."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        path = [str(programs)] if programs else []
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={
                **own,
                "ANSIBLE_NOCOLOR": "1",
                "PATH": os.pathsep.join([*path, os.environ["PATH"]]),
                "PYTHONPATH": str(self.folder / "src"),
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
        return Ended(done.returncode, done.stdout)


def copy(folder: Path) -> Checkout:
    """Copy what git knows or would add; the environment is linked, and counts as up to date."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    for name in ("pyproject.toml", "requirements.txt", "requirements-dev.txt"):
        os.utime(folder / name, (0, 0))
    return Checkout(folder)
