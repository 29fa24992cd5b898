"""A request of our own that shows, by its line in the log, that a policy is in force."""

from __future__ import annotations

from exectrail.audit_policy.policy import Policy, Request, decide

USER = "kube-apiserver-kubelet-client"
"""Whom the certificate names that the API server itself uses, as kubeadm makes it."""
_GROUPS = ("system:masters", "kubeadm:cluster-admins")
"""Its group below Kubernetes 1.29, and from there on."""


def choose(policy: Policy, mark: str) -> dict[str, str] | None:
    """Return path, user agent and the level expected in the log.

    None if the policy records none of the harmless requests that there are.
    """
    name = f"exectrail-probe-{mark}"
    for resource in ("pods", "configmaps", "services", "secrets", ""):
        levels = {_level(policy, resource, name, group) for group in _GROUPS}
        level = levels.pop()
        if not levels and level != "None":
            below = f"api/v1/namespaces/kube-system/{resource}/" if resource else ""
            return {"path": f"/{below}{name}", "agent": f"exectrail/{mark}", "level": level}
    return None


def _level(policy: Policy, resource: str, name: str, group: str) -> str:
    groups = (group, "system:authenticated")
    request = (
        Request(USER, "get", groups, resource=resource, namespace="kube-system", name=name)
        if resource
        else Request(USER, "get", groups, path=f"/{name}")
    )
    decision = decide(policy, request)
    return decision.level if "ResponseComplete" in decision.stages else "None"
