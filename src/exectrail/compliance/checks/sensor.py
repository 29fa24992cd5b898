"""Which sensor records execs on a node, and the library that one of them needs."""

from __future__ import annotations

from typing import NamedTuple

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing
from exectrail.compliance.items.access import Items, Unreadable, gather, observed
from exectrail.compliance.items.node import (
    KERNEL_AUDIT,
    KERNEL_BPF,
    KERNEL_BTF,
    KERNEL_LOCKDOWN,
    KERNEL_RELEASE,
    LIBBPF,
)
from exectrail.compliance.model import Status
from exectrail.versions import VersionText, required

_UNLOCKED = (0, 1)
_SENTENCES = {
    "bpf": "The node gets the bpf sensor.",
    "audit": "The node gets the audit sensor.",
    "none": "No sensor can run on this node.",
}


class ExecSensor(Parameters, frozen=True):
    """The oldest kernel and libbpf for `bpf`, and the newest kernel too old for `audit`."""

    bpf_kernel: VersionText = "5.8"
    libbpf: VersionText = "1.0"
    audit_kernel_later_than: VersionText = "4.19"

    expects = (
        "a sensor: bpf (kernel {bpf_kernel} or later with BTF, libbpf {libbpf} or later), "
        "else audit (kernel later than {audit_kernel_later_than})"
    )


class Libbpf(Parameters, frozen=True):
    """`minimum` is the oldest version; `bpf_kernel` the oldest kernel that needs the library."""

    minimum: VersionText = "1.0"
    bpf_kernel: VersionText = "5.8"

    expects = "libbpf {minimum} or later, where the kernel takes the bpf sensor"


class Sensor(NamedTuple):
    """`name` is bpf, audit or none; `obstacles` say why not bpf, and for none why not audit."""

    name: str
    status: Status
    obstacles: tuple[str, ...] = ()


def choose(items: Items, parameters: ExecSensor) -> Sensor:
    """Tell which sensor the node gets; raise Unreadable if that can't be told."""
    kernel, unreadable = _kernel_obstacles(items, parameters.bpf_kernel)
    library, unread_library = gather(lambda: _library_obstacles(items, parameters.libbpf))
    unreadable = unreadable or unread_library
    if not kernel and not library:
        if unreadable:
            raise unreadable
        return Sensor("bpf", Status.PASS)
    audit = _audit_obstacles(items, parameters.audit_kernel_later_than)
    if audit:
        return Sensor("none", Status.FAIL, (*(kernel or library), *audit))
    degraded = kernel and not _old(items, parameters)
    return Sensor("audit", Status.WARN if degraded else Status.PASS, tuple(kernel or library))


@check("node.exec-sensor", ExecSensor)
def exec_sensor(items: Items, parameters: ExecSensor) -> Outcome:
    """Choose as the agent does: bpf where it can run, else audit, else none, which fails.

    A kernel too old for bpf is meant to get audit, and a missing libbpf is `node.libbpf`'s
    finding: both pass. If anything else keeps a newer kernel from bpf, audit is second best:
    warn.
    """
    sensor = choose(items, parameters)
    why = f" ({listing(sensor.obstacles)})" if sensor.obstacles else ""
    return Outcome(sensor.status, f"{sensor.name}{why}", _SENTENCES[sensor.name])


@check("node.libbpf", Libbpf)
def libbpf(items: Items, parameters: Libbpf) -> Outcome:
    """Compare the version, unless something about the kernel rules the bpf sensor out anyway."""
    kernel, unreadable = _kernel_obstacles(items, parameters.bpf_kernel)
    if kernel:
        return Outcome.skipped(listing(kernel), "The node does not get the bpf sensor.")
    missing = _library_obstacles(items, parameters.minimum)
    if unreadable and missing:
        raise unreadable
    found = items[LIBBPF]
    if missing:
        seen = found.path if found else "none"
        return Outcome.failed(seen, f"The bpf sensor can't run: {listing(missing)}.")
    seen = f"{found.version} ({found.path})" if found else ""
    return Outcome.passed(seen, "libbpf is new enough for the bpf sensor.")


def _old(items: Items, parameters: ExecSensor) -> bool:
    release = observed(items[KERNEL_RELEASE], KERNEL_RELEASE.name)
    return release < required(parameters.bpf_kernel)


def _kernel_obstacles(items: Items, minimum: str) -> tuple[list[str], Unreadable | None]:
    def version() -> list[str]:
        release = items[KERNEL_RELEASE]
        if observed(release, KERNEL_RELEASE.name) < required(minimum):
            return [f"kernel {release} is older than {minimum}"]
        return []

    def lockdown() -> list[str]:
        locked = items[KERNEL_LOCKDOWN] == "confidentiality"
        return ["kernel lockdown is set to confidentiality"] if locked else []

    return gather(
        version,
        lambda: [] if items[KERNEL_BTF] else ["the kernel has no BTF"],
        lockdown,
        lambda: _bpf_obstacles(items),
    )


def _bpf_obstacles(items: Items) -> list[str]:
    bpf = items[KERNEL_BPF]
    if not bpf.available:
        return [f"BPF is not available ({bpf.why})"]
    tried = {
        "no BPF ring buffer": bpf.ring_buffer,
        "no BPF program on a raw tracepoint": bpf.raw_tracepoint,
        "no BTF": bpf.btf_load,
    }
    return [f"the kernel loads {what}" for what, loaded in tried.items() if not loaded]


def _library_obstacles(items: Items, minimum: str) -> list[str]:
    library = items[LIBBPF]
    if library is None:
        return ["libbpf is not installed"]
    if observed(library.version, LIBBPF.name) < required(minimum):
        return [f"libbpf {library.version} is older than {minimum}"]
    return []


def _audit_obstacles(items: Items, later_than: str) -> list[str]:
    def version() -> list[str]:
        release = items[KERNEL_RELEASE]
        if observed(release, KERNEL_RELEASE.name) <= required(later_than):
            return [f"kernel {release} is not later than {later_than}"]
        return []

    def subsystem() -> list[str]:
        audit = items[KERNEL_AUDIT]
        if not audit.available:
            return [f"kernel audit is not available ({audit.why})"]
        if audit.enabled not in _UNLOCKED:
            return ["the rules of kernel audit are locked until the next boot"]
        if audit.pid and not audit.enabled:
            # Beside an owner the sensor only listens, and may not switch audit on.
            return [f"process {audit.pid} owns kernel audit and has it switched off"]
        return []

    found, unreadable = gather(version, subsystem)
    if unreadable and not found:
        raise unreadable
    return found
