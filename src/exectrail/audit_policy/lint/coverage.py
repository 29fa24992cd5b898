"""What a whole policy records: which rules ever decide, which bodies are kept, which accesses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exectrail.audit_policy.lint.reach import Target, decides, takers
from exectrail.audit_policy.policy import Policy, Rule

_WRITES = ("create", "update", "patch")
_ANSWERED = (*_WRITES, "get", "list", "delete", "deletecollection")
_STREAMS = ("get", "create")
_LINES_LEFT = frozenset({"RequestReceived", "ResponseStarted", "ResponseComplete"})


@dataclass(frozen=True, slots=True)
class Observation:
    """A finding of this module: check, position of the rule (None: the policy), message."""

    check: str
    rule: int | None
    message: str


@dataclass(frozen=True, slots=True)
class _Sensitive:
    what: str
    target: Target
    in_request: bool


_SENSITIVE = (
    _Sensitive("secrets", Target("", "secrets", ""), in_request=True),
    _Sensitive("configmaps", Target("", "configmaps", ""), in_request=True),
    _Sensitive(
        "the tokens of tokenreviews",
        Target("authentication.k8s.io", "tokenreviews", ""),
        in_request=True,
    ),
    # What is asked for is an audience and a lifetime; the token is in the answer.
    _Sensitive(
        "the tokens of serviceaccounts/token",
        Target("", "serviceaccounts", "token"),
        in_request=False,
    ),
)
_ACCESSES = (
    ("exec-unrecorded", "exec", _STREAMS),
    ("access-unrecorded", "attach", _STREAMS),
    ("access-unrecorded", "portforward", _STREAMS),
    ("access-unrecorded", "ephemeralcontainers", ("update", "patch")),
)


def observe(policy: Policy) -> Iterator[Observation]:
    """Give everything worth saying about what `policy` records."""
    yield from _unreachable(policy)
    yield from _silent(policy)
    yield from _bodies(policy)
    yield from _accesses(policy)


def _unreachable(policy: Policy) -> Iterator[Observation]:
    for position in range(len(policy.rules)):
        taken = takers(policy.rules, position)
        if taken is not None:
            numbers = " and ".join(str(index + 1) for index in taken)
            whose = f"rule {numbers} takes" if len(taken) == 1 else f"rules {numbers} together take"
            yield Observation(
                "unreachable", position, f"this rule never decides: {whose} all of it before"
            )


def _silent(policy: Policy) -> Iterator[Observation]:
    for position, rule in enumerate(policy.rules):
        if rule.level != "None" and not _leaves_lines(policy, rule):
            yield Observation(
                "all-stages-omitted",
                position,
                f"level {rule.level}, but every stage of an ordinary request is omitted",
            )


def _leaves_lines(policy: Policy, rule: Rule) -> bool:
    return not _LINES_LEFT.issubset({*policy.omit_stages, *rule.omit_stages})


def _bodies(policy: Policy) -> Iterator[Observation]:
    for position, rule in enumerate(policy.rules):
        verbs = {"Request": _WRITES, "RequestResponse": _ANSWERED}.get(rule.level)
        if verbs is None:
            continue
        kept = [
            sensitive.what
            for sensitive in _SENSITIVE
            if (sensitive.in_request or rule.level == "RequestResponse")
            and decides(policy.rules, position, sensitive.target, verbs)
        ]
        if kept:
            yield Observation(
                "bodies",
                position,
                f"level {rule.level} writes to the log: {', '.join(kept)}; "
                "put a rule of level Metadata for them before",
            )


def _accesses(policy: Policy) -> Iterator[Observation]:
    for check, subresource, verbs in _ACCESSES:
        target = Target("", "pods", subresource)
        recorded = [verb for verb in verbs if _is_recorded(policy, target, verb)]
        if recorded == list(verbs):
            continue
        if not recorded:
            message = f"nothing of pods/{subresource} is recorded"
        else:
            missing = next(verb for verb in verbs if verb not in recorded)
            message = (
                f"pods/{subresource} is recorded with the verb {recorded[0]}, not with {missing}; "
                "which of the two it is depends on the client"
            )
        yield Observation(check, _generic_decider(policy, target, verbs), message)


def _is_recorded(policy: Policy, target: Target, verb: str) -> bool:
    return any(
        rule.level != "None"
        and _leaves_lines(policy, rule)
        and decides(policy.rules, position, target, (verb,))
        for position, rule in enumerate(policy.rules)
    )


def _generic_decider(policy: Policy, target: Target, verbs: tuple[str, ...]) -> int | None:
    """Find the last rule that decides some of these requests: the one without conditions."""
    return next(
        (
            position
            for position in reversed(range(len(policy.rules)))
            if decides(policy.rules, position, target, verbs)
        ),
        None,
    )
