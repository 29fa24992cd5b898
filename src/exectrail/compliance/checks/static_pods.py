"""What lies in the folder from which a kubelet starts pods by itself."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

from exectrail.compliance.checks.registry import Outcome, Parameters, check, listing
from exectrail.compliance.items.access import Items
from exectrail.compliance.items.node import STATIC_PODS, StaticPod


class StaticPods(Parameters, frozen=True):
    """`allowed` lists the names of pods that belong there; globs are understood."""

    allowed: tuple[str, ...] = (
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    )

    def expected(self) -> str:
        """List the pods."""
        return f"no static pod but {', '.join(self.allowed)}, one file each, and nothing else"


@check("node.static-pods", StaticPods)
def static_pods(items: Items, parameters: StaticPods) -> Outcome:
    """Judge every entry as the kubelet would read it.

    It reads each file whose name does not begin with a dot, whatever the ending: a backup copy is
    a second pod of the same name, and which one then runs is left to chance. So a file that is no
    pod, a pod that is not `allowed` and two files of one pod fail. Folders, FIFOs and the like
    are not read, only complained of in the kubelet's log: warn. Hidden entries are ignored.
    """
    folder = items[STATIC_PODS]
    if folder is None:
        return Outcome.skipped("no folder", "There is no folder of static pods on this node.")
    entries = [entry for entry in folder.files if not entry.hidden]
    read = [entry for entry in entries if entry.type in ("file", "symlink")]
    of_pod = Counter(entry.pod for entry in read)
    foreign = [
        f"{entry.name} ({problem})"
        for entry in read
        if (problem := _problem(entry, of_pod, parameters))
    ]
    if foreign:
        return Outcome.failed(
            listing(foreign),
            f"{folder.path} holds what does not belong there: {listing(foreign, most=1)}.",
        )
    ignored = [f"{entry.name} ({entry.type})" for entry in entries if entry not in read]
    if ignored:
        return Outcome.warned(listing(ignored), f"{folder.path} holds what the kubelet can't read.")
    pods = listing([str(entry.pod) for entry in read]) or "empty"
    return Outcome.passed(pods, f"{folder.path} holds only what belongs there.")


def _problem(entry: StaticPod, of_pod: Counter[str | None], parameters: StaticPods) -> str:
    if entry.pod is None:
        return "no pod"
    if not any(fnmatchcase(entry.pod, pattern) for pattern in parameters.allowed):
        return f"the pod {entry.pod}"
    others = of_pod[entry.pod] - 1
    return f"one of {others + 1} files of the pod {entry.pod}" if others else ""
