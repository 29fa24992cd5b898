"""What the steps of a run have noted, as a file that outlives the run: ``journal.jsonl``, 0600.

Its first line is the request, each further one a note. Of several notes of a step on a node the
last one holds.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec

from exectrail.errors import UsageError

DEFAULT_DIRECTORY = Path("reports/site")
"""Where journal and summary go unless told otherwise, under the folder that the command runs in."""
_NAME = "journal.jsonl"

Mode = Literal["site", "install", "upgrade", "uninstall"]
Step = Literal["preflight", "agent", "policy"]
Outcome = Literal["kept", "planned", "done", "left", "failed", "lost"]
"""`kept`: nothing to do; `planned`: about to be changed, which has not ended; `left`: not touched
because of others; `lost`: could not be reached."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """The request. `reports` are the folders of the parts' reports by the parts' names."""

    run_id: str
    mode: Mode
    started: dt.datetime
    check: bool
    nodes: tuple[str, ...]
    masters: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    waves: tuple[int | str, ...] = ()
    max_fail_percentage: int = 0
    reports: dict[str, str] = {}


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one step on one node; `detail` says it to people, `fix` what to do."""

    host: str
    step: Step
    outcome: Outcome
    detail: str = ""
    fix: str = ""


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The request and the notes that hold, by step and node."""

    begun: Begun
    notes: dict[tuple[str, str], Note]

    def of(self, step: Step, *outcomes: Outcome) -> list[Note]:
        """Give the notes of a step with these outcomes."""
        return [
            note
            for (noted, _), note in self.notes.items()
            if noted == step and note.outcome in outcomes
        ]


def begin(directory: Path, begun: Begun) -> None:
    """Begin a new journal; UsageError if the folder can't be used."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (directory / "summary.json").unlink(missing_ok=True)
        draft = directory / f".{_NAME}"
        draft.unlink(missing_ok=True)
        _append(draft, [begun])
        draft.replace(directory / _NAME)
    except OSError as error:
        raise UsageError(
            f"The folder {directory} can't be used: {error.strerror}. Choose another with "
            "install_report_dir."
        ) from error


def note(directory: Path, notes: Iterable[Note]) -> None:
    """Write down what has become of steps, in one go: others write here at the same time."""
    _append(directory / _NAME, notes)


def _append(path: Path, lines: Iterable[Begun | Note]) -> None:
    text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        stream.write(text)


def load(directory: Path) -> Journal:
    """Read the journal; UsageError if there is none. A line that was cut off by a kill is left."""
    path = directory / _NAME
    try:
        first, *rest = path.read_bytes().splitlines()
        begun = msgspec.json.decode(first, type=Begun)
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory} holds no run ({_NAME}): {error}") from error
    notes: dict[tuple[str, str], Note] = {}
    for line in rest:
        try:
            found = msgspec.json.decode(line, type=Note)
        except ValueError:
            continue
        notes[found.step, found.host] = found
    return Journal(begun=begun, notes=notes)
