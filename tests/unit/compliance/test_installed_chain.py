"""One broken thing is one finding."""

from __future__ import annotations

from typing import Any

import pytest

from exectrail.compliance.checks import CHECKS
from exectrail.compliance.checks.registry import plain_check
from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.model import Evidence, Status
from tests.unit.compliance.installed import PROFILE, UNREADABLE, findings, installed, results, saved

DEAD = {"agent.unit/active": "failed", "agent.unit/sub": "failed", "agent.process": None}
UNTESTED = {"agent.self_test": None}
CANARY = {"mark": "m", "namespace": "default", "pod": "p"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {
                "agent.unit/load": "not-found",
                "agent.process": None,
                "agent.program": None,
                "agent.status": None,
                "agent.self_test": None,
                "agent.log": None,
            },
            {"agent.installed": "fail"},
        ),
        ({**DEAD, **UNTESTED}, {"agent.active": "fail"}),
        ({"agent.process/state": "T", **UNTESTED}, {"agent.active": "fail"}),
        ({"agent.self_test/seen": None, "agent.self_test/recorded": None}, {"agent.sees": "fail"}),
        (
            {"agent.self_test/recorded": False, "agent.status/reasons": ["a: No space left"]},
            {"agent.log": "fail"},
        ),
        ({"agent.log/folder/mode": "0755"}, {"agent.log": "fail"}),
        ({"agent.status/reasons": ["something"]}, {"agent.healthy": "fail"}),
        (
            {
                "agent.status/reasons": ["in the last ten minutes events were lost: x 1"],
                "agent.losses": {"causes": {"x": 1}, "newest": 1.0},
            },
            {"agent.losses": "warn"},
        ),
        ({"agent.program/sha256": "0" * 64}, {"agent.program": "fail"}),
        ({"agent.unit/enabled": "disabled"}, {"agent.active": "warn"}),
        (
            {"api.server": None, "audit.policy": None, "audit.log": None, "audit.probes": None},
            {"audit.server": "fail"},
        ),
        ({"api.server/flags/audit-log-path": "/x", "audit.log": None}, {"audit.server": "fail"}),
        ({"audit.applied": None}, {"audit.server": "fail"}),
        ({"audit.policy/sha256": "0" * 64}, {"audit.policy": "fail"}),
        ({"audit.probes/requests/0/level": None}, {"audit.record": "fail"}),
        ({"audit.probes": UNREADABLE, "api.nodes": UNREADABLE}, {"audit.record": "error"}),
        ({"audit.log/file/mode": "0644"}, {"audit.log": "fail"}),
        ({"kubelet.unit/active": "inactive", "kubelet/running": False}, {"node.kubelet": "fail"}),
        ({"clock.now": 1.0}, {"node.clock-offset": "fail"}),
        ({"agent.unit": UNREADABLE}, {"agent.installed": "error"}),
        ({"audit.applied": UNREADABLE}, {"audit.server": "error"}),
    ],
)
def test_one_broken_thing_is_one_finding(changes: dict[str, Any], found: dict[str, str]) -> None:
    assert findings(installed("master", changes)) == found


def test_a_dead_agent_is_not_also_a_missing_canary() -> None:
    node = installed(changes={**DEAD, **UNTESTED}, variables={"canary": CANARY})
    assert findings(node) == {"agent.active": "fail"}
    assert "before agent.active passes" in results(node)["cluster.canary"].message


def test_a_pod_that_no_kubelet_starts_is_not_also_a_finding() -> None:
    changes = {"kubelet.unit/active": "inactive", "kubelet/running": False}
    variables = {"canary": {**CANARY, "problem": "it was not ready within 60 s"}}
    assert findings(installed(changes=changes, variables=variables)) == {"node.kubelet": "fail"}


def test_a_node_without_kubernetes_is_judged_by_its_agent() -> None:
    changes = {"kubelet": None, "kubelet.static_pods": None, "kubernetes.role": "none"}
    skipped = {
        each.check for each in results(installed(changes=changes)).values() if each.status == "skip"
    }
    assert {check for check in CHECKS if check.startswith("audit.")} <= skipped
    assert {"cluster.nodes", "cluster.canary", "node.kubelet", "node.static-pods"} <= skipped
    assert findings(installed(changes=changes)) == {}


def test_a_node_that_told_nothing_has_an_error_at_the_head_of_each_chain() -> None:
    assert set(findings(Evidence(host="a", items={}, variables={"asked": 1, "answered": 2}))) == {
        "agent.installed",
        "audit.server",
        "node.static-pods",
        "node.kubelet",
        "node.clock-offset",
        "cluster.nodes",
    }


def test_the_chain_of_a_check_is_known_to_the_table() -> None:
    def judge(_items: Items) -> Any:
        """Say so."""
        raise Unreadable("a", "b")

    try:
        chained = plain_check("test.first", "nothing", after=("agent.installed",))(judge)
        parameters = CHECKS["test.first"].parameters()
        assert parameters.expected() == "nothing"
        assert chained.__doc__ == "Say so."
        items = Items(saved("worker").items, {})
        with pytest.raises(Unreadable):
            chained(items, parameters)
        assert chained(Items({}, {}), parameters).status is Status.SKIP
    finally:
        CHECKS.pop("test.first", None)


def test_the_defaults_are_those_of_the_profile() -> None:
    """Links of a chain are judged with them, whatever the profile says."""
    for requirement in PROFILE.checks:
        if requirement.id != "node.static-pods":
            assert requirement.check.parameters() == requirement.parameters
