"""What Docker knows of a container beyond its bundle, which is containerd's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exectrail_agent.containers import files
from exectrail_agent.containers.bundle import json_object, mapping, text, texts
from exectrail_agent.containers.model import Container, Pod, Probe

RUNTIME = "docker"
_FOLDER = "var/lib/docker/containers"
_LABEL = "io.kubernetes."
_SHELL = ("/bin/sh", "-c")


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
        probes=tuple(_probes(config)),
    )


def _probes(config: Mapping[str, Any]) -> Iterator[Probe]:
    test = mapping(config.get("Healthcheck")).get("Test")
    words = [text(word) for word in test] if isinstance(test, list) else []
    if words[:1] == ["CMD"]:
        yield Probe("health", tuple(words[1:]))
    elif words[:1] == ["CMD-SHELL"]:
        shell = config.get("Shell")
        shell = [text(word) for word in shell] if isinstance(shell, list) else []
        yield Probe("health", (*(shell or _SHELL), *words[1:]))
