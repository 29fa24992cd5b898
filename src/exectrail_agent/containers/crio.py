"""What CRI-O writes into its bundles' annotations. Pure."""

from __future__ import annotations

from dataclasses import replace

from exectrail_agent.containers.bundle import Bundle, json_object, texts
from exectrail_agent.containers.model import Container, Pod

RUNTIME = "cri-o"
_CRIO = "io.kubernetes.cri-o."
_POD = "io.kubernetes.pod."
_CONTAINER_NAME = "io.kubernetes.container.name"


def made(bundle: Bundle) -> bool:
    """Say whether the bundle is CRI-O's: its storage folder is Podman's too."""
    # A pod's author may set io.container.manager in the annotations of its sandbox.
    return bundle.annotation("io.container.manager") == RUNTIME or bool(
        bundle.annotation(_POD + "uid")
    )


def describe(container: Container, bundle: Bundle) -> Container:
    """Complete a container with what its annotations say.

    A pod's author may override all of the sandbox's but the kubelet's own labels, which come last:
    so these alone say which pod it is.
    """
    pod = Pod(
        bundle.annotation(_POD + "namespace"),
        bundle.annotation(_POD + "name"),
        bundle.annotation(_POD + "uid"),
    )
    sandbox = bundle.annotation(_CRIO + "ContainerType") == "sandbox"
    labels = _labels(bundle) if sandbox else None
    name = bundle.annotation(_CONTAINER_NAME, _CRIO + "Name")
    return replace(
        container,
        runtime=RUNTIME,
        name="POD" if sandbox else name or container.name,
        image=bundle.annotation(_CRIO + "ImageName", _CRIO + "Image"),
        kind="sandbox" if sandbox else "container",
        interactive=bundle.terminal and bundle.annotation(_CRIO + "Stdin") != "false",
        pod=replace(pod, labels=labels) if pod.name and pod.namespace else None,
    )


def _labels(bundle: Bundle) -> dict[str, str] | None:
    try:
        labels = texts(json_object(bundle.annotation(_CRIO + "Labels").encode()))
    except ValueError:
        return None
    return {key: value for key, value in labels.items() if not key.startswith("io.kubernetes.")}
