from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exectrail.compliance.evaluate import evaluate
from exectrail.compliance.model import HostState, Result, Status
from exectrail.compliance.waivers import NO_WAIVERS, Row, WaiverBook, load_waivers
from exectrail.errors import UsageError
from tests.unit.compliance.nodes import TODAY, node, profile

HOSTS = {
    "n1": ("all", "legacy"),
    "n2": ("all", "legacy"),
    "edge-1": ("all",),
    "edge-2": ("all",),
    "odd[1]": ("all",),
}
IDS = [requirement.id for requirement in profile("self_managed").checks]
ROW: dict[str, Any] = {
    "check": "node.clock",
    "hosts": ["n1"],
    "reason": "no NTP here",
    "owner": "net-team",
    "expires": dt.date(2026, 11, 21),
}


def book(path: Path, *rows: dict[str, Any]) -> WaiverBook:
    path = path / "waivers.yml"
    path.write_text(yaml.safe_dump(list(rows)))
    return load_waivers(path, IDS, HOSTS)


def clock(waivers: WaiverBook, host: str = "n1", today: dt.date = TODAY, **changes: Any) -> Result:
    changes.setdefault("items", {"clock": {"synchronised": False}})
    report = evaluate(node(host=host, **changes), profile("self_managed"), waivers, today=today)
    return next(result for result in report.results if result.check == "node.clock")


@pytest.mark.parametrize(
    ("hosts", "covered"),
    [
        (["n1"], {"n1"}),
        (["n1", "edge-2"], {"n1", "edge-2"}),
        (["edge-*"], {"edge-1", "edge-2"}),
        (["n?", "edge-1"], {"n1", "n2", "edge-1"}),
        (["group:legacy"], {"n1", "n2"}),
        (["*"], set(HOSTS)),
        (["odd[1]"], {"odd[1]"}),
    ],
)
def test_hosts(tmp_path: Path, hosts: list[str], covered: set[str]) -> None:
    waivers = book(tmp_path, {**ROW, "hosts": hosts})
    assert {host for host in HOSTS if waivers.find("node.clock", host, TODAY)} == covered
    assert waivers.find("node.systemd", "n1", TODAY) is None


@pytest.mark.parametrize(
    ("today", "expired"),
    [("2026-11-20", False), ("2026-11-21", False), ("2026-11-22", True), ("2027-11-20", True)],
)
def test_a_waiver_holds_to_the_end_of_its_last_day(
    tmp_path: Path, today: str, *, expired: bool
) -> None:
    result = clock(book(tmp_path, ROW), today=dt.date.fromisoformat(today))
    assert result.status is Status.FAIL
    assert result.waiver is not None
    assert (result.waiver.expired, result.waived) == (expired, not expired)
    assert (result.waiver.owner, result.waiver.reason) == ("net-team", "no NTP here")
    said = "The waiver of net-team expired: it held until 2026-11-21."
    assert result.message.endswith(said) == expired


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("days", "longest"), [((-1, 1), 1), ((-2, -1), -1), ((1, 2), 2), ((0, -1), 0)]
)
def test_of_several_waivers_the_one_that_holds_longest_counts(
    tmp_path: Path, days: tuple[int, int], longest: int, order: int
) -> None:
    rows = [{**ROW, "expires": TODAY + dt.timedelta(days=day)} for day in days][::order]
    found = book(tmp_path, *rows).find("node.clock", "n1", TODAY)
    assert found is not None
    assert found.expires == TODAY + dt.timedelta(days=longest)
    assert found.expired == (longest < 0)


@pytest.mark.parametrize(
    ("check", "items", "status", "waived"),
    [
        ("node.clock", {"clock": {"synchronised": False}}, Status.FAIL, True),
        ("node.clock", {"clock": {"unreadable": "x"}}, Status.ERROR, True),
        ("node.exec-sensor", {"kernel.btf": False}, Status.WARN, True),
        ("node.clock", {}, Status.PASS, False),
        ("cluster.version", {}, Status.SKIP, False),
    ],
)
def test_what_a_waiver_covers(
    tmp_path: Path, check: str, items: dict[str, Any], status: Status, *, waived: bool
) -> None:
    waivers = book(tmp_path, {**ROW, "check": check})
    report = evaluate(node(items=items, host="n1"), profile("self_managed"), waivers, today=TODAY)
    result = next(result for result in report.results if result.check == check)
    assert (result.status, result.waived) == (status, waived)
    assert (result.waiver is not None) == waived


@pytest.mark.parametrize("state", [HostState.UNREACHABLE, HostState.NOT_REACHED])
def test_no_waiver_covers_a_node_that_was_not_looked_at(tmp_path: Path, state: HostState) -> None:
    result = clock(book(tmp_path, ROW), state=state)
    assert (result.status, result.waiver) == (Status.ERROR, None)


def test_a_requirement_that_is_not_waivable_ignores_waivers(tmp_path: Path) -> None:
    requirements = profile("self_managed")
    fixed = msgspec.structs.replace(
        requirements,
        checks=tuple(msgspec.structs.replace(r, waivable=False) for r in requirements.checks),
    )
    judged = node(items={"clock": {"synchronised": False}}, host="n1")
    report = evaluate(judged, fixed, book(tmp_path, ROW), today=TODAY)
    assert all(result.waiver is None for result in report.results)


def test_without_waivers_nothing_is_waived() -> None:
    assert clock(NO_WAIVERS).waiver is None


@given(st.dates(), st.dates())
def test_a_waiver_is_expired_exactly_after_its_date(expires: dt.date, today: dt.date) -> None:
    row = Row(check="c", hosts=("h",), reason="r", owner="o", expires=expires)
    found = WaiverBook({"c": [(frozenset({"h"}), row)]}).find("c", "h", today)
    assert found is not None
    assert found.expired == (today > expires)


LINES = {
    1: "- check: node.clock",
    2: "  hosts: [n1]",
    3: "  reason: r",
    4: "  owner: o",
    5: "  expires: 2027-01-31",
}


def row(changed: dict[int, str]) -> str:
    """Give a file of one waiver in which some lines are others."""
    return "\n".join((LINES | changed).values()) + "\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "the file is empty"),
        ("check: x\n", 1, "Expected `array`"),
        (row({1: "- check: node.clok"}), 1, "'node.clok'; did you mean 'node.clock'?"),
        (row({1: "- check: zzz"}), 1, "unknown check 'zzz'; there are: cluster.version"),
        (row({1: "-\n  check: node.python"}), 2, "does not let 'node.python' be waived"),
        (row({2: "  hosts:\n    - n1\n    - n3"}), 4, "no host is called 'n3'; there are: edge-1"),
        (row({2: "  hosts: [n1, 'x-*']"}), 2, "no host is called 'x-*'"),
        (row({2: "  hosts: ['group:legcy']"}), 2, "a group 'legcy'; did you mean 'legacy'?"),
        (row({2: "  hosts: []"}), 2, "length >= 1"),
        (row({2: "  hosts: n1"}), 2, "Expected `array`, got `str`"),
        (row({3: "  reason: '  '"}), 3, "regex"),
        (row({4: "  owner: ''"}), 4, "regex"),
        ("# a comment\n" + row({4: "# o"}), 2, "missing required field `owner`"),
        (row({5: ""}), 1, "missing required field `expires`"),
        (row({5: "  expires: soon"}), 5, "date"),
        (row({5: "  expires: 2027-02-31"}), 5, "can't be read as the number or date"),
        (row({5: "  expires: 2027-01-31T10:00:00Z"}), 5, "Expected `date`, got `datetime`"),
        (row({6: "  until: x"}), 6, "unknown key 'until'"),
        (row({3: "  reson: r"}), 3, "unknown key 'reson'; did you mean 'reason'?"),
    ],
)
def test_what_can_not_be_meant_names_the_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = tmp_path / "waivers.yml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_waivers(path, IDS, HOSTS, not_waivable=["node.python"])
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yml: No such file"):
        load_waivers(tmp_path / "none.yml", IDS, HOSTS)


def test_the_example_is_one() -> None:
    path = Path(__file__).parents[3] / "src/exectrail/policies/waivers/example.yml"
    hosts = {"node1": ("all",), "edge-7": ("all",), "old": ("all", "legacy")}
    waivers = load_waivers(path, IDS, hosts)
    assert all(waivers.find("node.dns-source", host, TODAY) for host in hosts)
