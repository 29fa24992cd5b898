"""The sensor for kernels that the bpf sensor can't run on: kernel audit and process connector.

The sessions live in this process: nothing goes on in the kernel while it is away.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Mapping, Sequence

from exectrail_agent.audit.connector import ProcConnector
from exectrail_agent.audit.log import AuditLog
from exectrail_agent.audit.parse import CONFIG_CHANGE, REPLACE, Assembler, Stamp
from exectrail_agent.audit.places import ProcReader
from exectrail_agent.audit.rules import ARCHITECTURES, calls, wanted
from exectrail_agent.audit.trace import Trace
from exectrail_agent.events import Event, LiveSession, SensorError

FOUND_FILE = "/run/exectrail/audit-found.json"

_BATCH = 512
_ROUNDS = 16
_DRAIN = 1 << 16
_CHECK_SECONDS = 5.0
_OPEN_SECONDS = 2.0
_EVIDENCE_SECONDS = 10.0


class AuditSensor:
    """Tells the same events as the bpf sensor.

    Besides when `fileno()` is readable, `read()` has to be called once a second: records that do
    not come, odd exits and the state of kernel audit have no descriptor. Any call may raise
    SensorError.
    """

    name = "audit"

    def __init__(
        self, *, everything: bool = False, proc: str = "/proc", found: str = FOUND_FILE
    ) -> None:
        """Start; FOUND is the file that keeps kernel audit's settings over a crash."""
        machine = os.uname().machine
        if machine not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise SensorError(f"the audit sensor knows the calls of {known}, not of {machine}")
        self._last_number = 0
        self._records_lost = 0
        self._check_rules = False
        self._checked = time.monotonic()
        self._evidence: dict[str, float] = {}
        self._unexplained: list[tuple[float, int, int]] = []
        self._trace = Trace(ProcReader(proc), self._number, self._cause, everything=everything)
        self._assembler = Assembler(calls(machine).get, self._wants)
        # First the connector: it must know of every exec that audit tells of.
        self._connector = ProcConnector()
        try:
            self._log = AuditLog(wanted(machine), found)
        except SensorError:
            self._connector.close()
            raise
        # Execs from before the rules were there have no records, and `live` tells of the rest.
        for _ in self._connector.read(_DRAIN):
            pass
        self._seen = {"backlog": self._log.lost, "overrun": 0, "gap": 0}
        self._connector_overruns = 0
        self._epoll = select.epoll()
        for source in (self._connector, self._log):
            self._epoll.register(source.fileno(), select.EPOLLIN)

    @property
    def owner(self) -> bool:
        """Whether kernel audit is this process's own; else it listens beside the owner."""
        return self._log.owner

    def fileno(self) -> int:
        """Return what is readable when events wait."""
        return self._epoll.fileno()

    def read(self) -> Sequence[Event]:
        """Return the events that wait, in the order in which they happened."""
        now = time.monotonic()
        for _ in range(_ROUNDS):
            if not self._round(now):
                break
        for call in self._assembler.expire(now - _OPEN_SECONDS):
            self._trace.call(call)
        if self._check_rules or now - self._checked > _CHECK_SECONDS:
            self._check(now)
        self._weigh(now)
        return self._trace.take(now)

    def drop(self, session: int) -> None:
        """Say that a session is no access: nothing more of it is told."""
        self._trace.drop(session)

    def live(self) -> Sequence[LiveSession]:
        """Return a session for each process that is elsewhere than its parent, with those below.

        Nobody has judged them: most are services and containers, to be dropped. To be called once,
        before the first `read()`.
        """
        return self._trace.live()

    def losses(self) -> Mapping[str, int]:
        """Return how many events were lost by cause, since this sensor was made.

        ``exec-`` causes count execs that no record told of; ``connector-overrun`` exits of which
        the status is not known; ``audit-records`` records that are missing though no exec is.
        """
        found = dict(self._trace.lost)
        if self._records_lost:
            found["audit-records"] = self._records_lost
        return found

    def close(self, *, keep: bool) -> None:
        """Let go, and leave kernel audit as it was found; a second time is no mistake.

        Nothing can go on without this process, so `keep` changes nothing.
        """
        del keep
        if not self._epoll.closed:
            self._epoll.close()
            self._connector.close()
            self._log.close()

    def _round(self, now: float) -> bool:
        # Audit is read first and used last: whatever it tells of, the connector has told by then.
        messages = list(self._log.read(_BATCH))
        some = bool(messages)
        for event in self._connector.read(_BATCH * 4):
            some = True
            self._trace.proc(event, now)
        if self._connector.overruns != self._connector_overruns:
            self._connector_overruns = self._connector.overruns
            self._trace.resync(now)
        for message in messages:
            if message.kind == CONFIG_CHANGE:
                self._check_rules = True
            elif message.kind == REPLACE:
                self._log.step_down()
            for call in self._assembler.add(message.kind, message.payload, now):
                self._trace.call(call)
        return some

    def _wants(self, name: str, pid: int, stamp: Stamp) -> bool:
        ahead = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        began = stamp.time - ahead
        return self._trace.wants(name, pid, stamp.serial, began, time.monotonic())

    def _check(self, now: float) -> None:
        rules, self._check_rules, self._checked = self._check_rules, False, now
        for reason in self._log.check(rules=rules):
            self._evidence[reason] = now

    def _weigh(self, now: float) -> None:
        """Note what speaks for losses; what no missing exec explains is counted by itself."""
        counts = {
            "backlog": self._log.lost,
            "overrun": self._log.overruns,
            "gap": self._assembler.serials.missing,
        }
        missing = sum(self._trace.lost.values())
        for reason, count in counts.items():
            if count > self._seen[reason]:
                self._evidence[reason] = now
                self._unexplained.append((now, count - self._seen[reason], missing))
        self._seen = counts
        while self._unexplained and self._unexplained[0][0] < now - _EVIDENCE_SECONDS:
            _, count, before = self._unexplained.pop(0)
            if missing == before:
                self._records_lost += count

    def _cause(self) -> str:
        since = time.monotonic() - _EVIDENCE_SECONDS
        recent = [reason for reason, when in self._evidence.items() if when > since]
        for reason in ("disabled", "rules", "owner", "overrun", "backlog", "gap"):
            if reason in recent:
                return f"exec-{reason}"
        return "exec-hidden" if self._log.hiding else "exec-unexplained"

    def _number(self) -> int:
        self._last_number = max(self._last_number + 1, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return self._last_number
