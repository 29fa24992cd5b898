"""What an agent is made of, put together as its configuration says."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from exectrail_agent.address import own_address
from exectrail_agent.clock import Clock
from exectrail_agent.config import Config
from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.containers.kubelet import KubeletPods, api_server
from exectrail_agent.events import Sensor
from exectrail_agent.log.ids import IdSource
from exectrail_agent.log.ledger import Ledger
from exectrail_agent.log.loss import LossAccountant
from exectrail_agent.log.records import NodeIdentity, RecordMaker
from exectrail_agent.log.writer import RecordWriter
from exectrail_agent.sessions.tracker import SessionTracker

LOG = "advaudit.log"


@dataclass
class Parts:
    """What the loop works with.

    `nobody` is why there is no one to ask about pods; `left` is the boot time in nanoseconds at
    which an earlier agent of this boot has last saved its state, 0 if there was none.
    """

    sensor: Sensor
    index: ContainerIndex
    pods: KubeletPods | None
    nobody: str
    maker: RecordMaker
    tracker: SessionTracker
    writer: RecordWriter
    losses: LossAccountant
    ledger: Ledger
    left: int


def assemble(config: Config, sensor: Sensor, clock: Clock, saved: dict[str, object]) -> Parts:
    """Make the parts; `saved` is what an earlier agent has left. Raises what they raise."""
    node = NodeIdentity(
        cluster_id=config.get("agent", "cluster_id"),
        name=config.get("agent", "node_name") or socket.gethostname(),
        ip=own_address(),
        boot=_boot(),
    )
    pods, nobody = pods_source(config, node.name)
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
    saved = saved if saved.get("boot") == node.boot else {}
    sessions, left = saved.get("sessions"), saved.get("time")
    if isinstance(sessions, dict):
        tracker.restore(sessions)
    losses = losses_so_far(maker, saved, resumed=sensor.resumed)
    left = left if isinstance(left, int) else 0
    return Parts(sensor, index, pods, nobody, maker, tracker, writer, losses, ledger, left)


def losses_so_far(maker: RecordMaker, saved: dict[str, object], *, resumed: bool) -> LossAccountant:
    """Begin with what an earlier agent has told of; it owes the rest if nothing was `resumed`."""
    totals, until = saved.get("losses"), saved.get("time")
    told = saved.get("told", totals)
    if not (isinstance(totals, dict) and isinstance(told, dict) and isinstance(until, int)):
        return LossAccountant(maker, since=0 if resumed else maker.clock.now())
    if resumed:
        return LossAccountant(maker, told, until)
    owed = {cause: told.get(cause, 0) - total for cause, total in totals.items()}
    return LossAccountant(maker, owed, until if any(owed.values()) else maker.clock.now())


def pods_source(config: Config, node: str) -> tuple[KubeletPods | None, str]:
    """Return who can be asked about pods; else None, and why not if somebody wants it."""
    if config.get("kubernetes", "pods") == "off":
        return None, ""
    kubeconfig = str(config.get("kubernetes", "kubeconfig"))
    try:
        return KubeletPods(api_server(node, kubeconfig)), ""
    except OSError as error:
        return None, f"{kubeconfig}: {error.strerror}"
    except ValueError as error:
        return None, str(error)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
