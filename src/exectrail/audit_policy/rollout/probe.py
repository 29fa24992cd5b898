"""A request of our own that shows, by its line in the log, that a policy is in force."""

from __future__ import annotations

from collections.abc import Sequence

from exectrail.audit_policy.policy import Policy, Request, decide

USER = "kube-apiserver-kubelet-client"
"""Whom the certificate names that the API server itself uses, as kubeadm makes it."""
_GROUPS = ("system:masters", "kubeadm:cluster-admins")
"""Its group below Kubernetes 1.29, and from there on."""


RESOURCES = ("pods", "configmaps", "services", "secrets", "")
"""What the harmless requests are for; the last is a path that is none of a resource."""


def choose(policy: Policy, mark: str) -> dict[str, str] | None:
    """Return path, user agent and the level expected in the log.

    None if the policy records none of the harmless requests that there are.
    """
    name = f"exectrail-probe-{mark}"
    for resource in RESOURCES:
        expected = levels(policy, resource, name)
        level = expected.pop()
        if not expected and level != "None":
            below = f"api/v1/namespaces/kube-system/{resource}/" if resource else ""
            return {"path": f"/{below}{name}", "agent": f"exectrail/{mark}", "level": level}
    return None


def levels(
    policy: Policy, resource: str, name: str, user: str = "", groups: Sequence[str] = ()
) -> set[str]:
    """Return the levels at which the log may tell of the request, ``None`` if it tells nothing.

    There are several where nobody says which user it is, and the user's group decides.
    """
    who = (
        [(user, tuple(groups))] if user else [(USER, (g, "system:authenticated")) for g in _GROUPS]
    )
    return {_level(policy, resource, name, *each) for each in who}


def _level(policy: Policy, resource: str, name: str, user: str, groups: tuple[str, ...]) -> str:
    request = (
        Request(user, "get", groups, resource=resource, namespace="kube-system", name=name)
        if resource
        else Request(user, "get", groups, path=f"/{name}")
    )
    decision = decide(policy, request)
    return decision.level if "ResponseComplete" in decision.stages else "None"
