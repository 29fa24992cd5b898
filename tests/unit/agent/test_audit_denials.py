"""What of kernel audit is passed on, and how much of it."""

from __future__ import annotations

from exectrail_agent.audit.denials import Denials

DENIAL = b'audit(1700000000.123:7): avc:  denied  { read } for  pid=7 comm="cat"\0'


def test_denials_are_passed_on_and_nothing_else() -> None:
    told: list[str] = []
    denials = Denials(told.append)
    for kind in (1300, 1309, 1326, 1327, 1400, 1499, 1500, 1701):
        denials.take(kind, DENIAL, 0)

    text = 'audit(1700000000.123:7): avc:  denied  { read } for  pid=7 comm="cat"'
    assert told == [f"audit: type={kind} {text}" for kind in (1326, 1400, 1499)]


def test_what_a_record_holds_breaks_no_line() -> None:
    told: list[str] = []
    Denials(told.append).take(1400, b"audit(1.000:1): a\nb\x1b[2J\xff", 0)

    (line,) = told
    assert line.isprintable()


def test_a_flood_is_cut_and_said_to_be() -> None:
    told: list[str] = []
    denials = Denials(told.append)
    for _ in range(25):
        denials.take(1400, DENIAL, 100.0)
    assert len(told) == 10
    denials.take(1400, DENIAL, 105.5)

    assert told[10] == "audit: 15 more like these were left out"
    assert len(told) == 12
