"""Folded host names: short, in counting order, and nothing lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exectrail.hostnames import fold, in_order


@pytest.mark.parametrize(
    ("hosts", "folded"),
    [
        ([], ""),
        (["a"], "a"),
        (["node01", "node01"], "node01"),
        ([f"node{i:02}" for i in range(1, 15)], "node[01-14]"),
        ([f"node{i}" for i in (10, 9, 11)], "node[9-11]"),
        (["node1", "node2", "node4"], "node[1-2,4]"),
        (["node08", "node09", "node10"], "node[08-10]"),
        (["node099", "node100"], "node[099-100]"),
        (["node9", "node010"], "node[9,010]"),
        (["node1", "node01"], "node[1,01]"),
        (["n1.dc2.example.org", "n2.dc2.example.org"], "n[1-2].dc2.example.org"),
        (["10.0.0.1", "10.0.0.2", "10.0.1.7"], "10.0.0.[1-2], 10.0.1.7"),
        (["r1n1", "r1n2", "r2n1", "r2n2"], "r1n[1-2], r2n[1-2]"),
        (["web2", "db1", "web1", "edge"], "db1, edge, web[1-2]"),
        (["7", "8"], "[7-8]"),
        (["a\u0661", "a\u0662"], "a\u0661, a\u0662"),
        (["n" + "9" * 40, "n1"], "n1, n" + "9" * 40),
    ],
)
def test_fold(hosts: list[str], folded: str) -> None:
    assert fold(hosts) == folded


@pytest.mark.parametrize(
    ("limit", "folded"),
    [
        (1, "a1 and 8 more"),
        (2, "a1, node[1-3] and 5 more"),
        (3, "a1, node[1-3,5] and 4 more"),
        (4, "a1, node[1-3,5,7-8] and 2 more"),
        (5, "a1, node[1-3,5,7-8], x and 1 more"),
        (6, "a1, node[1-3,5,7-8], x, y"),
    ],
)
def test_a_limit_counts_what_it_hides(limit: int, folded: str) -> None:
    hosts = ["a1", *(f"node{i}" for i in (1, 2, 3, 5, 7, 8)), "x", "y"]
    assert fold(hosts, limit=limit) == folded


def expand(folded: str) -> list[str]:
    hosts = []
    for item in re.split(r", (?![^\[]*\])", folded):
        parts = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", item)
        if not parts:
            hosts.append(item)
            continue
        for span in parts[2].split(","):
            first, _, last = span.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            hosts += [f"{parts[1]}{number:0{len(first)}}{parts[3]}" for number in numbers]
    return hosts


@given(st.sets(st.from_regex(r"[a-c]{0,2}[0-9]{1,3}(\.[ab]?[0-9]{0,2})?", fullmatch=True)))
def test_unfolding_gives_the_same_hosts(hosts: set[str]) -> None:
    assert sorted(expand(fold(hosts))) == sorted(hosts or {""})


def test_hosts_are_sorted_as_people_count() -> None:
    assert in_order(["n10", "n2", "n1", "n01", "a"]) == ["a", "n01", "n1", "n2", "n10"]
