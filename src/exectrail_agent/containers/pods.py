"""What a pod's specification says of its containers. Pure; the input is not trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from exectrail_agent.containers.bundle import json_object, mapping, text, texts
from exectrail_agent.containers.model import Probe

_LISTS = {"containers": "container", "initContainers": "init", "ephemeralContainers": "ephemeral"}
_PROBES = {"livenessProbe": "liveness", "readinessProbe": "readiness", "startupProbe": "startup"}
_HOOKS = {"postStart": "postStart", "preStop": "preStop"}
_STATIC = "kubernetes.io/config.hash"


@dataclass(frozen=True)
class PodFacts:
    """Labels, probes and hooks by container name, and each container's kind by name."""

    labels: Mapping[str, str] | None = None
    probes: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


class PodSource(Protocol):
    """Somebody who knows pods' specifications."""

    problem: str
    """Why it can't say anything, else ""."""

    def pod(self, uid: str) -> PodFacts | None:
        """Return what is known of a pod, at once."""

    def want(self, uid: str, container: str) -> None:
        """Say that this container has appeared, so that it asks if it does not know it yet."""


def parse(raw: bytes) -> dict[str, PodFacts]:
    """Return a PodList's pods by uid, static ones also by the uid that the kubelet gives them.

    Raises ValueError if it is no PodList.
    """
    items = json_object(raw).get("items", [])
    if items is not None and not isinstance(items, list):
        raise ValueError("no list of pods")
    found: dict[str, PodFacts] = {}
    static: dict[str, list[PodFacts]] = {}
    for item in items or []:
        metadata = mapping(mapping(item).get("metadata"))
        facts = _facts(metadata, mapping(mapping(item).get("spec")))
        found[text(metadata.get("uid"))] = facts
        static.setdefault(texts(metadata.get("annotations")).get(_STATIC, ""), []).append(facts)
    for uid, claims in static.items():
        # Any pod's author may set this annotation: of two that do, one is a forger.
        if len(claims) == 1:
            found.setdefault(uid, claims[0])
    found.pop("", None)
    return found


def _facts(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> PodFacts:
    probes: dict[str, tuple[Probe, ...]] = {}
    kinds: dict[str, str] = {}
    for key, kind in _LISTS.items():
        listed = spec.get(key)
        for item in listed if isinstance(listed, list) else []:
            container = mapping(item)
            name = text(container.get("name"))
            kinds[name] = kind
            probes[name] = tuple(_probes(container))
    return PodFacts(texts(metadata.get("labels")), probes, kinds)


def _probes(container: Mapping[str, Any]) -> Iterator[Probe]:
    lifecycle = mapping(container.get("lifecycle"))
    for places, names in ((container, _PROBES), (lifecycle, _HOOKS)):
        for key, kind in names.items():
            command = mapping(mapping(places.get(key)).get("exec")).get("command")
            if isinstance(command, list) and command:
                yield Probe(kind, tuple(text(word) for word in command))
