"""Node scripts: as a program, as the shell line that runs it on a node, and what they answered.

A node script (Python 3.6, standard library) defines `main(request)`, which returns its answer, and
can import those that are sent before it. How a program gets there is the connection's business.
"""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exectrail.errors import UsageError
from exectrail.nodes.reachability import NO_PYTHON, Obstacle, explain

_LAUNCH = Path(__file__).with_name("launch.py")
_PYTHONS = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "python3",
    *(f"python3.{minor}" for minor in range(14, 5, -1)),
)


class Refused(UsageError):  # noqa: N818  not a fault of the program
    """The script says why it did not do what it was asked."""


class Unheard(UsageError):  # noqa: N818  as above
    """No answer came, and it is not known what the script did."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(f"{obstacle.problem}. {obstacle.fix}")


def program(folder: Path, requests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one program that runs the named scripts of a folder, each with its request."""
    scripts = [
        (name, (folder / f"{name}.py").read_text(encoding="utf-8"), json.dumps(request))
        for name, request in requests.items()
    ]
    return f"{_LAUNCH.read_text(encoding='utf-8')}\nrun({scripts!a})\n"


def from_input(interpreter: str = "") -> str:
    """Return a POSIX shell line that runs the program on its standard input.

    It takes the interpreter that is given, or the first Python 3 that the node has.
    """
    return _with_python(interpreter, 'exec "$p" -IB -')


def as_argument(program: str) -> str:
    """Return a POSIX shell line that holds a program and runs it as root, by sudo if need be."""
    packed = base64.b64encode(zlib.compress(program.encode(), 9)).decode()
    code = f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{packed}')))"
    root = 'r=; [ "$(id -u)" = 0 ] || r="sudo -n"; '
    return root + _with_python("", f'exec $r "$p" -IB -c {shlex.quote(code)}')


def _with_python(interpreter: str, action: str) -> str:
    names = " ".join(shlex.quote(name) for name in ((interpreter,) if interpreter else _PYTHONS))
    return (
        f'for p in {names}; do command -v "$p" >/dev/null 2>&1 && {action}; done; '
        f"echo {shlex.quote(NO_PYTHON)}; exit 127"
    )


def answers(out: str) -> list[Any]:
    """Give what scripts answered, in their order; logins may print lines of their own."""
    return [said["answer"] for said in _said(out) if "answer" in said]


def answer(out: str, err: str, host: str) -> Any:
    """Give what the one script answered; raise Refused or Unheard if it did not."""
    for said in _said(out):
        if "answer" in said:
            return said["answer"]
        raise Refused(str(said["problem"]))
    raise Unheard(explain(f"{out}\n{err}", host))


def _said(out: str) -> list[dict[str, Any]]:
    lines = [line for line in out.splitlines() if line.startswith(('{"answer":', '{"problem":'))]
    try:
        return [json.loads(line) for line in lines]
    except ValueError:  # cut off in the middle
        return []
