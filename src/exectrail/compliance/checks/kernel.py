"""The version of a node's kernel."""

from __future__ import annotations

from exectrail.compliance.checks.registry import Outcome, Parameters, check
from exectrail.compliance.items.access import Items, observed
from exectrail.compliance.items.node import KERNEL_RELEASE
from exectrail.versions import VersionText, required


class KernelVersion(Parameters, frozen=True):
    """`later_than` is the newest version that is still too old."""

    later_than: VersionText

    def expected(self) -> str:
        """Name the version."""
        return f"a kernel later than {self.later_than}"


@check("node.kernel-version", KernelVersion)
def kernel_version(items: Items, parameters: KernelVersion) -> Outcome:
    """Compare the three numbers that the kernel release begins with.

    4.19 means 4.19.0: that one is too old, and so is a distribution's `4.19.0-27-amd64`, whatever
    was ported back into it; 4.19.91 and 4.20 are later.
    """
    release = items[KERNEL_RELEASE]
    if observed(release, KERNEL_RELEASE.name) > required(parameters.later_than):
        return Outcome.passed(release, f"Kernel {release} is later than {parameters.later_than}.")
    return Outcome.failed(release, f"Kernel {release} is not later than {parameters.later_than}.")
