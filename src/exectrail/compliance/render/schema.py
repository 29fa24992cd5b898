"""Prints the JSON Schema of report.json: ``python -m exectrail.compliance.render.schema``."""

from __future__ import annotations

import sys

from exectrail.compliance.render.json import report_schema
from exectrail.compliance.schematext import schema_text


def text() -> str:
    """Return the schema as docs/reference/report.schema.json holds it."""
    return schema_text(report_schema())


if __name__ == "__main__":
    sys.stdout.write(text())
