"""What an exec event says about the program: its names, arguments and terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from exectrail_agent.events import ExecEvent, Task
from exectrail_agent.log.escape import to_text

_MULTICALL = {b"busybox", b"toybox", b"coreutils"}
_UNNAMED = (b"/proc/", b"/dev/fd/")
_PTY_MAJORS = range(136, 144)
_SERIAL_MINOR = 64


class Arguments(NamedTuple):
    """The arguments of a program; `cut` is the index of the first one after what is missing."""

    values: tuple[bytes, ...]
    cut: int | None = None


def arguments(event: ExecEvent) -> Arguments:
    """Return the arguments, empty ones too."""
    if not event.argv_cut:
        return Arguments(_split(event.argv))
    head = _split(event.argv[: event.argv_cut_at])
    return Arguments((*head, *_split(event.argv[event.argv_cut_at :])), len(head))


def _split(argv: bytes) -> tuple[bytes, ...]:
    if not argv:
        return ()
    return tuple((argv[:-1] if argv.endswith(b"\0") else argv).split(b"\0"))


def base(path: bytes) -> bytes:
    """Return a path's last part; of a file without a name in a file system, its name."""
    if path.startswith(b"/memfd:"):
        return path[1:].partition(b" (deleted)")[0]
    return path.rpartition(b"/")[2]


def runtime_name(task: Task) -> bytes:
    """Return the name of what runs; of a runtime's copy of itself in memory, the runtime's."""
    name = base(task.executable)
    if name.startswith(b"memfd:"):
        return name[len(b"memfd:") :].partition(b":")[0].partition(b"_cloned")[0]
    return name.partition(b" (deleted)")[0]


def is_unnamed(filename: bytes) -> bool:
    """Whether a program was given to the kernel without its name, as an open file."""
    return not filename or filename.startswith(_UNNAMED)


def is_script(event: ExecEvent, args: Sequence[bytes]) -> bool:
    """Whether the kernel ran an interpreter for the file.

    It then puts the interpreter's path and at most one option before the file's name.
    """
    return (
        bool(event.filename)
        and event.filename in args[1:3]
        and b"/" in args[0]
        and args[0] != event.filename
        and event.filename != event.task.executable
    )


def name(event: ExecEvent, args: tuple[bytes, ...]) -> bytes:
    """Return the name that a program was called by, of a link to a multi-call binary the link's."""
    if not is_unnamed(event.filename):
        return base(event.filename) or base(event.task.executable)
    own = base(event.task.executable)
    return base(args[0]) if own in _MULTICALL and args and base(args[0]) else own


def script(event: ExecEvent) -> bytes:
    """Return a script's path, absolute where the working directory is known."""
    if event.filename.startswith(b"/") or not event.cwd:
        return event.filename
    relative = event.filename[2:] if event.filename.startswith(b"./") else event.filename
    return event.cwd.rstrip(b"/") + b"/" + relative


def terminal(device: tuple[int, int]) -> str:
    """Return a terminal's name below /dev, as ``pts/0``; of an unusual one ``major:minor``."""
    major, minor = device
    if major in _PTY_MAJORS:
        return f"pts/{(major - _PTY_MAJORS.start) * 256 + minor}"
    if major == 4:  # noqa: PLR2004 - the number of virtual consoles and serial lines
        return f"tty{minor}" if minor < _SERIAL_MINOR else f"ttyS{minor - _SERIAL_MINOR}"
    return "console" if device == (5, 1) else f"{major}:{minor}"


class _Texts:
    """Text from bytes, and which fields had to be escaped."""

    def __init__(self) -> None:
        self.escaped: list[str] = []

    def text(self, name: str, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.escaped.append(name)
            return to_text(raw)[0]

    def words(self, values: Sequence[bytes]) -> dict[str, object]:
        try:
            words = [value.decode() for value in values]
        except UnicodeDecodeError:
            words = [self.text(f"process.args[{at}]", value) for at, value in enumerate(values)]
            cmdline = self.text("process.cmdline", b" ".join(values))
            return {"process.args": words, "process.cmdline": cmdline}
        return {"process.args": words, "process.cmdline": " ".join(words)}


def fields(event: ExecEvent) -> dict[str, object]:
    """Return an exec's ``process`` fields; ``escaped`` and ``unknown`` where they apply.

    What is the same in many execs comes last, so that it compresses with what follows.
    """
    args = arguments(event)
    texts = _Texts()
    found: dict[str, object] = {"process.pid": event.task.pid}
    if event.task.host_pid not in {0, event.task.pid}:
        found["process.hostPid"] = event.task.host_pid
    found["process.name"] = texts.text("process.name", name(event, args.values))
    found.update(texts.words(args.values))
    if is_script(event, args.values):
        found["process.executable"] = texts.text("process.executable", script(event))
        found["process.interpreter"] = texts.text("process.interpreter", event.task.executable)
    else:
        found["process.executable"] = texts.text("process.executable", event.task.executable)
    if event.memfd:
        found["process.memfd"] = True
    found["process.argsBytes"] = event.argv_size
    if event.cwd:
        found["process.cwd"] = texts.text("process.cwd", event.cwd)
    if texts.escaped:
        found["escaped"] = texts.escaped
    if event.unknown:
        found["unknown"] = [f"{field}: {reason}" for field, reason in event.unknown.items()]
    found["process.argsTruncated"] = args.cut is not None
    if args.cut is not None:
        found["process.argsMissing"] = event.argv_cut
        found["process.argsCutIndex"] = args.cut
    if event.tty:
        found["process.tty"] = terminal(event.tty)
    found["process.user.uid"] = event.uid
    found["process.user.gid"] = event.gid
    found["process.parentPid"] = event.parent.pid
    return found
