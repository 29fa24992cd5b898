"""``report.json``: the report as it is kept, read back and validated."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance.model import Report
from exectrail.compliance.verdict import SCHEMA_VERSION
from exectrail.errors import UsageError
from exectrail.printable import printable


class _Envelope(msgspec.Struct):
    schema_version: int


def render(report: Report) -> bytes:
    """Return the report as one line of JSON; half a surrogate pair in a text becomes an escape."""
    try:
        return msgspec.json.encode(report) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(report))) + b"\n"


def load(path: Path) -> Report:
    """Read a report; raise UsageError, naming what to do, if the file is none of this version."""
    try:
        if not path.is_file():
            kind = "is no regular file" if path.exists() else "does not exist"
            raise UsageError(f"{path} {kind}. Give the report.json of a run's report folder.")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} can't be read ({error.strerror}). Run as a user who may read it."
        ) from error
    if not content.strip():
        raise UsageError(f"{path} is empty. {_AGAIN}")
    try:
        version = msgspec.json.decode(content, type=_Envelope).schema_version
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path} is a report of schema version {version}; this Exectrail reads version "
                f"{SCHEMA_VERSION}. Read it with the Exectrail that wrote it, or check again."
            )
        report = msgspec.json.decode(content, type=Report)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{path} is JSON, but no report: {printable(str(error), limit=300)}. "
            "Give the report.json of a run's report folder."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} is not complete JSON ({printable(str(error), limit=300)}). {_AGAIN}"
        ) from error
    if any(moment.utcoffset() != dt.timedelta() for moment in (report.started, report.finished)):
        raise UsageError(f"{path} is no report as written: its times are not in UTC. {_AGAIN}")
    return report


_AGAIN = "Take another copy, or check again: `exectrail evaluate` needs only the saved evidence."


def report_schema() -> dict[str, Any]:
    """Return the JSON Schema of ``report.json``."""
    schema = msgspec.json.schema(Report)
    properties = schema["$defs"]["Report"]["properties"]
    properties["schema_version"] = {"const": SCHEMA_VERSION}
    for moment in ("started", "finished"):
        properties[moment] = {"type": "string", "format": "date-time"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Exectrail compliance report",
        **schema,
    }


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isprintable() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    return value
