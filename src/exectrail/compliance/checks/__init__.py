"""The checks: pure functions of a node's evidence and a requirement's parameters."""

from exectrail.compliance.checks import (
    agent,
    audit,
    cluster,
    host,
    kernel,
    node,
    operating_system,
    resolver,
    runtime,
    sensor,
    static_pods,
    storage,
    upgrades,
)
from exectrail.compliance.checks.registry import CHECKS, Check, Outcome, Parameters

__all__ = [
    "CHECKS",
    "Check",
    "Outcome",
    "Parameters",
    "agent",
    "audit",
    "cluster",
    "host",
    "kernel",
    "node",
    "operating_system",
    "resolver",
    "runtime",
    "sensor",
    "static_pods",
    "storage",
    "upgrades",
]
