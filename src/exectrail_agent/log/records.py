"""The records of the log: what each kind holds, and its line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

from exectrail_agent.clock import Clock, ClockJump
from exectrail_agent.containers.model import Container
from exectrail_agent.log.escape import clean, to_text
from exectrail_agent.log.ids import IdSource

COMMAND = "Command"
LOSS = "Loss"
THROTTLE = "Throttle"

_encode = json.JSONEncoder(separators=(",", ":")).encode
_VALUES: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    int: str,
    bool: {False: "false", True: "true"}.__getitem__,
    list: lambda texts: f"[{','.join(map(encode_basestring_ascii, texts))}]",
}
"""Half of the time of an encoder that is made anew for each record. Lists are of texts."""


@dataclass(frozen=True)
class NodeIdentity:
    """Who records. `boot` is the kernel's boot id; its first twelve digits go into each record."""

    cluster_id: str
    name: str
    ip: str
    boot: str

    @property
    def short_boot(self) -> str:
        """Enough of the boot id to tell the boots of one node apart."""
        return self.boot.replace("-", "")[:12]


@dataclass(frozen=True)
class Lost:
    """What is not in the log although it happened.

    `begin` and `end` are boot times in nanoseconds. `count` is events of a sensor or records, as
    `unit` says (``events``, ``records``); `execs` is how many execs are among them, None if nobody
    can know.
    """

    cause: str
    count: int
    unit: str
    begin: int
    end: int
    execs: int | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass
class Record:
    """One record before it has a number. `time` is boot time, `execs` how many execs it stands for.

    `body` is what follows the number on its line, all ASCII. `loss` is there in a Loss, so that a
    Loss that can't be written is not lost itself.
    """

    kind: str
    time: int
    body: str
    execs: int = 0
    loss: Lost | None = None

    def line(self, seq: int) -> str:
        """Return the line of the log."""
        return f'{{"seq":{seq},{self.body}\n'


def members(fields: Mapping[str, object]) -> str:
    """Return fields as JSON without the braces; their names are plain ASCII."""
    return ",".join(
        [f'"{name}":{_VALUES.get(type(one), _encode)(one)}' for name, one in fields.items()]
    )


class RecordMaker:
    """Makes the records of one node."""

    def __init__(self, node: NodeIdentity, ids: IdSource, clock: Clock) -> None:
        self.node = node
        self.ids = ids
        self.clock = clock
        node_fields = {"host.nodename": clean(node.name), "host.boot": node.short_boot}
        self.node_fields = members(node_fields)
        self.access_fields = {"clusterid": clean(node.cluster_id), "host.hostip": clean(node.ip)}

    def make(  # noqa: PLR0913 - one place where records are made
        self,
        kind: str,
        time: int,
        fields: Mapping[str, object],
        *,
        event_id: str = "",
        trace: str = "",
        execs: int = 0,
        loss: Lost | None = None,
    ) -> Record:
        """Return a record of boot time `time`, with an id of its own or the one given.

        `trace` is its session's id; `fields` are the others, one at least.
        """
        event_id, text = event_id or self.ids.make(), self.clock.text(time)
        told = members(fields)
        body = self.body(kind, told, trace=trace, time=text, boot_time=time, event_id=event_id)
        return Record(kind, time, body, execs, loss)

    def body(  # noqa: PLR0913 - as above
        self, kind: str, told: str, *, trace: str, time: str, boot_time: int | str, event_id: str
    ) -> str:
        """Return a record's body, of text that is JSON already.

        What a session's records have in common comes first, so that a compressed log has it as one.
        """
        traced = f'"traceId":"{trace}",' if trace else ""
        return (
            f'"kind":"{kind}",{self.node_fields},{traced}"time":"{time}","time.boot":{boot_time},'
            f'"eventId":"{event_id}",{told}}}'
        )

    def loss(self, lost: Lost, *, execs: int = 0) -> Record:
        """Return the record of a loss, at its end.

        `execs` of what is lost had come from the sensor, and are accounted for by this record.
        """
        fields: dict[str, object] = {
            "loss.cause": lost.cause,
            "loss.count": lost.count,
            "loss.unit": lost.unit,
            "loss.from": self.clock.text(lost.begin),
            "loss.to": self.clock.text(lost.end),
            "loss.fromBoot": lost.begin,
            "loss.toBoot": lost.end,
        }
        if lost.execs is not None:
            fields["loss.execs"] = lost.execs
        fields.update(lost.details)
        return self.make(LOSS, lost.end, fields, execs=execs, loss=lost)

    def throttle(
        self, event_id: str, begin: int, end: int, fields: Mapping[str, object], trace: str = ""
    ) -> Record:
        """Return a record that stands for ``throttle.count`` execs between two boot times."""
        count = fields["throttle.count"]
        times = {
            "throttle.from": self.clock.text(begin),
            "throttle.to": self.clock.text(end),
            "throttle.fromBoot": begin,
            "throttle.toBoot": end,
        }
        execs = count if isinstance(count, int) else 0
        fields = {**times, **fields}
        return self.make(THROTTLE, end, fields, event_id=event_id, trace=trace, execs=execs)

    def health(self, state: str, cause: str, detail: str, **extra: object) -> Record:
        """Return a record about the agent: `state` is ``healthy``, ``degraded`` or ``notice``.

        `extra` become fields below ``health.``; their values are text, numbers or booleans.
        """
        fields: dict[str, object] = {
            "health.state": state,
            "health.cause": cause,
            "health.detail": clean(detail),
        }
        for key, value in extra.items():
            fields[f"health.{key}"] = clean(value) if isinstance(value, str) else value
        return self.make("Health", self.clock.now(), fields)

    def clock_jump(self, jump: ClockJump) -> Record:
        """Return the record of the wall clock's having been set."""
        text = f"the wall clock was set by {jump.nanoseconds / 1e9:+.3f} s"
        return self.health("notice", "clock-jump", text)


def container_fields(container: Container | None, container_id: str) -> dict[str, object]:
    """Return the fields that each record of a session names its container with."""
    if container is None:
        found: dict[str, object] = {"container.unresolved": True}
        if container_id:
            found["container.id"] = to_text(container_id.encode(errors="surrogatepass"))[0]
        return found
    if container.pod is None:
        return {"container.name": clean(container.name), "container.id": clean(container.id)}
    return {
        "k8s.pod.namespace": clean(container.pod.namespace),
        "k8s.pod.name": clean(container.pod.name),
        "k8s.container.name": clean(container.name),
    }


def container_details(container: Container) -> dict[str, object]:
    """Return the fields that only the record of the access has."""
    found: dict[str, object] = {"container.runtime": clean(container.runtime)}
    pod = container.pod
    if pod is None:
        found["container.image"] = clean(container.image)
        return found
    found["k8s.container.id"] = clean(container.id)
    found["k8s.container.image"] = clean(container.image)
    found["k8s.pod.uid"] = clean(pod.uid)
    if pod.labels is not None:
        found["k8s.pod.labels"] = {clean(key): clean(text) for key, text in pod.labels.items()}
    return found
