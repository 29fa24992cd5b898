"""Nothing that a node says makes a check stumble, or pass by what could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exectrail.compliance.items.access import Items
from exectrail.compliance.model import Status
from tests.unit.compliance.installed import PROFILE, UNREADABLE, installed, results, saved

CANARY = {"mark": "m", "namespace": "default", "pod": "p"}
ENTERED = {"namespace": "default", "pod": "p", "container": "", "command": "m", "entry": "exec"}


def rests() -> Iterator[Any]:
    """Every check that passes on a healthy master, with each item that it reads for that."""
    saved_items = {**saved("master").items, "agent.canary": ENTERED}
    variables = {**saved("master").variables, "canary": CANARY}
    for requirement in PROFILE.checks:
        read: set[str] = set()

        class Recording(Items):
            def __getitem__(self, item: Any, read: set[str] = read) -> Any:
                read.add(item.name)
                return super().__getitem__(item)

        outcome = requirement.check.judge(
            Recording(saved_items, variables, groups=("masters",)), requirement.parameters
        )
        assert outcome.status is Status.PASS, requirement.id
        for item in sorted(read):
            yield pytest.param(requirement.id, item, id=f"{requirement.id}-{item}")


@pytest.mark.parametrize(("check_id", "item"), list(rests()))
def test_nothing_passes_that_rests_on_an_item_that_can_not_be_read(
    check_id: str, item: str
) -> None:
    for broken in (UNREADABLE, ..., [[]]):
        node = installed("master", {"agent.canary": ENTERED}, {"canary": CANARY})
        told = results(msgspec.structs.replace(node, items=_with(node.items, item, broken)))
        assert told[check_id].status in {"error", "skip"}, (broken, told[check_id])
        assert "error" in {str(each.status) for each in told.values()}


def _with(items: Mapping[str, Any], item: str, value: Any) -> dict[str, Any]:
    changed = {**items, item: value}
    return {name: each for name, each in changed.items() if each is not ...}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["loaded", "active", "running", "audit", "T", "0600", "[", "&a [*a]"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Name every place of an item down to its leaves."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else [(str(number), each) for number, each in enumerate(value)]
        if isinstance(value, list)
        else []
    )
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


PLACES = [
    "/".join(path)
    for name, value in saved("master").items.items()
    for path in places(value, (name,))
    if not any("/" in step for step in path)
]


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=100)
@given(place=st.sampled_from(PLACES), value=JSON, variable=JSON)
def test_whatever_a_node_says_the_checks_have_an_answer(
    place: str, value: Any, variable: Any
) -> None:
    names = ("asked", "answered", "masters_group", "inventory_addresses", "canary")
    node = installed("master", {place: value}, dict.fromkeys(names, variable))
    for result in results(node).values():
        assert "itself is at fault" not in result.message, result
