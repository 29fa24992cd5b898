"""The storage folder that Podman and CRI-O share, of the system and of users."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from exectrail_agent.containers import cgroups, crio, files
from exectrail_agent.containers.bundle import json_object, mapping, text
from exectrail_agent.containers.model import Container
from exectrail_agent.containers.source import Description, read_bundle, read_pid

RUNTIME = "podman"
_STATIC = "var/lib/containers/storage/overlay-containers"
_RUN = "run/containers/storage/overlay-containers"
_TABLES = ("containers.json", "volatile-containers.json")
"""Later releases of Podman keep those that go when they end (`--rm`) in a table of their own."""
_USERS = "run/user"
_USERS_RUN = ("containers", "overlay-containers")
_USERS_STATIC = (".local", "share", "containers", "storage", "overlay-containers")


class ContainersStorage:
    """The system's containers: Podman's and CRI-O's."""

    runtime = RUNTIME
    patterns: Sequence[str] = (f"{_STATIC}/*/userdata", f"{_RUN}/*/userdata")

    def __init__(self, root: Path) -> None:
        self._static = root / _STATIC
        self._run = root / _RUN

    def key(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the id: two folders describe one container."""
        return parts

    def read(self, parts: tuple[str, ...]) -> Description | None:
        """Return what the bundle says, and the table of names."""
        (identity,) = parts
        described = _read(self._static, (), identity)
        if described is None:
            return None
        pid = read_pid(self._run, identity, "userdata", "pidfile")
        return replace(described, pid=pid)


class UsersStorage:
    """Containers of users without privileges, who may write into these files what they like."""

    runtime = RUNTIME
    patterns: Sequence[str] = ("/".join((_USERS, "*", *_USERS_RUN, "*", "userdata")),)

    def __init__(self, root: Path) -> None:
        self._root = root

    def key(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Return the user and the id."""
        return parts

    def read(self, parts: tuple[str, ...]) -> Description | None:
        """Return what the user says; only groups of that user's own slice can be the container."""
        user, identity = parts
        home = self._home(user)
        described = home and _read(home, _USERS_STATIC, identity)
        if not described:
            return None
        return Description(
            replace(described.container, cgroup="", pod=None, runtime=RUNTIME, kind="container"),
            read_pid(self._root / _USERS, user, *_USERS_RUN, identity, "userdata", "pidfile"),
            f"/user.slice/user-{user}.slice/".encode(),
            described.problem,
            described.unsettled,
        )

    def _home(self, user: str) -> Path | None:
        try:
            with os.scandir(self._root / "home") as entries:
                for entry in entries:
                    if str(entry.stat(follow_symlinks=False).st_uid) == user:
                        return Path(entry.path)
        except OSError:
            pass
        return None


def _read(base: Path, storage: tuple[str, ...], identity: str) -> Description | None:
    container = Container(identity, RUNTIME, identity, "", "")
    try:
        bundle = read_bundle(base, *storage, identity, "userdata", "config.json")
        if bundle is None:
            return None
        container = replace(
            container,
            cgroup=cgroups.configured(bundle.cgroups_path).decode("utf-8", "replace"),
            shares_pids=bundle.shares_pids,
            interactive=bundle.terminal,
        )
        if crio.made(bundle):
            return Description(crio.describe(container, bundle))
        if bundle.annotation("io.kubernetes.cri-o.ContainerType") == "sandbox":
            container = replace(container, kind="sandbox")
        for table in _TABLES:
            container = named(container, files.read(base, *storage, table) or b"[]")
        return Description(container)
    except files.UnreadableError as error:
        return Description(container, problem=str(error), unsettled=error.unsettled)
    except ValueError as error:
        return Description(container, problem=f"table of containers: {error}")


def named(container: Container, table: bytes) -> Container:
    """Add name and image from one of the storage's tables. Pure. Raises ValueError."""
    for row in _rows(table):
        if row.get("id") == container.id:
            names = row.get("names")
            name = text(names[0]) if isinstance(names, list) and names else ""
            try:
                image = text(json_object(text(row.get("metadata")).encode()).get("image-name"))
            except ValueError:
                image = ""
            return replace(container, name=name or container.name, image=image)
    return container


def _rows(table: bytes) -> list[Mapping[str, Any]]:
    rows = json_object(b'{"rows":' + table + b"}").get("rows")
    return [mapping(row) for row in rows] if isinstance(rows, list) else []
