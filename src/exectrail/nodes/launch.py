"""Lets node scripts answer: each one's `main(request)`, as a line of JSON on standard output.

Stands before them in the program that is sent to a node: Python 3.6, standard library.
"""

import json
import os
import sys
import types


def load(name: str, source: str) -> None:
    """Make the script a module, which those after it can import."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)  # noqa: S102  that is its purpose


def answer(name: str, request: str) -> None:
    """Print what the script answers, or why it can't."""
    try:
        said = {"answer": sys.modules[name].main(json.loads(request))}
    except Exception as error:  # noqa: BLE001  the controller gets a line whatever happens
        said = {"problem": words(name, error)}
    sys.stdout.write(json.dumps(said, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def words(name: str, error: Exception) -> str:
    """Say what went wrong; a script's own exceptions say it themselves."""
    if type(error).__module__ == name:
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error}"


def start(name: str, request: str) -> int:
    """Let the script answer in a process of its own; what it prints comes out of the descriptor."""
    out, into = os.pipe()
    if os.fork():
        os.close(into)
        return out
    try:
        os.dup2(into, 1)
        os.close(into)
        answer(name, request)
    finally:
        # Threads that a system call holds would keep the interpreter from ending by itself.
        os._exit(0)


def run(scripts: "list[tuple[str, str, str]]") -> None:
    """Run scripts (name, source, request in JSON), several of them side by side.

    What each waits for is then not waited for twice, and none takes another with it.
    """
    if len(scripts) == 1:
        ((name, source, request),) = scripts
        load(name, source)
        answer(name, request)
        os._exit(0)
    started = []
    try:
        for name, source, request in scripts:
            load(name, source)
            started.append(start(name, request))
    finally:
        for out in started:
            with os.fdopen(out, "rb") as stream:
                sys.stdout.buffer.write(stream.read())
            sys.stdout.flush()
