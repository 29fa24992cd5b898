"""Prints the JSON Schema of report.json: ``python -m exectrail.compliance.render.schema``."""

from __future__ import annotations

import json
import sys

from exectrail.compliance.render.json import report_schema


def text() -> str:
    """Return the schema as docs/reference/report.schema.json holds it."""
    return json.dumps(report_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
