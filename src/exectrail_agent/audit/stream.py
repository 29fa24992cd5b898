"""Kernel audit made to record execs, shared with whoever else uses it, and left as it was found."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from exectrail_agent.audit import control
from exectrail_agent.audit.control import AuditControl, FoundSettings, Status
from exectrail_agent.audit.parse import PROCTITLE
from exectrail_agent.audit.rules import (
    Rule,
    may_hide,
    missing,
    records_execs,
    switches_off,
)
from exectrail_agent.events import SensorError
from exectrail_agent.netlink import (
    JUMP_EQUAL,
    LOAD_HALF,
    REQUEST_WITH_ANSWER,
    RETURN,
    Frame,
    Instruction,
    NetlinkSocket,
    frame,
)

_READ_LOG_GROUP = 1
_BUFFER_BYTES = 16 << 20
_TYPE_AT = 4
_TUNED = control.ENABLED | control.RATE_LIMIT | control.BACKLOG_LIMIT | control.BACKLOG_WAIT
_LIMITS = ("rate_limit", "backlog_limit", "backlog_wait_time")


class AuditStream:
    """The stream of audit records, with the rules that make the kernel write them.

    - `owner`: this process owns kernel audit; else it listens beside who does.
    - `hiding`: rules of others may keep execs from being recorded.
    - `lost`: records that the kernel could not queue, since boot; `backlog`: records that wait in
      its queue, which holds `backlog_limit`. All as of the last `check`.
    """

    def __init__(self, rules: Sequence[Rule], found: str) -> None:
        """Start; raises SensorError with what would help."""
        self.owner = False
        self.hiding = False
        self.lost = 0
        self.backlog = self.backlog_limit = 0
        self._wanted = rules
        self._found = FoundSettings(found)
        self._before: Status | None = None
        self._socket: NetlinkSocket | None = None
        # Whoever may not use kernel audit may not give it back either.
        self._found.take()
        try:
            self._control = AuditControl()
        except SensorError:
            self._found.release()
            raise
        try:
            self._begin()
        except (SensorError, OSError) as problem:
            self.close()
            if isinstance(problem, OSError):
                raise SensorError(
                    f"kernel audit can't be listened to ({problem.strerror}): that needs "
                    "CAP_AUDIT_READ and the node's own network namespace"
                ) from problem
            raise

    @property
    def dropped(self) -> int:
        """How many records did not fit into the socket."""
        return self._receiver.dropped

    def fileno(self) -> int:
        """Return what is readable when records wait."""
        return self._receiver.fileno()

    def read(self, most: int) -> Iterator[Frame]:
        """Give the messages that wait, at most MOST."""
        for datagram in self._receiver.datagrams(most):
            message = frame(datagram)
            if message:
                yield message

    def check(self, *, rules: bool) -> Sequence[str]:
        """Put right what others changed, with RULES the rules too; say why records are missing.

        The reasons are ``rules`` (they had been removed), ``disabled`` (audit is switched off) and
        ``owner`` (the kernel had given this owner up). Raises SensorError.
        """
        status = self._control.status()
        self.lost = status.lost
        self.backlog, self.backlog_limit = status.backlog, status.backlog_limit
        reasons = []
        if self.owner and status.pid != os.getpid():
            reasons.append("owner")
            self._own(status)
        if status.enabled == control.OFF:
            reasons.append("disabled")
        elif rules and self._ensure_rules(status):
            reasons.append("rules")
        return reasons

    def step_down(self) -> None:
        """Let somebody else own kernel audit, and go on beside them. Raises SensorError."""
        if not self.owner:
            return
        before, self._before = self._before, None
        with contextlib.suppress(SensorError):
            self._restore(before, control.ENABLED)
        self._found.forget()
        self._leave()
        self._receiver.join(_READ_LOG_GROUP)

    def close(self) -> None:
        """Remove the agent's rules, give the settings back and let go. Raises nothing."""
        with contextlib.suppress(SensorError):
            for rule in self._control.rules():
                if rule.ours:
                    self._control.remove(rule)
        if self.owner:
            with contextlib.suppress(SensorError):
                self._restore(self._before, 0)
                self._found.forget()
            self._leave()
        self._control.close()
        if self._socket:
            self._socket.close()
        self._found.release()

    @property
    def _receiver(self) -> NetlinkSocket:
        if self._socket is None:
            raise SensorError("kernel audit is not open")
        return self._socket

    def _begin(self) -> None:
        status = self._control.status()
        if status.pid and status.enabled == control.OFF:
            raise SensorError(
                f"audit is switched off, though process {status.pid} owns it: run `auditctl -e 1`"
            )
        self.lost = status.lost
        # No PROCTITLE: it comes with every call and tells nothing that the others don't.
        self._socket = NetlinkSocket(
            control.FAMILY, receive_bytes=_BUFFER_BYTES, program=_without(PROCTITLE)
        )
        self._own(status)
        self._ensure_rules(self._control.status())

    def _own(self, status: Status) -> None:
        self.owner = False
        if not status.pid:
            # The kernel sends records to the socket that asks for them, and refuses while another
            # owner lives.
            request = control.settings(control.PROCESS, replace(status, pid=os.getpid()))
            self._receiver.send(control.SET, 0, request, REQUEST_WITH_ANSWER)
            self.owner = self._control.status().pid == os.getpid()
        if not self.owner:
            self._found.forget()
            self._receiver.join(_READ_LOG_GROUP)
        elif status.enabled != control.IMMUTABLE:
            self._before = self._before or self._found.load() or status
            self._found.save(self._before)
            # Nobody's exec may wait for this agent: what can't be queued is lost, and counted.
            tuned = replace(
                status,
                enabled=1,
                rate_limit=0,
                backlog_limit=max(status.backlog_limit, control.BACKLOG),
                backlog_wait_time=0,
            )
            self._control.change(_TUNED, tuned)

    def _ensure_rules(self, status: Status) -> bool:
        """Add what is missing; say whether anything was."""
        present = self._control.rules()
        if any(switches_off(rule) for rule in present):
            raise SensorError(
                "the rule `-a never,task` switches the audit of system calls off: remove it from "
                "/etc/audit/rules.d and load the rules again"
            )
        self.hiding = any(may_hide(rule, self._wanted) for rule in present)
        own = [rule for rule in present if rule.ours]
        if status.enabled == control.IMMUTABLE or status.failure == control.PANIC:
            self._must_do_with(present, immutable=status.enabled == control.IMMUTABLE)
            return False
        lacking = missing(self._wanted, [rule for rule in present if not rule.ours])
        for rule in own:
            if rule not in lacking:
                self._control.remove(rule)
        new = [rule for rule in lacking if rule not in own]
        for rule in new:
            self._control.add(rule)
        return bool(new)

    def _must_do_with(self, present: Sequence[Rule], *, immutable: bool) -> None:
        if not any(records_execs(rule) for rule in missing(self._wanted, present)):
            return
        lines = "\n".join(rule.text for rule in self._wanted)
        if immutable:
            raise SensorError(
                "the audit rules are immutable (`-e 2`) and don't record every exec: put this into "
                f"/etc/audit/rules.d/exectrail.rules and restart the node\n{lines}"
            )
        raise SensorError(
            "the kernel is set to panic when it loses an audit record (`-f 2`), so the agent adds "
            f"no rule: set `-f 1`, or load these rules yourself\n{lines}"
        )

    def _restore(self, before: Status | None, but: int) -> None:
        """Put back what is still as the agent had set it."""
        now = self._control.status()
        if before is None or now.enabled == control.IMMUTABLE:
            return
        self._control.change(
            _TUNED & ~but,
            replace(now, **{name: getattr(before, name) for name in ("enabled", *_LIMITS)}),
        )

    def _leave(self) -> None:
        self.owner = False
        with contextlib.suppress(SensorError):
            status = self._control.status()
            self._control.change(control.PROCESS, replace(status, pid=0))


def _without(kind: int) -> Sequence[Instruction]:
    # The filter reads the type as big-endian, the message has the machine's own order.
    swapped = int.from_bytes(kind.to_bytes(2, "little"), "big")
    return (
        (LOAD_HALF, 0, 0, _TYPE_AT),
        (JUMP_EQUAL, 0, 1, swapped),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, 0xFFFFFFFF),
    )
