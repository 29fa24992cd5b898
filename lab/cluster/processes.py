"""Child processes that end with this one."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import LabError

_TOLD = 3000  # characters of a failed command's output that an error quotes


def tied(argv: Sequence[str | Path]) -> list[str]:
    """ARGV as a command that the kernel kills when the thread that starts it goes."""
    return ["setpriv", "--pdeathsig", "KILL", *map(str, argv)]


def run(argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> str:
    """Run ARGV, tied to this process, and give its output; LabError quotes the end of it."""
    return finish(tied(argv), str(argv[0]), environment=environment)


def finish(
    argv: Sequence[str],
    name: str,
    *,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run ARGV to its end and give its standard output; LabError names it NAME."""
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False, env=environment)
    if done.returncode:
        told = (done.stdout + done.stderr).decode("utf-8", "replace").strip()[-_TOLD:]
        raise LabError(f"{name} failed with exit code {done.returncode}:\n{told}")
    return done.stdout.decode("utf-8", "replace")


def copy_tree(source: Path, target: Path, *, linked: bool = False) -> None:
    """Copy the folder SOURCE to TARGET, which must not exist; LINKED shares the files' content."""
    how = ["--link"] if linked else ["--reflink=auto"]
    run([shutil.which("cp") or "cp", "--archive", *how, source, target])
