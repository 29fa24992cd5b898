"""The agent's configuration: an INI file, every option with its unit and default."""

from __future__ import annotations

import configparser
import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_PATH = Path("/etc/exectrail/agent.conf")
EXIT_CONFIG = 78
"""What sysexits.h calls EX_CONFIG."""


class ConfigError(Exception):
    """The configuration can't be used; the text names option, fault and fix."""


@dataclass(frozen=True)
class Kind:
    """What may be given, in words, and what turns the text of it into the value.

    `read` raises ValueError for anything else.
    """

    allowed: str
    read: Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """One option."""

    section: str
    name: str
    default: str
    kind: Kind
    doc: str


def _choice(*words: str) -> Kind:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind(f"one of {', '.join(words)}", read)


def _whole(least: int, most: int) -> Kind:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return Kind(f"a whole number from {least} to {most}", read)


def _read_path(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError(text)
    return Path(text)


def _read_path_or_nothing(text: str) -> Path | None:
    return _read_path(text) if text else None


def _read_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,253}", text):
        raise ValueError(text)
    return text


_PATH = Kind("an absolute path", _read_path)
_PATH_OR_NOTHING = Kind("an absolute path or nothing", _read_path_or_nothing)
_NAME = Kind("at most 253 letters, digits, dots, dashes and underscores", _read_name)


OPTIONS = (
    Option("agent", "cluster_id", "", _NAME, "Name of the cluster."),
    Option("agent", "node_name", "", _NAME, "Name of the node; the host's if empty."),
    Option("agent", "sensor", "auto", _choice("auto", "bpf", "audit"), "How execs are learnt."),
    Option(
        "agent",
        "record",
        "sessions",
        _choice("sessions", "all"),
        "What people do inside containers, or also what the workloads themselves do.",
    ),
    Option(
        "agent",
        "probes",
        "counts",
        _choice("counts", "full"),
        "Probes and hooks as counts per hour, or each in full.",
    ),
    Option(
        "agent",
        "hold_seconds",
        "2",
        _whole(0, 60),
        "Seconds for which a record waits to learn of its container.",
    ),
    Option("log", "folder", "/var/log/exectrail", _PATH, "Folder of advaudit.log, mode 0700."),
    Option(
        "log",
        "max_size_mb",
        "100",
        _whole(1, 100_000),
        "MB (1,000,000 bytes) at which the log is rotated.",
    ),
    Option("log", "max_files", "10", _whole(2, 1000), "Files that are kept, the current one too."),
    Option(
        "bpf",
        "ring_mb",
        "8",
        _whole(1, 512),
        "MiB for events that wait, rounded up to a power of two.",
    ),
    Option("bpf", "pins", "/sys/fs/bpf/exectrail", _PATH, "Where capture goes on alone."),
    Option("health", "canary_seconds", "300", _whole(5, 86_400), "Seconds between self-tests."),
    Option(
        "health",
        "metrics_file",
        "",
        _PATH_OR_NOTHING,
        "File for node_exporter's textfile collector, in a folder that is there and root's.",
    ),
    Option("paths", "state", "/var/lib/exectrail-agent", _PATH, "What outlives a restart."),
    Option("paths", "runtime", "/run/exectrail-agent", _PATH, "Folder of the status."),
    Option("kubernetes", "pods", "auto", _choice("auto", "off"), "Ask for labels of pods."),
    Option(
        "kubernetes",
        "kubeconfig",
        "/etc/kubernetes/kubelet.conf",
        _PATH,
        "Credentials for that, the node's own.",
    ),
)


@dataclass(frozen=True)
class Config:
    """Checked options, by section and name."""

    values: tuple[tuple[str, str, Any], ...]

    def get(self, section: str, name: str) -> Any:
        """Return an option's value."""
        return next(value for s, n, value in self.values if (s, n) == (section, name))


def parse(text: str, source: str = "agent.conf") -> Config:
    """Read a configuration; raise ConfigError with the first fault."""
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(text, source)
    except configparser.Error as error:
        raise ConfigError(" ".join(str(error).split())) from error
    known = {(option.section, option.name) for option in OPTIONS}
    for section in parser.sections():
        for name in parser[section]:
            if (section, name) not in known:
                places = [s for s, n in sorted(known) if n == name]
                hint = f"; it belongs to [{places[0]}]" if places else ""
                raise ConfigError(f"{source}: [{section}] {name} is no option{hint}")
    return Config(tuple(_values(parser, source)))


def _values(parser: configparser.ConfigParser, source: str) -> Iterator[tuple[str, str, Any]]:
    for option in OPTIONS:
        text = parser.get(option.section, option.name, fallback=option.default).strip()
        try:
            yield option.section, option.name, option.kind.read(text)
        except ValueError:
            raise ConfigError(
                f"{source}: [{option.section}] {option.name} = {text!r}: give {option.kind.allowed}"
            ) from None


def load(path: Path) -> Config:
    """Read the file; a missing one means defaults if it is the default one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path != DEFAULT_PATH:
            raise ConfigError(f"{path}: no such file") from None
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    return parse(text, str(path))


def check_folders(config: Config) -> None:
    """Make the agent's own folders; raise ConfigError for one that can't be written."""
    for section, name, mode in (
        ("log", "folder", 0o700),
        ("paths", "state", 0o700),
        ("paths", "runtime", 0o755),
    ):
        folder: Path = config.get(section, name)
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            _try(folder)
        except OSError as error:
            raise ConfigError(f"[{section}] {name} = {folder} can't be written: {error}") from error
    metrics: Path | None = config.get("health", "metrics_file")
    if metrics is None:
        return
    try:
        if metrics.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # Not made: it would be a folder that nobody reads.
        _try(metrics.parent)
    except OSError as error:
        raise ConfigError(
            f"[health] metrics_file = {metrics} can't be written: {error.strerror}; "
            "its folder has to be there, and root's to write to"
        ) from error


def _try(folder: Path) -> None:
    probe = folder / f".writable.{os.getpid()}"
    os.close(os.open(str(probe), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    probe.unlink()
