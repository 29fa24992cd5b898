# ruff: noqa: INP001 - a script, no package
"""Builds the agent: one file for every architecture and kernel.

    python3 packaging/agent.py -o build/exectrail-agent.pyz

The same input and minor version of Python give the same bytes. Needs clang, llvm and libbpf's
headers; on the node, none.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "exectrail_agent"
OBJECT = "exectrail_agent/bpf/exec.bpf.o"

_SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = """\
import sys

from exectrail_agent.cli import main

sys.exit(main())
"""
_HOW = "on Debian and Ubuntu: apt-get install clang llvm libbpf-dev"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


class BuildError(Exception):
    """The agent can't be built here; the text says what is missing."""


def compile_object(source: Path) -> bytes:
    """Compile the kernel half that is in a folder, without what debuggers alone read."""
    clang, strip = _tool("clang"), _tool("llvm-strip")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "exec.bpf.o")
        # A relative name and no folder: where it was built does not show.
        _run(
            [
                *(clang, "-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Wextra", "-Werror"),
                *("-fdebug-compilation-dir=.", "-I.", "-c", "exec.bpf.c", "-o", str(output)),
            ],
            source,
        )
        _run([strip, "-g", str(output)], source)
        return output.read_bytes()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a runnable archive of files by name; order and times do not depend on the machine."""
    packed = io.BytesIO()
    packed.write(_SHEBANG)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system, entry.external_attr = 3, _MODE
            target.writestr(entry, files[name])
    return packed.getvalue()


def bytecode(name: str, source: bytes) -> bytes:
    """Compile a module for this version of Python; others take the source that is beside it."""
    # Never compared with the source (PEP 552): both are in the archive. Before version 3 of the
    # format the same code gives the same bytes.
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
    # Neither this module's own features nor the options of the Python that builds.
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    return head + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def build(package: Path = PACKAGE) -> bytes:
    """Return the agent's archive. Raises BuildError."""
    files = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in package.rglob("*.py")
    }
    files |= {f"{name}c": bytecode(name, source) for name, source in files.items()}
    files[OBJECT] = compile_object(package / "bpf")
    files["__main__.py"] = _MAIN.encode()
    return archive(files)


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Builds the agent.")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the file to write")
    output: Path = parser.parse_args(arguments).output
    try:
        made = build()
    except BuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_bytes(made)
    unfinished.chmod(0o755)
    unfinished.replace(output)
    return 0


def _tool(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise BuildError(f"{name} is missing; {_HOW}")
    return found


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = f"\n{_HOW}" if "file not found" in done.stderr else ""
        raise BuildError(f"{command[0]} failed:\n{done.stderr.rstrip()}{hint}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
