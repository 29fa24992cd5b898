"""The verbs that a request can have when the audit policy is asked about it."""

RESOURCE_VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "proxy",
)  # fmt: skip
"""Of requests for resources; `proxy` only in releases that serve the old /api/v1/proxy paths."""

URL_VERBS = ("get", "head", "post", "put", "patch", "delete", "options", "connect", "trace")
"""Of requests for other paths: the HTTP method."""

PERMISSION_VERBS = ("approve", "attest", "bind", "escalate", "impersonate", "sign", "use")
"""Verbs of RBAC rules that no request has; they are asked about beside the request's own."""
