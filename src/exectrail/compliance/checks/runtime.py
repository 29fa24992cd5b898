"""What surrounds the container runtime: image acceleration, hardening products."""

from __future__ import annotations

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing, plain_check
from exectrail.compliance.items.access import Items, gather
from exectrail.compliance.items.node import ACCELERATORS, HARDENING, RUNTIMES, Runtime


class ImageAcceleration(Parameters, frozen=True):
    """`snapshotters` load images lazily; a runtime that names one is accelerated."""

    snapshotters: tuple[str, ...]

    expects = "no image acceleration is installed or configured"


@check("node.image-acceleration", ImageAcceleration)
def image_acceleration(items: Items, parameters: ImageAcceleration) -> Outcome:
    """Look for an accelerator on the node, and for its snapshotter in the runtimes' settings."""

    def configured(runtime: Runtime) -> list[str]:
        names = [runtime.snapshotter or "", *(plugin.name for plugin in runtime.proxy_plugins)]
        return [
            f"{runtime.name} uses {name} ({runtime.config})"
            for name in dict.fromkeys(names)
            if name in parameters.snapshotters
        ]

    found, unreadable = gather(
        lambda: [f"{mark.name}: {mark.where}" for mark in items[ACCELERATORS]],
        lambda: [line for runtime in items[RUNTIMES] for line in configured(runtime)],
    )
    if found:
        return Outcome.failed(listing(found), "Image acceleration is on this node.")
    if unreadable:
        raise unreadable
    return Outcome.passed("none", "There is no image acceleration.")


@plain_check("node.security-hardening", "no security hardening product or baseline")
def security_hardening(items: Items) -> Outcome:
    """Fail on any mark of a hardening product or baseline that the evidence knows."""
    marks = [f"{mark.name}: {mark.where}" for mark in items[HARDENING]]
    if marks:
        return Outcome.failed(listing(marks), "Security hardening was applied to this node.")
    return Outcome.passed("none", "No mark of security hardening was found.")
