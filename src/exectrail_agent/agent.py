"""The loop: sensor, containers, sessions, log, and whether all that still works."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exectrail_agent import __version__, health, state
from exectrail_agent.address import own_address
from exectrail_agent.canary import Canary, CanaryError
from exectrail_agent.clock import Clock
from exectrail_agent.config import Config
from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.containers.kubelet import KubeletPods, api_server
from exectrail_agent.events import Event, Sensor
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.ledger import Ledger
from exectrail_agent.log.loss import LossAccountant
from exectrail_agent.log.records import NodeIdentity, RecordMaker
from exectrail_agent.log.writer import RecordWriter
from exectrail_agent.notify import Notifier
from exectrail_agent.proc import ProcReader
from exectrail_agent.sessions import unseen
from exectrail_agent.sessions.narrator import Outcome
from exectrail_agent.sessions.tracker import SessionTracker

_STATUS_SECONDS = 5.0
_SECOND = 1.0
_BURST = 0.01
_MANY = 256
_FLOODS = ((_MANY, 0.05), (16, 0.15), (0, _BURST))
"""Seconds to wait for more events, once at least so many have come together: for a flood's until
there are many. A person's few commands wait less: their parents can be looked up in /proc only as
long as they live. All that the audit sensor tells is completed from there."""
_ROUNDS = 256
"""More than a ring holds. In an endless flood too, losses are told and the watchdog is served."""
_CALM = 2.0
"""Seconds without a loss after which the open sessions are compared with the kernel's."""
_DESCRIBED = 2.0
"""Seconds after which the containers that were there at the start have been described."""
_MEMORY = 600.0
"""Seconds for which a loss keeps the agent degraded."""
_LASTING = ("Kubernetes", "SessionEnd", "Loss")
"""Records after which the state that outlives a restart is another."""
LOG = "advaudit.log"


@dataclass
class Parts:
    """What the loop works with."""

    sensor: Sensor
    index: ContainerIndex
    pods: KubeletPods | None
    maker: RecordMaker
    tracker: SessionTracker
    writer: RecordWriter
    losses: LossAccountant
    ledger: Ledger


class Agent:
    """One run of the agent. Raises what its parts raise when they are made; see cli.py."""

    def __init__(self, config: Config, sensor: Sensor, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        self._clock = Clock()
        self._state = Path(config.get("paths", "state")) / "state.json"
        self._runtime: Path = config.get("paths", "runtime")
        self._parts = _assemble(config, sensor, self._clock, state.load(self._state))
        self._parts.writer.alive = self._alive
        sensor.taken = self._parts.ledger.take
        self._canary = Canary()
        self._status = health.Status(
            version=__version__,
            pid=os.getpid(),
            started=time.time(),
            sensor=sensor.name,
            pinned=bool(getattr(sensor, "pinned", False)),
            restarts=_count_start(self._runtime),
            canary_seconds=config.get("health", "canary_seconds"),
        )
        self._stopping = False
        self._dirty = False
        self._burst = _BURST
        self._due = dict.fromkeys(("status", "save", "watchdog", "canary"), 0.0)
        self._lost_at = -_MEMORY
        self._compare_at = 0.0
        self._adopt_at = 0.0
        self._canary_problem = ""
        self._state_word = ""

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; SIGUSR1 asks for a self-test."""
        parts = self._parts
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGUSR1, self._prove_now)
        poll = select.epoll()
        for descriptor in (reader, parts.sensor.fileno(), parts.index.fileno()):
            poll.register(descriptor, select.EPOLLIN)
        now = self._now()
        parts.tracker.restore(state.load(self._state).get("sessions", {}))
        self._follow(parts.tracker.recover(parts.sensor.live(), now))
        if not parts.sensor.resumed:
            self._adopt(now)
            self._adopt_at = now + _DESCRIBED
        self._turn()
        self._notifier.say(f"READY=1\nSTATUS=sensor {parts.sensor.name}")
        while not self._stopping:
            for descriptor, _ in poll.poll(self._pause()):
                if descriptor == reader:
                    with contextlib.suppress(BlockingIOError):
                        os.read(reader, 512)
                elif descriptor == parts.sensor.fileno():
                    # Events come in bursts: one wake-up for many costs a fraction.
                    time.sleep(self._burst)
            self._turn()
        poll.close()
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)

    def close(self, *, keep: bool) -> None:
        """Write what is held back and let go; with `keep` capture goes on in the kernel."""
        parts = self._parts
        self._notifier.say("STOPPING=1")
        self._canary.close()
        self._read()
        if not keep:
            self._follow(parts.tracker.flush(self._now()))
        self._save()
        parts.sensor.close(keep=keep)
        parts.writer.close()
        parts.index.close()

    # ---- one turn ----

    def _turn(self) -> None:
        parts = self._parts
        # What comes meanwhile wakes it again.
        self._read(_MANY)
        now = self._now()
        due = parts.tracker.next_due()
        if due is not None or self._due["status"] <= now:
            self._follow(parts.tracker.tick(now))
        lost = parts.losses.update(parts.sensor.losses())
        if lost:
            self._lost_at = now
            parts.writer.append(lost)
            if parts.sensor.name == "bpf":
                self._compare_at = now + _CALM
        if self._compare_at and self._compare_at <= now:
            # The beginning or the end of a session may be among what was lost.
            self._compare_at = 0.0
            self._follow(parts.tracker.recover(parts.sensor.live(), now))
        if self._adopt_at and self._adopt_at <= now:
            # Of some containers it was not known yet whether to start them is to enter them.
            self._adopt_at = 0.0
            self._adopt(now)
        parts.writer.tick()
        if parts.pods is not None and parts.pods.wait(now) <= 0:
            parts.pods.poll(now)
        self._prove(now)
        if self._dirty and self._due["save"] <= now:
            self._save()
            self._due["save"] = now + _SECOND
        if self._due["status"] <= now:
            parts.index.expire(time.monotonic())
            self._tell(now)
            self._due["status"] = now + _STATUS_SECONDS
        self._alive()

    def _adopt(self, now: float) -> None:
        """Follow the sessions that began before there was anything in the kernel to see them."""
        parts = self._parts
        found = unseen.find(parts.index, ProcReader())
        self._follow(parts.tracker.adopt(found, parts.sensor.adopt(found), now))

    def _read(self, enough: int = 1) -> None:
        """Take what waits, until there are fewer than `enough` events at once.

        Containers are looked at after it, so that they are known.
        """
        parts = self._parts
        taken = 0
        for _ in range(_ROUNDS):
            events = parts.sensor.read()
            taken += len(events)
            parts.index.refresh()
            if parts.sensor.name == "bpf":
                self._burst = next(wait for least, wait in _FLOODS if taken >= least)
            if not events:
                return
            now = self._now()
            self._status.lag = max(0.0, now - events[-1].time / 1e9)
            theirs = self._without_canary(events, now) if self._canary.flying else events
            self._follow(parts.tracker.handle(theirs, now))
            if len(events) < enough:
                return

    def _without_canary(self, events: Sequence[Event], now: float) -> Sequence[Event]:
        theirs = []
        for event in events:
            if self._canary.take(event, now):
                self._follow(Outcome(drops=[event.session], dismissed=1))
            else:
                theirs.append(event)
        return theirs

    def _follow(self, outcome: Outcome) -> None:
        parts = self._parts
        for number in outcome.drops:
            parts.sensor.drop(number)
        if outcome.records:
            parts.writer.append(outcome.records)
            self._status.last_record = time.time()
            kinds = {each.kind for each in outcome.records}
            self._dirty = self._dirty or not kinds.isdisjoint(_LASTING)
        if outcome.dismissed:
            parts.ledger.settle(outcome.dismissed)

    def _pause(self) -> float:
        """Seconds until something is due."""
        now = self._now()
        times = [self._due["status"]]
        if not self._canary.flying:
            times.append(self._due["canary"])
        due = self._parts.tracker.next_due()
        if due is not None:
            times.append(due)
        if self._compare_at:
            times.append(self._compare_at)
        if self._adopt_at:
            times.append(self._adopt_at)
        if self._canary.flying or self._dirty or self._parts.writer.backlog:
            times.append(now + _SECOND)
        if self._parts.sensor.name == "audit":
            # What it looks up by itself wakes nobody.
            times.append(now + _SECOND)
        if self._notifier.watchdog_seconds:
            times.append(self._due["watchdog"])
        if self._parts.pods is not None:
            times.append(now + self._parts.pods.wait(now))
        return max(0.0, min(times) - now)

    # ---- health ----

    def _prove(self, now: float) -> None:
        self._canary.reap()
        if self._canary.seen_after is not None:
            took, self._canary.seen_after = self._canary.seen_after, None
            self._canary_problem = ""
            self._status.canary = time.time()
            self._due["status"] = now
            self._record("healthy", "canary", f"a program of our own was seen after {took:.3f} s")
        elif self._canary.late(now):
            self._canary_problem = "a program of our own was not seen: the sensor is blind"
            self._due["status"] = now
        if self._due["canary"] <= now and not self._canary.flying:
            self._due["canary"] = now + self._config.get("health", "canary_seconds")
            try:
                self._canary.start(now)
            except (CanaryError, OSError) as error:
                self._canary_problem = f"no self-test can be made: {error}"

    def _tell(self, now: float) -> None:
        status, parts = self._status, self._parts
        status.written = time.time()
        status.records = sum(parts.writer.records.values())
        status.losses = {**parts.losses.totals, **parts.writer.lost}
        status.losses = {cause: count for cause, count in status.losses.items() if count}
        status.sessions = parts.tracker.open_sessions
        status.containers = len(parts.index.all())
        status.reasons = list(self._reasons(now))
        status.notes = [
            *getattr(parts.sensor, "notices", ()),
            *([parts.pods.problem] if parts.pods and parts.pods.problem else []),
        ]
        word = "degraded" if status.reasons else "healthy"
        if word != self._state_word:
            self._state_word = word
            self._record(word, "state", "; ".join(status.reasons) or "all is seen")
            self._notifier.say(f"STATUS={word}, sensor {parts.sensor.name}")
        with contextlib.suppress(OSError):
            # Who looks for it finds it stale, which is what the disk makes of it.
            health.write(status, self._runtime)
            metrics = self._config.get("health", "metrics_file")
            if metrics is not None:
                health.write_metrics(status, metrics)

    def _reasons(self, now: float) -> list[str]:
        parts = self._parts
        found = [self._canary_problem, parts.writer.problem or ""]
        if not health.proc_is_ours():
            found.append("/proc is of another pid namespace: containers can't be told")
        if now - self._lost_at < _MEMORY:
            found.append(
                "events were lost in the last ten minutes: "
                + ", ".join(f"{k} {v}" for k, v in sorted(self._status.losses.items()))
            )
        found += [f"{name}: {why}" for name, why in parts.index.problems.items() if name != "pods"]
        return [each for each in found if each]

    def _record(self, word: str, cause: str, detail: str) -> None:
        self._parts.writer.append([self._parts.maker.health(word, cause, detail)])

    def _save(self) -> None:
        data = {"sessions": self._parts.tracker.snapshot(), "losses": self._parts.losses.totals}
        with contextlib.suppress(OSError):
            # Without it the next agent finds the sessions in the kernel, under new ids.
            state.save(self._state, {**data, "boot": _boot()})
            self._dirty = False

    def _alive(self) -> None:
        """Let systemd hear that it works, if it is time to."""
        now = self._now()
        if self._notifier.watchdog_seconds and self._due["watchdog"] <= now:
            self._notifier.say("WATCHDOG=1")
            self._due["watchdog"] = now + self._notifier.watchdog_seconds

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _prove_now(self, *_: object) -> None:
        """Make the self-test at once: somebody wants to know what is true now."""
        self._due["canary"] = 0.0

    def _now(self) -> float:
        return self._clock.now() / 1e9


def _assemble(config: Config, sensor: Sensor, clock: Clock, saved: dict[str, object]) -> Parts:
    node = NodeIdentity(
        cluster_id=config.get("agent", "cluster_id"),
        name=config.get("agent", "node_name") or socket.gethostname(),
        ip=own_address(),
        boot=_boot(),
    )
    pods = _pods(config, node.name)
    index = ContainerIndex(pods=pods)
    maker = RecordMaker(node, IdSource(), clock)
    tracker = SessionTracker(
        maker,
        index,
        hold=config.get("agent", "hold_seconds"),
        everything=config.get("agent", "record") == "all",
        probes=config.get("agent", "probes"),
    )
    runtime: Path = config.get("paths", "runtime")
    ledger = Ledger(runtime / "ledger", node.boot)
    writer = RecordWriter(
        Path(config.get("log", "folder")) / LOG,
        maker,
        max_bytes=config.get("log", "max_size_mb") * 1_000_000,
        max_files=config.get("log", "max_files"),
        ledger=ledger,
    )
    totals = saved.get("losses") if saved.get("boot") == node.boot else None
    losses = LossAccountant(maker, totals if isinstance(totals, dict) else None)
    return Parts(sensor, index, pods, maker, tracker, writer, losses, ledger)


def _pods(config: Config, node: str) -> KubeletPods | None:
    if config.get("kubernetes", "pods") == "off":
        return None
    try:
        return KubeletPods(api_server(node, str(config.get("kubernetes", "kubeconfig"))))
    except (OSError, ValueError):
        # No node of Kubernetes, or not one that lets itself be asked.
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _count_start(runtime: Path) -> int:
    """Count this start; the runtime folder is gone after a boot."""
    path = runtime / "starts"
    try:
        count = int(path.read_text(encoding="ascii")) + 1
    except (OSError, ValueError):
        count = 1
    with contextlib.suppress(OSError):
        path.write_text(str(count), encoding="ascii")
    return count - 1
