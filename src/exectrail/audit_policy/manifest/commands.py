"""``exectrail manifest``: the manifest editor for one file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from exectrail.audit_policy import manifest as editor
from exectrail.audit_policy.manifest.document import ManifestError
from exectrail.audit_policy.manifest.settings import Settings
from exectrail.errors import UsageError

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_DEFAULTS = Settings()


def _setting(name: str, text: str, **more: Any) -> Callable[[_Command], _Command]:
    """Return the option for a field of Settings."""
    default = getattr(_DEFAULTS, name)
    option = f"--{name.replace('_', '-')}"
    return click.option(option, default=default, show_default=True, help=text, **more)


_OPTIONS = (
    click.option("--cluster-id", help="Name of the cluster in its logs."),
    click.option("--policy", type=_FILE, help="The policy file on this machine, for its sha256."),
    _setting("policy_file", "Where the policy is on the master."),
    _setting("log_path", "Where the server writes the log on the master."),
    _setting("log_maxsize", "MB in a file."),
    _setting("log_maxbackup", "Rotated files to keep."),
    _setting("log_maxage", "Days to keep rotated files."),
    click.option(
        "--log-collection/--no-log-collection",
        default=_DEFAULTS.log_collection,
        show_default=True,
        help="Set the collector's environment variables, if there is a cluster id.",
    ),
    _setting(
        "policy_type", "hostPath type of the policy.", type=click.Choice(["File", "FileOrCreate"])
    ),
    _setting("static_pod_directory", "kubelet's staticPodPath on the master."),
    click.option("--take-over", is_flag=True, help="Replace values that somebody else set."),
    click.option(
        "--adopt",
        is_flag=True,
        help="Equal values that are there already are Exectrail's (kubeadm rendered them anew).",
    ),
)
_EXIT_CODES = """\b
Exit codes:
  0  done, or nothing to do
  4  the manifest or the request can't be met; nothing is written
"""
_DIFF_EXIT_CODES = """\b
Exit codes:
  0  the manifest has the settings
  1  it differs
  4  the manifest or the request can't be met
"""

file_argument = click.argument("path", metavar="FILE", type=_FILE)
in_place_option = click.option("--in-place", is_flag=True, help="Write FILE instead of printing.")


def _settings_options(command: _Command) -> _Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(short_help="Put audit settings into a manifest.")
def manifest() -> None:
    """Put the audit settings into a kube-apiserver's manifest, or take them out."""


@manifest.command(epilog=_EXIT_CODES)
@file_argument
@in_place_option
@_settings_options
def add(path: Path, in_place: bool, policy: Path | None, **values: Any) -> int:  # noqa: FBT001
    """Print FILE with the audit settings, all else as it is."""
    text = _read(path)
    edit = _told(path, lambda: editor.edit(text, _settings(policy, values)))
    for note in edit.notes:
        click.echo(f"{path}: {note}", err=True)
    return _give(path, text, edit.text, in_place=in_place)


@manifest.command(epilog=_EXIT_CODES)
@file_argument
@in_place_option
def remove(path: Path, in_place: bool) -> int:  # noqa: FBT001
    """Print FILE as it was before the audit settings, all else as it is."""
    text = _read(path)
    return _give(path, text, _told(path, lambda: editor.remove(text)), in_place=in_place)


@manifest.command("diff", epilog=_DIFF_EXIT_CODES)
@file_argument
@_settings_options
def diff_(path: Path, policy: Path | None, **values: Any) -> int:
    """Show what `add` would change in FILE."""
    text = _read(path)
    shown = _told(path, lambda: editor.diff(text, _settings(policy, values), str(path)))
    click.echo(shown, nl=False)
    return int(bool(shown))


def _settings(policy: Path | None, values: dict[str, Any]) -> Settings:
    digest = hashlib.sha256(_read_bytes(policy)).hexdigest() if policy else None
    return Settings(policy_sha256=digest, **values)


def _told(path: Path, work: Callable[[], _T]) -> _T:
    """Do the work; let an error name the file as well as the line."""
    try:
        return work()
    except ManifestError as error:
        if error.line is None:
            raise
        raise UsageError(f"{path}:{error.line}: {error.problem}") from error


def _read(path: Path) -> str:
    raw = _read_bytes(path)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}:{line}: not UTF-8; convert the file") from error


def _read_bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{path} is no regular file; give one")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _give(path: Path, old: str, new: str, *, in_place: bool) -> int:
    if not in_place:
        click.echo(new, nl=False)
    elif new != old:
        try:
            _write(path.resolve(), new.encode())
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}") from error
    return 0


def _write(path: Path, content: bytes) -> None:
    """Replace the file in one step, keeping owner, mode and SELinux label; leave nothing beside it.

    kubelet takes every file of the static-pod directory for a pod unless its name begins with a
    dot: so does the new file's until it is complete.
    """
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            before = path.stat()
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(descriptor, before.st_uid, before.st_gid)
            shutil.copystat(path, staged)
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
        staged.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            staged.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
