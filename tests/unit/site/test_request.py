from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from exectrail.errors import UsageError
from exectrail.site import request
from exectrail.site.commands import variables

GROUPS = {"all": ["m1", "w1", "w2", "door"], "masters": ["m1"], "workers": ["w1", "w2"]}
SPECS = {"install": {"install_waves": {}}, "exec_agent": {"exec_agent_record": {"type": "str"}}}


def nothing(_options: request.Options, _given: Mapping[str, Any]) -> Sequence[str]:
    return ()


def test_nodes_are_those_of_the_two_groups() -> None:
    found = request.nodes(GROUPS, "masters", "workers")

    assert found == (("m1", "w1", "w2"), ("m1",), ("door",))


def test_a_group_may_be_none() -> None:
    assert request.nodes(GROUPS, "", "workers").masters == ()
    assert request.nodes(GROUPS, "masters", "").nodes == ("m1",)


def test_masters_alone_need_no_workers() -> None:
    assert request.nodes({"all": ["m1"], "masters": ["m1"]}, "masters", "workers").nodes == ("m1",)


@pytest.mark.parametrize(
    ("groups", "masters", "workers", "says"),
    [
        ({"all": []}, "masters", "workers", "The inventory has no hosts"),
        (GROUPS, "heads", "workers", "group heads has no hosts"),
        (GROUPS, "masters", "hands", "group hands has no hosts"),
        ({"all": ["m1", "w1"], "masters": ["m1"]}, "masters", "workers", "w1 is in no group"),
        (GROUPS, "", "", "nothing to do"),
    ],
)
def test_an_empty_group_is_refused(
    groups: dict[str, list[str]], masters: str, workers: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        request.nodes(groups, masters, workers)


def test_known_variables_and_those_of_others_pass() -> None:
    given = {"install_waves": [1], "exec_agent_hosts": "all", "ansible_user": "root"}

    request.check({"m1": given}, SPECS, nothing)


def test_everything_wrong_is_told_at_once_with_its_hosts() -> None:
    given = {"m1": {"install_wave": [1]}, "w1": {"install_wave": 1, "exec_agent_recrod": "all"}}

    def judge(options: request.Options, values: Mapping[str, Any]) -> Sequence[str]:
        return [f"{name} is bad" for name in values if name in options]

    given["m1"]["exec_agent_record"] = [1]
    with pytest.raises(UsageError) as caught:
        request.check(given, SPECS, judge)

    said = str(caught.value)
    assert "install_wave is unknown; install_waves perhaps?\n" in said
    assert "exec_agent_recrod is unknown; exec_agent_record perhaps? (w1)" in said
    assert "exec_agent_record is bad (m1)" in said


def test_options_that_are_not_given_leave_the_inventorys_variables() -> None:
    given = {"waves": "1, 50%", "max_failures": 0, "purge": None, "inventory": ("x",)}

    assert {name: each for name, each in variables(given).items() if each is not None} == {
        "install_waves": ["1", "50%"],
        "install_max_fail_percentage": 0,
    }
