"""The id that names a cluster in its logs."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from exectrail.audit_policy.manifest.document import ManifestError

_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ClusterId:
    """A cluster's id and, for people to read, where it comes from."""

    value: str
    origin: str


def choose_cluster_id(configured: str | None, namespace_uid: str) -> ClusterId:
    """Return the `configured` id or, when that is None or empty, one derived from the cluster.

    `namespace_uid` is metadata.uid of the namespace kube-system: it is made once in a cluster's
    life, so that the derived id (``c`` and 32 hex digits) is the same on every master and in every
    run. Raises ManifestError for an id or a uid that can't be used.
    """
    if configured:
        check_cluster_id(configured)
        return ClusterId(configured, "set by cluster_id")
    try:
        digits = uuid.UUID(namespace_uid.strip()).hex
    except ValueError as error:
        raise ManifestError(
            f"the uid of the namespace kube-system is {namespace_uid!r}, which is no uid; "
            "set cluster_id"
        ) from error
    return ClusterId(
        f"c{digits}", "derived from the uid of the namespace kube-system, as cluster_id is not set"
    )


def check_cluster_id(value: str) -> None:
    """Raise ManifestError unless the id can be a part of an environment variable's name."""
    if not _ID.fullmatch(value):
        raise ManifestError(
            f"cluster_id is {value!r}; give at most 63 letters, digits, dots and dashes, a letter "
            "or digit first and last (an underscore would end the id in the collector's eyes)"
        )
