"""One compliance run in its folder: what was asked, the evidence, and the report.

Layout: ``run.json`` (the request), ``canary.json`` (what became of the canary pods, if there were
any), ``evidence/<host>.json``, ``report.json``, ``report.html``, ``junit.xml``, and
``report.previous.json`` (the report of the run before).
"""

from __future__ import annotations

import datetime as dt
import shutil
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote

import msgspec

from exectrail.compliance import canary
from exectrail.compliance import evidence as evidence_file
from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.model import Evidence, HostState, Report
from exectrail.compliance.requirements import Requirements, load_profile
from exectrail.compliance.verdict import build_report
from exectrail.compliance.waivers import NO_WAIVERS, WaiverBook, load_waivers
from exectrail.errors import UsageError

DEFAULT_DIRECTORY = Path("reports/preflight")
VERIFY_DIRECTORY = Path("reports/verify")
"""Where reports go unless told otherwise, under the folder that the command runs in."""
_BY = "with --report-dir (in a playbook: preflight_report_dir, verify_report_dir)"
_BYTES_PER_NODE = 128 * 1024
"""Room asked for in advance: evidence (at most 64 kB) and the node's share of the reports."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The request. `selected` are the hosts to report on, `inventory` maps all to their groups.

    `addresses` maps every host of the inventory to the names and addresses that it goes by; it is
    empty where the installation is not looked at.
    """

    run_id: str
    started: dt.datetime
    profile: str
    waivers: str
    strict: bool
    selected: tuple[str, ...]
    inventory: dict[str, tuple[str, ...]]
    addresses: dict[str, tuple[str, ...]] = {}


def begin(  # noqa: PLR0913  the request has that many parts
    directory: Path,
    *,
    profile: str,
    waivers: str,
    strict: bool,
    selected: Collection[str],
    inventory: Mapping[str, Collection[str]],
    addresses: Mapping[str, Collection[str]] | None = None,
    run_id: str | None = None,
) -> Run:
    """Check the whole request and prepare the folder; raise UsageError before anything is lost."""
    run = Run(
        run_id=run_id or uuid.uuid4().hex,
        started=dt.datetime.now(dt.UTC),
        profile=profile,
        waivers=waivers,
        strict=strict,
        selected=tuple(sorted(selected)),
        inventory={host: tuple(sorted(groups)) for host, groups in sorted(inventory.items())},
        addresses={host: tuple(names) for host, names in (addresses or {}).items()},
    )
    if not run.selected:
        raise UsageError("No host is selected: nothing would be checked. Correct the limit.")
    requirements = load_profile(profile)
    waiver_book(run.waivers, requirements, run.inventory)
    try:
        _prepare(directory, len(run.selected))
        (directory / "run.json").write_bytes(msgspec.json.encode(run))
    except OSError as error:
        raise UsageError(
            f"The report folder {directory} can't be used: {error.strerror}. Choose another {_BY}."
        ) from error
    return run


def _prepare(directory: Path, nodes: int) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < nodes * _BYTES_PER_NODE:
        raise UsageError(
            f"The disk of the report folder {directory} has {free // 1024} kB free; {nodes} nodes "
            f"may need {nodes * _BYTES_PER_NODE // 1024} kB. Free some space or choose another "
            f"folder {_BY}."
        )
    collected = directory / "evidence"
    collected.mkdir(mode=0o700, exist_ok=True)
    for stale in collected.glob("*.json"):
        stale.unlink()
    canary.path(directory).unlink(missing_ok=True)
    if (directory / "report.json").exists():
        (directory / "report.json").replace(directory / "report.previous.json")


def load(directory: Path) -> Run:
    """Read the request of the run in `directory`."""
    path = directory / "run.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except FileNotFoundError:
        raise UsageError(f"{directory} holds no run (no run.json in it).") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{path} can't be read: {error}") from error


def is_of(directory: Path, run_id: str) -> bool:
    """Say whether the folder is that of this run."""
    try:
        return load(directory).run_id == run_id
    except UsageError:
        return False


def evidence_path(directory: Path, host: str) -> Path:
    """Where the evidence of `host` is kept; an inventory name may hold any character."""
    return directory / "evidence" / f"{quote(host, safe='')}.json"


def finish(directory: Path, *, interrupted: bool = False) -> Report:
    """Judge what was collected; a selected host without evidence gets its rows too."""
    run = load(directory)
    requirements = load_profile(run.profile)
    waivers = waiver_book(run.waivers, requirements, run.inventory)
    today = run.started.date()
    return build_report(
        [
            evaluate(_evidence(directory, host, interrupted), requirements, waivers, today=today)
            for host in run.selected
        ],
        requirements,
        run_id=run.run_id,
        started=run.started,
        finished=dt.datetime.now(dt.UTC),
        strict=run.strict,
        interrupted=interrupted,
    )


def _evidence(directory: Path, host: str, interrupted: bool) -> Evidence:  # noqa: FBT001
    path = evidence_path(directory, host)
    if path.exists():
        return evidence_file.load(path)
    if interrupted:
        problem, fix = "the run was interrupted before it", f"Run again with --limit {host}."
    else:
        problem = "no evidence came from it, in most cases because it did not answer in time"
        fix = (
            "Read what the run printed for it, and look at its load and its disks; "
            "preflight_timeout, verify_timeout or --node-timeout raises the limit (seconds)."
        )
    return Evidence(host=host, state=HostState.NOT_REACHED, problem=problem, fix=fix)


def waiver_book(
    path: str, requirements: Requirements, inventory: Mapping[str, Collection[str]]
) -> WaiverBook:
    """Load the waivers of `path` (empty: none) for these requirements and hosts."""
    if not path:
        return NO_WAIVERS
    return load_waivers(
        Path(path),
        [requirement.id for requirement in requirements.checks],
        inventory,
        not_waivable=[each.id for each in requirements.checks if not each.waivable],
    )
