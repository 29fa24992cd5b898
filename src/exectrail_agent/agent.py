"""The loop: sensor, containers, sessions, log, and whether all that still works."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from exectrail_agent import __version__, health, state
from exectrail_agent.assembly import assemble
from exectrail_agent.canary import Canary, CanaryError
from exectrail_agent.clock import Clock
from exectrail_agent.config import Config
from exectrail_agent.events import Event, Sensor
from exectrail_agent.notify import Notifier
from exectrail_agent.proc import ProcReader
from exectrail_agent.sessions import unseen
from exectrail_agent.sessions.narrator import Outcome

_STATUS_SECONDS = 5.0
_SECOND = 1.0
_SAVING = 10
"""Times as long as it takes to save the state, until it may be saved again."""
_MANY = 256
_BUSY = 64
_WAITS = {"bpf": (0.25, 1.0), "audit": (0.01, 0.01)}
"""Seconds to wait for more events; the second, once `_BUSY` have come together: a wake-up for many
costs a fraction of one for each. All that the audit sensor tells is completed from /proc, where its
processes are to be found only as long as they live."""
_STEP = 0.25
_SPARE = 0.1
"""How full the kernel's buffer may be to wait on, looked at every `_STEP` seconds."""
_GARBAGE = 20_000
"""Objects that come until those that refer to each other are looked for: some turns of a flood."""
_ROUNDS = 256
"""More than a ring holds. In an endless flood too, losses are told and the watchdog is served."""
_CALM = 2.0
"""Seconds without a loss after which the open sessions are compared with the kernel's."""
_DESCRIBED = 2.0
"""Seconds after which the containers that were there at the start have been described."""
_LASTING = ("Kubernetes", "SessionEnd")
"""Records after which the state that outlives a restart is another."""


class Agent:
    """One run of the agent. Raises what its parts raise when they are made; see cli.py."""

    def __init__(self, config: Config, sensor: Sensor, notifier: Notifier) -> None:
        self._config = config
        self._notifier = notifier
        self._clock = Clock()
        self._state = Path(config.get("paths", "state")) / "state.json"
        self._runtime: Path = config.get("paths", "runtime")
        self._parts = assemble(config, sensor, self._clock, state.load(self._state))
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
        self._busy = False
        self._due = dict.fromkeys(("status", "save", "watchdog", "canary"), 0.0)
        self._past = health.Past(self._parts.losses.totals)
        self._soonest = 0.0
        self._compare_at = 0.0
        self._adopt_at = 0.0
        self._canary_problem = ""
        self._fill = 0.0
        self._unmeasured = ""
        self._state_word = ""

    def run(self) -> None:
        """Work until SIGTERM or SIGINT; SIGUSR1 asks for a self-test."""
        parts = self._parts
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGUSR1, self._prove_now)
        poll, others = select.epoll(), select.epoll()
        for descriptor in (reader, parts.index.fileno()):
            others.register(descriptor, select.EPOLLIN)
        for descriptor in (others.fileno(), parts.sensor.fileno()):
            poll.register(descriptor, select.EPOLLIN)
        now = self._now()
        self._follow(parts.tracker.recover(parts.sensor.live(), now))
        if not parts.sensor.resumed:
            self._tell_of_absence(now)
            self._adopt(now)
            self._adopt_at = now + _DESCRIBED
        self._turn()
        # What is there by now stays; what an event makes goes without being looked for.
        gc.freeze()
        gc.set_threshold(_GARBAGE)
        self._notifier.say(f"READY=1\nSTATUS=sensor {parts.sensor.name}")
        while not self._stopping:
            ready = [descriptor for descriptor, _ in poll.poll(self._pause())]
            if parts.sensor.fileno() in ready:
                self._gather(others, reader)
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 512)
            self._turn()
        poll.close()
        others.close()
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)

    def _gather(self, others: select.epoll, reader: int) -> None:
        """Let more events come, and look at containers meanwhile: some are soon gone."""
        parts = self._parts
        left = _WAITS[parts.sensor.name][self._busy]
        end = self._now() + left
        while left > 0 and parts.sensor.fill() <= _SPARE:
            for descriptor, _ in others.poll(min(left, _STEP)):
                if descriptor == reader:
                    return
                parts.index.refresh()
            left = end - self._now()

    def close(self, *, keep: bool) -> None:
        """Write all that is held back and let go; with `keep` capture goes on in the kernel."""
        parts = self._parts
        self._notifier.say("STOPPING=1")
        self._canary.close()
        self._read()
        self._follow(parts.tracker.flush(self._now()))
        self._tell_losses()
        if not parts.writer.owes:
            parts.losses.settle()
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
        if parts.pods is not None and parts.pods.wait(now) <= 0:
            parts.pods.poll(now)
        due = parts.tracker.next_due()
        if due is not None or self._due["status"] <= now:
            self._follow(parts.tracker.tick(now))
        jump = self._clock.sample()
        if jump:
            self._past.jump(jump.nanoseconds, now)
            parts.writer.append([parts.maker.clock_jump(jump)])
            self._due["status"] = now
        if self._tell_losses() and parts.sensor.name == "bpf":
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
        if not parts.writer.owes:
            parts.losses.settle()
        self._prove(now)
        if self._dirty and self._due["save"] <= now:
            begun = self._now()
            self._save()
            self._due["save"] = begun + _SECOND
            self._soonest = begun + _SAVING * (self._now() - begun)
        if self._due["status"] <= now:
            parts.index.expire(time.monotonic())
            self._tell(now)
            self._due["status"] = now + _STATUS_SECONDS
        self._alive()

    def _tell_losses(self) -> bool:
        """Tell of what the sensor has lost, and whether it has."""
        lost = self._parts.losses.update(self._parts.sensor.losses())
        if lost:
            self._parts.writer.append(lost)
            # Who comes after a crash would tell of it again.
            self._dirty, self._due["save"] = True, min(self._due["save"], self._soonest)
        return bool(lost)

    def _tell_of_absence(self, now: float) -> None:
        """Say that nobody watched since an earlier agent of this boot: not even a count is left."""
        if self._parts.left:
            seconds = now - self._parts.left / 1e9
            what = f"nobody watched for {seconds:.1f} s at most: what ran then is not known"
            self._record("notice", "unwatched", what)

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
        self._fill = max(self._fill, parts.sensor.fill())
        for turn in range(_ROUNDS):
            events = parts.sensor.read()
            self._busy = bool(turn) or len(events) >= _BUSY
            parts.index.refresh()
            if not events:
                return
            now = self._now()
            self._status.lag = max(0.0, now - events[-1].time / 1e9)
            theirs = self._without_canary(events, now) if self._canary.flying else events
            self._follow(parts.tracker.handle(theirs, now))
            if len(events) < enough and parts.sensor.fill() <= _SPARE:
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
        self._past.lose(status.losses, now)
        status.losses = {cause: count for cause, count in status.losses.items() if count}
        status.fill, self._fill = round(self._fill, 4), 0.0
        status.sessions = parts.tracker.open_sessions
        status.containers = len(parts.index.all())
        status.reasons = list(self._reasons(now))
        status.notes = [
            *getattr(parts.sensor, "notices", ()),
            *self._unasked(),
            *([self._unmeasured] if self._unmeasured else []),
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
            self._unmeasured = ""
            try:
                health.write_metrics(status, metrics)
            except OSError as error:
                self._unmeasured = f"{metrics}: {error.strerror}"

    def _reasons(self, now: float) -> list[str]:
        parts = self._parts
        found = [self._canary_problem, parts.writer.problem or ""]
        if not health.proc_is_ours():
            found.append("/proc is of another pid namespace: containers can't be told")
        found += self._past.reasons(now)
        found += [f"{name}: {why}" for name, why in parts.index.problems.items() if name != "pods"]
        return [each for each in found if each]

    def _unasked(self) -> list[str]:
        """Say why nobody tells of pods, if there are any."""
        parts = self._parts
        if parts.pods:
            return [parts.pods.problem] if parts.pods.problem else []
        there = parts.nobody and any(one.pod for one in parts.index.all())
        return [f"labels and probes are not known: {parts.nobody}"] if there else []

    def _record(self, word: str, cause: str, detail: str) -> None:
        self._parts.writer.append([self._parts.maker.health(word, cause, detail)])

    def _save(self) -> None:
        parts = self._parts
        data = {
            "boot": parts.maker.node.boot,
            "time": self._clock.now(),
            "sessions": parts.tracker.snapshot(),
            "losses": parts.losses.totals,
            "told": parts.losses.told,
        }
        with contextlib.suppress(OSError):
            # Without it the next agent finds the sessions in the kernel, under new ids.
            state.save(self._state, data)
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
