"""Controller side of Exectrail: judges evidence, prints reports, edits audit policies."""

__version__ = "0.1.0"
