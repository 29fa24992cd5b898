"""The audit settings in kubeadm's ClusterConfiguration, from which upgrades render manifests.

Pure functions. What the configuration is to say is read from a manifest that says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from exectrail.audit_policy.manifest.settings import ENV_NAME, FLAGS, PATH_FLAG, POLICY_FLAG
from exectrail.errors import UsageError

_WITH_ENVIRONMENT = "kubeadm.k8s.io/v1beta4"
_FORMS = ("kubeadm.k8s.io/v1beta2", "kubeadm.k8s.io/v1beta3", _WITH_ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Audit:
    """All that a manifest says about auditing, whoever has put it there."""

    flags: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Mapping[str, Any], ...] = ()


def audit(text: str) -> Audit:
    """Read it from a manifest."""
    found = _container(text)
    paths = [found.flags[name] for name in (PATH_FLAG, POLICY_FLAG) if found.flags.get(name)]
    return Audit(
        found.flags,
        {name: value for name, value in found.environment.items() if ENV_NAME.fullmatch(name)},
        tuple(
            each
            for each in found.volumes
            if any(PurePosixPath(path).is_relative_to(each["mountPath"]) for path in paths)
        ),
    )


def agree(configuration: str, old: Audit, new: Audit) -> str | None:
    """Return the ClusterConfiguration with `new` in place of `old`; None if it says that already.

    Raises UsageError for a form that is not known.
    """
    document = yaml.safe_load(configuration)
    form = document.get("apiVersion") if isinstance(document, dict) else None
    if form not in _FORMS:
        raise UsageError(f"kubeadm's ClusterConfiguration has the unknown form {form!r}")
    server = dict(document.get("apiServer") or {})
    listed = form == _WITH_ENVIRONMENT
    arguments = _pairs(server.get("extraArgs"), listed=listed)
    gone = {*old.flags, *new.flags}
    arguments = [(name, value) for name, value in arguments if name not in gone]
    arguments += sorted(new.flags.items())
    _set(server, "extraArgs", _listed(arguments) if listed else dict(arguments))
    mine = {each["mountPath"] for each in (*old.volumes, *new.volumes)}
    volumes = [each for each in server.get("extraVolumes") or [] if each["mountPath"] not in mine]
    _set(server, "extraVolumes", [*volumes, *map(dict, new.volumes)])
    if listed:
        owned = {*old.environment, *new.environment}
        kept = [each for each in server.get("extraEnvs") or [] if each["name"] not in owned]
        _set(server, "extraEnvs", kept + _listed(list(new.environment.items())))
    result = {key: value for key, value in document.items() if key != "apiServer"}
    if server or "apiServer" in document:
        result["apiServer"] = server
    if _normal(result) == _normal(document):
        return None
    return yaml.safe_dump(result)


def keeps_environment(configuration: str) -> bool:
    """Whether this form of the configuration can hold environment variables."""
    return _WITH_ENVIRONMENT in configuration


def flags(text: str) -> dict[str, str]:
    """Give the audit flags of a manifest as its server takes them: of several the last."""
    return _container(text).flags


def flags_of(words: Sequence[str]) -> dict[str, str]:
    """Give the audit flags among a server's arguments."""
    found = {}
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        name = key.removeprefix("--").replace("_", "-")
        if key.startswith("--") and name in FLAGS:
            found[name] = value if equals else "".join(words[position + 1 : position + 2])
    return found


@dataclass(frozen=True, slots=True)
class _Container:
    flags: dict[str, str]
    environment: dict[str, str]
    volumes: list[dict[str, Any]]


def _container(text: str) -> _Container:
    spec = yaml.safe_load(text)["spec"]
    container = next(
        (each for each in spec["containers"] if each.get("name") == "kube-apiserver"),
        spec["containers"][0],
    )
    words = [str(word) for word in (container.get("command") or []) + (container.get("args") or [])]
    paths = {
        each["name"]: each["hostPath"] for each in spec.get("volumes") or [] if "hostPath" in each
    }
    volumes = [
        {
            "name": mount["name"],
            "hostPath": paths[mount["name"]]["path"],
            "mountPath": mount["mountPath"],
            **({"readOnly": True} if mount.get("readOnly") else {}),
            **({"pathType": kind} if (kind := paths[mount["name"]].get("type")) else {}),
        }
        for mount in container.get("volumeMounts") or []
        if mount["name"] in paths
    ]
    environment = {
        each["name"]: each["value"] for each in container.get("env") or [] if "value" in each
    }
    return _Container(flags_of(words), environment, volumes)


def _pairs(arguments: Any, *, listed: bool) -> list[tuple[str, str]]:
    if listed:
        return [(each["name"], each.get("value", "")) for each in arguments or []]
    return list((arguments or {}).items())


def _listed(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _set(server: dict[str, Any], key: str, value: Any) -> None:
    if value:
        server[key] = value
    else:
        server.pop(key, None)


def _normal(document: dict[str, Any]) -> dict[str, Any]:
    """Make lists whose order means nothing comparable, and empty like missing."""
    server = document.get("apiServer") or {}
    lists = {
        key: sorted(value, key=lambda each: (str(each.get("name")), str(each.get("value"))))
        if isinstance(value, list) and all(isinstance(each, dict) for each in value)
        else value
        for key, value in server.items()
        if value or key not in {"extraArgs", "extraVolumes", "extraEnvs"}
    }
    return {**document, "apiServer": lists}
