"""The agent's proof that it sees: a program of its own that must come back as an event.

The program is started in a control group below the agent's own, so that the kernel has to notice
the crossing, mark the process and tell of it, as with anybody who enters a container.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from pathlib import Path

from exectrail_agent.events import AlikeEvent, Event, ExecEvent

_PROGRAMS = ("/bin/sleep", "/usr/bin/sleep")
_LASTS = "0.3"
"""Seconds; a sensor that reads /proc has to find it there."""


class CanaryError(Exception):
    """The program can't be started where it would be seen; the text says why."""


class Canary:
    """One proof at a time. Moments are seconds of CLOCK_BOOTTIME."""

    def __init__(self, limit: float = 10.0) -> None:
        self._limit = limit
        self._mark = b""
        self._pids: list[int] = []
        self._started: float | None = None
        self._folder = _own_group()
        self.seen_after: float | None = None
        """Seconds that the last one took to come back; None if it did not yet."""

    @property
    def flying(self) -> bool:
        """Whether one is on its way."""
        return self._started is not None

    def start(self, now: float) -> None:
        """Start one. Raises CanaryError."""
        if self._folder is None:
            raise CanaryError("its own control group can't be found below /sys/fs/cgroup")
        group = self._folder / "exectrail-canary"
        try:
            group.mkdir(exist_ok=True)
        except OSError as error:
            raise CanaryError(f"{group} can't be made: {error.strerror}") from error
        program = next((each for each in _PROGRAMS if os.access(each, os.X_OK)), None)
        if program is None:
            raise CanaryError(f"there is no {_PROGRAMS[0]}")
        self._mark = secrets.token_hex(8).encode()
        self._started = now
        self.seen_after = None
        pid = os.fork()
        if not pid:
            _become(program, self._mark.decode(), group)
        self._pids.append(pid)

    def take(self, event: Event, now: float) -> bool:
        """Say whether the event is the canary's; note that it came back."""
        if isinstance(event, AlikeEvent):
            event = event.whole()
        if not isinstance(event, ExecEvent) or self._started is None:
            return False
        if event.parent.pid != os.getpid() or self._mark not in event.argv:
            return False
        self.seen_after = now - self._started
        self._started = None
        return True

    def late(self, now: float) -> bool:
        """Say whether it should have come back by now; then it is given up."""
        if self._started is None or now - self._started < self._limit:
            return False
        self._started = None
        return True

    def reap(self) -> None:
        """Take leave of the processes that have ended: one is seen long before that."""
        self._pids = [pid for pid in self._pids if not _has_ended(pid)]

    def close(self) -> None:
        """Remove the control group."""
        for pid in self._pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._pids.clear()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                (self._folder / "exectrail-canary").rmdir()


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _become(program: str, mark: str, group: Path) -> None:
    """In the child: enter the group and become the program. Never returns."""
    try:
        (group / "cgroup.procs").write_text("0", encoding="ascii")
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.execv(program, [f"exectrail-canary-{mark}", _LASTS])  # noqa: S606 - no shell is wanted
    except OSError:
        pass
    finally:
        os._exit(1)


def _own_group(root: Path = Path("/sys/fs/cgroup")) -> Path | None:
    """Find the folder of this process's control group, in the hierarchy that systemd uses."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        number, names, path = line.split(":", 2)
        if number == "0":
            places = [root / path.lstrip("/"), root / "unified" / path.lstrip("/")]
        elif names == "name=systemd":
            places = [root / "systemd" / path.lstrip("/")]
        else:
            continue
        for place in places:
            if (place / "cgroup.procs").exists():
                return place
    return None
