"""Clusters of the lab whose API servers take as long to end as those of users."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster
from lab.cluster.lifecycle import cluster
from lab.errors import LabError

_LASTING = 15.0
_LIMIT = 240.0


@contextmanager
def patient_cluster(name: str, masters: int = 1, workers: int = 1) -> Iterator[Cluster]:
    """Make a cluster whose API servers have the 30 s to end that the lab's patch takes away."""
    with cluster(name, masters=masters, workers=workers) as made:
        for master in made.masters:
            manifest = made.root(master) / "etc/kubernetes/manifests/kube-apiserver.yaml"
            lines = manifest.read_text().splitlines(keepends=True)
            kept = [line for line in lines if "terminationGracePeriodSeconds" not in line]
            if len(kept) != len(lines) - 1:
                raise SystemExit(f"{manifest} has not the lab's patch")
            staged = manifest.parents[1] / "bench.yaml"
            staged.touch(mode=0o600)
            staged.write_text("".join(kept))
            staged.rename(manifest)
        _await_restarts(made)
        yield made


def _await_restarts(made: Cluster) -> None:
    """Wait until each API server's pod is the new one, and all has been quiet for a while."""
    deadline = time.monotonic() + _LIMIT
    quiet_since: float | None = None
    while quiet_since is None or time.monotonic() - quiet_since < _LASTING:
        if time.monotonic() > deadline:
            raise SystemExit(f"the API servers are not back within {_LIMIT:.0f} s")
        try:
            told = kubectl(
                made,
                *("-n", "kube-system", "get", "pods", "-l", "component=kube-apiserver", "-o"),
                "jsonpath={range .items[*]}{.spec.terminationGracePeriodSeconds} "
                '{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}',
            )
        except LabError:
            told = ""
        if sorted(told.split()) == ["30"] * len(made.masters) + ["True"] * len(made.masters):
            quiet_since = quiet_since or time.monotonic()
        else:
            quiet_since = None
        time.sleep(1)
