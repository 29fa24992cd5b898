"""The three report files of a run, written together."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from exectrail.compliance.model import Report
from exectrail.compliance.render import html, json, junit
from exectrail.errors import UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_reports(report: Report, directory: Path) -> dict[str, Path]:
    """Write report.json, report.html and junit.xml; return the path of each by its format.

    They are readable by their owner only, in a directory made so if it is missing. All are written
    and on the disk before the first takes its place: if that fails, UsageError is raised, earlier
    reports are as they were and nothing else is left behind.
    """
    # report.json comes last: where it is, the others are of the same run.
    contents = {
        "junit": ("junit.xml", junit.render(report).encode()),
        "html": ("report.html", html.render(report).encode()),
        "json": ("report.json", json.render(report)),
    }
    with contextlib.ExitStack() as on_failure:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            staged = {
                kind: (_stage(content, directory, on_failure), directory / name)
                for kind, (name, content) in contents.items()
            }
            for temporary, path in staged.values():
                temporary.replace(path)
        except OSError as error:
            raise UsageError(
                f"The reports can't be written to {directory}: {error.strerror}. {_remedy(error)}"
            ) from error
    return {kind: path for kind, (_, path) in staged.items()}


def _stage(content: bytes, directory: Path, on_failure: contextlib.ExitStack) -> Path:
    handle, name = tempfile.mkstemp(dir=directory, prefix=".report.")
    on_failure.callback(Path(name).unlink, missing_ok=True)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "Free some space there, or choose another folder with --report-dir."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return "Something in that path is a file; choose another folder with --report-dir."
    return "Choose a folder that you may write to with --report-dir."
