"""The sensor for kernels that the bpf sensor can't run on: kernel audit and process connector.

The sessions live in this process: nothing goes on in the kernel while it is away.
"""

from __future__ import annotations

import math
import os
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from exectrail_agent.audit.connector import ProcConnector
from exectrail_agent.audit.denials import Denials
from exectrail_agent.audit.parse import CONFIG_CHANGE, REPLACE, Assembler, Caller, Stamp
from exectrail_agent.audit.rules import ARCHITECTURES, calls, wanted
from exectrail_agent.audit.stream import AuditStream
from exectrail_agent.audit.trace import Trace
from exectrail_agent.audit.waiting import BEHIND_SECONDS
from exectrail_agent.events import Event, ExecEvent, LiveSession, SensorError, Task
from exectrail_agent.proc import ProcReader

FOUND_FILE = "/run/exectrail/audit-found.json"

_BATCH = 512
_ROUNDS = 16
_DRAIN = 1 << 16
_CHECK_SECONDS = 5.0
_OPEN_SECONDS = 2.0
_GAP_SECONDS = 5.0
_EVIDENCE_SECONDS = 10.0


class AuditSensor:
    """Tells the same events as the bpf sensor.

    Besides when `fileno()` is readable, `read()` has to be called once a second: records that do
    not come, odd exits and the state of kernel audit have no descriptor. Any call may raise
    SensorError.
    """

    name = "audit"
    resumed = False

    def __init__(
        self, *, everything: bool = False, proc: str = "/proc", found: str = FOUND_FILE
    ) -> None:
        """Start; FOUND is the file that keeps kernel audit's settings over a crash."""
        machine = os.uname().machine
        if machine not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise SensorError(f"the audit sensor knows the calls of {known}, not of {machine}")
        self.taken: Callable[[int], None] = lambda _: None
        self._denials = Denials(lambda line: sys.stderr.write(f"{line}\n"))
        self._last_number = 0
        self._check_rules = False
        self._checked = time.monotonic()
        self._evidence: dict[str, float] = {}
        self._trace = Trace(ProcReader(proc), self._number, self._cause, everything=everything)
        self._assembler = Assembler(calls(machine).get, self._wants)
        # First the connector: it must know of every exec that audit tells of.
        self._connector = ProcConnector()
        try:
            self._stream = AuditStream(wanted(machine), found)
        except SensorError:
            self._connector.close()
            raise
        # Execs from before the rules were there have no records: who was there is in /proc.
        for _ in self._connector.read(_DRAIN):
            pass
        self._trace.resync()
        self._trace.since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._lost_before = self._stream.lost
        self._ahead, self._ahead_since = 0, float("-inf")
        self._seen: dict[str, int] = {}
        self._connector_overruns = 0
        self._epoll = select.epoll()
        for source in (self._connector, self._stream):
            self._epoll.register(source.fileno(), select.EPOLLIN)

    @property
    def owner(self) -> bool:
        """Whether kernel audit is this process's own; else it listens beside the owner."""
        return self._stream.owner

    def fileno(self) -> int:
        """Return what is readable when events wait."""
        return self._epoll.fileno()

    def read(self) -> Sequence[Event]:
        """Return the events that wait, in the order in which they happened."""
        now = time.monotonic()
        self._compare_clocks(now)
        behind = all(self._round(now) for _ in range(_ROUNDS))
        patience = now - _OPEN_SECONDS
        waits = self._trace.overdue(now) or self._assembler.overdue(patience)
        if waits or self._check_rules or now - self._checked > _CHECK_SECONDS:
            self._check(now)
            behind = behind or self._stream.backlog > 0
        for call in self._assembler.expire(patience - BEHIND_SECONDS if behind else patience):
            self._trace.call(call)
        self._assembler.serials.expire(now - _GAP_SECONDS)
        self._weigh(now)
        heard = self._since_boot(self._assembler.latest) if behind else math.inf
        events = self._trace.take(now, heard)
        self.taken(sum(isinstance(event, ExecEvent) for event in events))
        return events

    def fill(self) -> float:
        """Return how full the kernel's queue was when it was last asked, every few seconds."""
        limit = self._stream.backlog_limit
        return self._stream.backlog / limit if limit else 0.0

    def drop(self, session: int) -> None:
        """Say that a session is no access: nothing more of it is told."""
        self._trace.drop(session)

    def live(self) -> Sequence[LiveSession]:
        """Return the sessions that are open."""
        return self._trace.live()

    def adopt(self, sessions: Sequence[Sequence[Task]]) -> Sequence[int]:
        """Take processes into sessions that began unseen. See events.Sensor."""
        return self._trace.adopt(sessions)

    def losses(self) -> Mapping[str, int]:
        """Return how many events were lost by cause, since this sensor was made.

        ``exec-`` causes count execs that no record told of, ``exit-status`` exits without their
        status. Of what the others count nobody knows whether there were execs among it that
        nothing else tells of: events of the connector (``connector-overrun``), records of audit
        (``audit-overrun``, ``audit-backlog``) and whole events of audit (``audit-gap``).
        """
        counts = {"connector-overrun": self._connector.dropped, **self._missing()}
        return {**self._trace.lost, **{cause: count for cause, count in counts.items() if count}}

    def close(self, *, keep: bool) -> None:
        """Let go, and leave kernel audit as it was found; a second time is no mistake.

        Nothing can go on without this process, so `keep` changes nothing.
        """
        del keep
        if not self._epoll.closed:
            self._epoll.close()
            self._connector.close()
            self._stream.close()

    def _round(self, now: float) -> bool:
        # Audit is read first and used last: whatever it tells of, the connector has told by then.
        messages = list(self._stream.read(_BATCH))
        some = bool(messages)
        for event in self._connector.read(_DRAIN):
            some = True
            self._trace.proc(event, now)
        if self._connector.overruns != self._connector_overruns:
            self._connector_overruns = self._connector.overruns
            self._trace.resync()
        for message in messages:
            if message.kind == CONFIG_CHANGE:
                self._check_rules = True
            elif message.kind == REPLACE:
                self._stream.step_down()
            elif self._stream.owner:
                self._denials.take(message.kind, message.payload, now)
            for call in self._assembler.add(message.kind, message.payload, now):
                self._trace.call(call)
        return some

    def _wants(self, name: str, caller: Caller, stamp: Stamp) -> bool:
        began = self._since_boot(stamp.time)
        return self._trace.wants(name, caller, stamp.serial, began, time.monotonic())

    def _since_boot(self, wall: int) -> int:
        """Convert a stamp; of one from before the clock was set the result may be too early."""
        return wall - self._ahead

    def _compare_clocks(self, now: float) -> None:
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ahead = time.time_ns() - boot
        if ahead >= self._ahead or now - self._ahead_since > BEHIND_SECONDS:
            self._ahead, self._ahead_since = ahead, now

    def _check(self, now: float) -> None:
        rules, self._check_rules, self._checked = self._check_rules, False, now
        for reason in self._stream.check(rules=rules):
            self._evidence[reason] = now

    def _weigh(self, now: float) -> None:
        """Note what speaks for losses."""
        counts = self._missing()
        for cause, count in counts.items():
            if count > self._seen.get(cause, 0):
                self._evidence[cause] = now
        self._seen = counts

    def _missing(self) -> dict[str, int]:
        return {
            "audit-backlog": (self._stream.lost - self._lost_before) & 0xFFFFFFFF,
            "audit-overrun": self._stream.dropped,
            "audit-gap": self._assembler.serials.missing,
        }

    def _cause(self) -> str:
        since = time.monotonic() - _EVIDENCE_SECONDS
        recent = [reason for reason, when in self._evidence.items() if when > since]
        for reason in ("disabled", "rules", "owner", "audit-overrun", "audit-backlog", "audit-gap"):
            if reason in recent:
                return f"exec-{reason.rpartition('-')[2]}"
        return "exec-hidden" if self._stream.hiding else "exec-unexplained"

    def _number(self) -> int:
        self._last_number = max(self._last_number + 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return self._last_number
