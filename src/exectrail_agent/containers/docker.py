"""What Docker knows of a container beyond its bundle, which is containerd's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exectrail_agent.containers import files
from exectrail_agent.containers.bundle import json_object, mapping, text, texts
from exectrail_agent.containers.model import Container, Pod

RUNTIME = "docker"
_FOLDER = "var/lib/docker/containers"
_LABEL = "io.kubernetes."


def complete(root: Path, container: Container) -> Container:
    """Add name, image and, where a kubelet uses Docker, the pod; they may not be there.

    Raises UnreadableError.
    """
    raw = files.read(root / _FOLDER, container.id, "config.v2.json")
    if raw is None:
        return container
    try:
        return describe(container, raw)
    except ValueError as error:
        raise files.UnreadableError(f"config.v2.json: {error}") from None


def describe(container: Container, raw: bytes) -> Container:
    """Complete a container with its config.v2.json. Pure. Raises ValueError."""
    data = json_object(raw)
    config = mapping(data.get("Config"))
    labels = texts(config.get("Labels"))
    pod = Pod(
        labels.get(_LABEL + "pod.namespace", ""),
        labels.get(_LABEL + "pod.name", ""),
        labels.get(_LABEL + "pod.uid", ""),
    )
    in_pod = bool(pod.name and pod.namespace)
    sandbox = in_pod and labels.get(_LABEL + "docker.type") == "podsandbox"
    name = text(data.get("Name")).lstrip("/")
    if in_pod:
        name = "POD" if sandbox else labels.get(_LABEL + "container.name") or name
    return replace(
        container,
        name=name or container.name,
        image=text(config.get("Image")),
        interactive=config.get("Tty") is True and config.get("OpenStdin") is True,
        kind="sandbox" if sandbox else container.kind,
        pod=pod if in_pod else None,
    )
