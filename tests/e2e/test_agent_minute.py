"""The agent after it has been stopped for a minute, during which its node goes on."""

from __future__ import annotations

import signal
import time

from tests.integration.test_agent_faults import (
    LONG,
    Node,
    archive,
    bpffs,
    disk,
    node,
    pytestmark,
    storm,
    storm_program,
)

__all__ = ["archive", "bpffs", "disk", "node", "pytestmark", "storm", "storm_program"]

_SECONDS = 60
_RATE = 300


def test_what_a_minute_without_the_agent_cost_is_counted(node: Node) -> None:
    node.start()
    node.send(signal.SIGSTOP)
    stopped = time.monotonic()
    count = _SECONDS * _RATE
    assert node.produce(count, _RATE, LONG).wait(3 * _SECONDS) == 0
    took = time.monotonic() - stopped
    assert took > _SECONDS - 1
    node.send(signal.SIGCONT)

    recorded, lost = node.holds(count + 1)
    assert recorded > 0
    (loss,) = [each for each in node.records() if "loss.execs" in each]
    assert (loss["loss.cause"], loss["loss.count"]) == ("ring-full", lost)
    # As long as it was stopped, and since it had last asked before.
    assert took < (loss["loss.toBoot"] - loss["loss.fromBoot"]) / 1e9 < took + 30
