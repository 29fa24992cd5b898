"""Several node scripts as one Python program, and the shell line that runs a program on a node.

Pure text: how it gets there is the connection's business.
"""

from __future__ import annotations

import base64
import json
import shlex
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

NO_PYTHON = "exectrail: no Python 3 here"
"""What the shell line prints where there is none."""
_PYTHONS = (
    "/usr/bin/python3",
    "/usr/libexec/platform-python",
    "python3",
    *(f"python3.{minor}" for minor in range(14, 5, -1)),
)
# Each script in a process of its own, since it may end that in the middle; all at once, so that
# what they wait for is not waited for twice.
_DRIVER = """\
import os, sys
sys.dont_write_bytecode = True
def _run(_source, _name, _names):
    sys.argv = [_name]
    exec(compile(_source, _name, "exec"), dict(_names, __name__="__main__", __file__=_name))
_started = []
for _name, _source, _names in SCRIPTS:
    _from, _to = os.pipe()
    _pid = os.fork()
    if not _pid:
        _code = 1
        try:
            os.dup2(_to, 1)
            os.close(_from)
            os.close(_to)
            _run(_source, _name, _names)
            _code = 0
        except SystemExit as _end:
            _code = _end.code if isinstance(_end.code, int) else 1 if _end.code else 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_code)
    os.close(_to)
    _started.append((_pid, _from))
for _pid, _from in _started:
    with os.fdopen(_from, "rb") as _said:
        sys.stdout.buffer.write(_said.read())
        sys.stdout.flush()
    os.waitpid(_pid, 0)
"""


class Script(NamedTuple):
    """A stand-alone script (Python 3.6, standard library) and the request it is given, if any."""

    name: str
    source: str
    request: dict[str, Any] | None = None

    @property
    def names(self) -> dict[str, str]:
        """What it finds among its globals."""
        if self.request is None:
            return {}
        return {"REQUEST": base64.b64encode(json.dumps(self.request).encode()).decode()}


def bundle(scripts: Sequence[Script]) -> str:
    """Return one program that runs them side by side; each prints its line, in their order.

    Each is the ``__main__`` of a process of its own and has its request as REQUEST. The program
    ends with 0 when all have ended, whatever became of them.
    """
    if len(scripts) == 1:
        (script,) = scripts
        head = "".join(f"{name} = {value!r}\n" for name, value in script.names.items())
        return head + script.source
    listed = [(f"{script.name}.py", script.source, script.names) for script in scripts]
    return f"SCRIPTS = {listed!a}\n{_DRIVER}"


def from_input(interpreter: str = "") -> str:
    """Return a POSIX shell line that runs the program on its standard input.

    It takes the interpreter that is given, or the first Python 3 that the node has.
    """
    return _with_python(interpreter, 'exec "$p" -I -')


def as_argument(program: str) -> str:
    """Return a POSIX shell line that holds a program and runs it as root, by sudo if need be."""
    packed = base64.b64encode(zlib.compress(program.encode(), 9)).decode()
    code = f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{packed}')))"
    root = 'r=; [ "$(id -u)" = 0 ] || r="sudo -n"; '
    return root + _with_python("", f'exec $r "$p" -I -c {shlex.quote(code)}')


def _with_python(interpreter: str, action: str) -> str:
    names = " ".join(shlex.quote(name) for name in ((interpreter,) if interpreter else _PYTHONS))
    return (
        f'for p in {names}; do command -v "$p" >/dev/null 2>&1 && {action}; done; '
        f"echo {shlex.quote(NO_PYTHON)}; exit 127"
    )
