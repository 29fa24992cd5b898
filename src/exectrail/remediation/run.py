"""One run of repairs in its folder: what was asked, and what came of it on each node.

Layout: ``run.json`` and ``evidence/`` as of a compliance run, ``remediation.json`` (the request),
``outcomes/<host>.json``, and ``summary.json``.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from exectrail.compliance import run as compliance
from exectrail.compliance.model import ExitCode
from exectrail.compliance.requirements import Requirements, load_profile
from exectrail.compliance.waivers import WaiverBook
from exectrail.hostnames import fold
from exectrail.printable import printable, printable_lines
from exectrail.remediation import decide
from exectrail.remediation.model import Became, Outcome

DEFAULT_DIRECTORY = Path("reports/remediate")
"""Where the run's folder is unless told otherwise, under the folder that the command runs in."""
_CODES = {
    Became.BY_HAND: ExitCode.UNFIT,
    Became.FAILED: ExitCode.UNFIT,
    Became.UNKNOWN: ExitCode.UNKNOWN,
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked beside what `compliance.Run` says."""

    checks: tuple[str, ...]
    undo: bool
    dry: bool


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended; `left` says of each node with something left what that is."""

    run_id: str
    exit_code: int
    left: dict[str, str]


class Opened(NamedTuple):
    """A run as a node's part of it needs it."""

    asked: Asked
    requirements: Requirements
    waivers: WaiverBook
    today: dt.date


def begin(directory: Path, checks: str, *, undo: bool, dry: bool, **request: Any) -> compliance.Run:
    """Check the whole request, and prepare the folder; raise UsageError before anything is lost.

    `request` is that of the compliance run, as `compliance.begin` takes it.
    """
    asked = Asked(checks=decide.named(checks, load_profile(request["profile"])), undo=undo, dry=dry)
    run = compliance.begin(directory, **request)
    (directory / "remediation.json").write_bytes(msgspec.json.encode(asked))
    outcomes = directory / "outcomes"
    outcomes.mkdir(mode=0o700, exist_ok=True)
    for stale in outcomes.glob("*.json"):
        stale.unlink()
    return run


def opened(directory: Path) -> Opened:
    """Read the request of the run in `directory`."""
    run = compliance.load(directory)
    requirements = load_profile(run.profile)
    return Opened(
        msgspec.json.decode((directory / "remediation.json").read_bytes(), type=Asked),
        requirements,
        compliance.waiver_book(run.waivers, requirements, run.inventory),
        run.started.date(),
    )


def save(directory: Path, host: str, outcomes: Sequence[Outcome]) -> None:
    """Keep what came of the checks on one node."""
    _path(directory, host).write_bytes(msgspec.json.encode(tuple(outcomes)))


def finish(directory: Path) -> tuple[Summary, str]:
    """Close the run; give how it ended and a text that says so."""
    run = compliance.load(directory)
    asked = opened(directory).asked
    found = {host: _load(directory, host, asked) for host in run.selected}
    everything = [outcome for outcomes in found.values() for outcome in outcomes]
    summary = Summary(
        run_id=run.run_id,
        exit_code=max((_CODES.get(each.became, ExitCode.FIT) for each in everything), default=0),
        left={
            host: "; ".join(f"{each.check}: {each.became}" for each in outcomes if _is_left(each))
            for host, outcomes in found.items()
            if any(map(_is_left, outcomes))
        },
    )
    (directory / "summary.json").write_bytes(msgspec.json.encode(summary))
    return summary, "\n".join(_lines(found))


def summary(directory: Path) -> Summary | None:
    """Read how the run in `directory` ended; None if it has not."""
    path = directory / "summary.json"
    return msgspec.json.decode(path.read_bytes(), type=Summary) if path.exists() else None


def _is_left(outcome: Outcome) -> bool:
    return outcome.became in _CODES


def _lines(found: dict[str, tuple[Outcome, ...]]) -> Iterator[str]:
    alike: dict[tuple[str, str, str], list[str]] = {}
    for host, outcomes in found.items():
        for each in outcomes:
            alike.setdefault((each.check, each.became, each.message), []).append(host)
    for (check, became, message), hosts in alike.items():
        first, *more = printable_lines(message).split("\n")
        yield printable(f"{fold(hosts)}  {check}  {became}: {first}")
        yield from (f"    {line}" for line in more)
    counts = Counter(each.became for outcomes in found.values() for each in outcomes)
    told = ", ".join(f"{counts[became]} {became}" for became in Became if counts[became])
    yield f"{len(found)} {'node' if len(found) == 1 else 'nodes'}: {told}"


def _path(directory: Path, host: str) -> Path:
    return directory / "outcomes" / f"{quote(host, safe='')}.json"


def _load(directory: Path, host: str, asked: Asked) -> tuple[Outcome, ...]:
    try:
        data = _path(directory, host).read_bytes()
    except FileNotFoundError:
        why = "nothing came from the node, in most cases because it did not answer in time"
        return tuple(Outcome(check, Became.UNKNOWN, f"{why}; run again.") for check in asked.checks)
    return msgspec.json.decode(data, type=tuple[Outcome, ...])
