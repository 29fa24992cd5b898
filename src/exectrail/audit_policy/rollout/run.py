"""One roll-out in its folder on the controller: request, masters, plan, and what came of it.

Layout: ``run.json``, ``masters/<host>.json``, ``plan.json``, ``failed`` (the master at which the
run stopped) and ``evidence/<host>/`` (of a change that was taken back; ``evidence.previous/`` is
that of the run before). Folders 0700, files 0600.
"""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import socket
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from exectrail.audit_policy.rollout.model import (
    Change,
    Master,
    Plan,
    Request,
    RolloutError,
    Unread,
    convert,
)
from exectrail.audit_policy.rollout.plan import check, plan

_UNSPOKEN = "it could not be reached, or its answer not be read"


def begin(directory: Path, variables: dict[str, Any]) -> Request:
    """Check the whole request and prepare the folder; RolloutError if it can't be met."""
    request: Request = convert({"run": uuid.uuid4().hex, "holder": holder(), **variables}, Request)
    check(request)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (directory / ".lock").open("a") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            _refuse_company(directory, request.holder)
            for stale in ("masters", "evidence.previous"):
                shutil.rmtree(directory / stale, ignore_errors=True)
            if (directory / "evidence").exists():
                (directory / "evidence").rename(directory / "evidence.previous")
            for stale in ("plan.json", "failed"):
                (directory / stale).unlink(missing_ok=True)
            (directory / "masters").mkdir(mode=0o700)
            _write(directory / "run.json", msgspec.to_builtins(request))
    except OSError as error:
        raise RolloutError(
            f"The folder {directory} can't be used: {error}. Choose another with "
            "audit_policy_report_dir."
        ) from error
    return request


def _refuse_company(directory: Path, mine: str) -> None:
    """Raise RolloutError if another live run of this controller uses the folder."""
    try:
        known = str(json.loads((directory / "run.json").read_bytes())["holder"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    if known != mine and _is_of_this_controller(known) and not holder_is_dead(known):
        raise RolloutError(
            f"another run is active: {known}, with the same folder {directory}. Wait until it "
            "ends, or choose another folder with audit_policy_report_dir."
        )


def request(directory: Path) -> Request:
    """Read the request of the run."""
    return convert(_read(directory / "run.json"), Request)  # type: ignore[no-any-return]


def save_master(directory: Path, host: str, answer: dict[str, Any]) -> Master | Unread:
    """Keep what a master said, or ``{"problem": why}``."""
    _write(_master_path(directory, host), answer)
    return master(directory, host)


def master(directory: Path, host: str) -> Master | Unread:
    """Read what a master said; Unread if it said nothing."""
    path = _master_path(directory, host)
    if not path.exists():
        return Unread(_UNSPOKEN)
    said = _read(path)
    return convert(said, Unread if set(said) == {"problem"} else Master)  # type: ignore[no-any-return]


def make_plan(directory: Path) -> Plan:
    """Decide from the request and the masters, and keep the decision."""
    asked = request(directory)
    masters = {host: master(directory, host) for host in asked.masters}
    made = plan(asked, masters, holder_is_dead)
    _write(directory / "plan.json", msgspec.to_builtins(made))
    return made


def change(directory: Path, host: str) -> Change | None:
    """Read what the plan says of one master."""
    return load_plan(directory).changes.get(host)


def load_plan(directory: Path) -> Plan:
    """Read the plan of the run."""
    return convert(_read(directory / "plan.json"), Plan)  # type: ignore[no-any-return]


def stop(directory: Path, host: str, evidence: dict[str, str]) -> Path:
    """Note that the run ends at this master; return the folder with what tells why."""
    folder = directory / "evidence" / quote(host, safe="")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, text in evidence.items():
        _write_text(folder / Path(name).name, text)
    _write_text(directory / "failed", host)
    return folder


def stopped_at(directory: Path) -> str | None:
    """Say which master this run failed at, if it has."""
    path = directory / "failed"
    return path.read_text(encoding="utf-8") if path.exists() else None


def holder() -> str:
    """Name this process, for people and for other runs on this controller."""
    pid = os.getppid()
    return f"{getpass.getuser()}@{socket.gethostname()} pid {pid} since {_start(pid)}"


def holder_is_dead(name: str) -> bool:
    """Say whether the run of that name was of this controller, and is no more."""
    pid, _, start = name.partition(" pid ")[2].partition(" since ")
    if not _is_of_this_controller(name) or not pid.isdigit():
        return False
    return _start(int(pid)) != start


def _is_of_this_controller(name: str) -> bool:
    return name.partition(" pid ")[0].rpartition("@")[2] == socket.gethostname()


def _start(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    # One that nobody has taken leave of yet is dead too.
    return "" if fields[0] in {"Z", "X"} else fields[19]


def _master_path(directory: Path, host: str) -> Path:
    return directory / "masters" / f"{quote(host, safe='')}.json"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RolloutError(f"{path} can't be read: {error}") from error


def _write(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(value))


def _write_text(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
