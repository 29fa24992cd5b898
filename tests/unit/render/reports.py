"""Small reports, built in place: what the tests of the renderers share."""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from exectrail.compliance.model import (
    HostReport,
    HostState,
    Profile,
    Report,
    Result,
    Severity,
    Status,
    Waiver,
)
from exectrail.compliance.render import json
from exectrail.compliance.requirements import Requirements
from exectrail.compliance.verdict import build_report

FIXTURES = Path(__file__).parents[2] / "fixtures" / "reports"
GOLDEN = Path(__file__).parent / "golden"
STARTED = dt.datetime(2026, 11, 20, 10, 0, 3, tzinfo=dt.UTC)
FINISHED = STARTED + dt.timedelta(seconds=7)

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "\x9b31m\x7f\x00\x08\r\n\t\v\f",
    "\u202eright to left\u2066\u200b\u00ad\ufeff\u2028\u2029",
    "\ufffe\uffff\ud800 and \udcff",
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "]]><![CDATA[ &lt; &#0; &nbsp;",
    "{{ 7*7 }}{% include '/etc/passwd' %}{# #}",
    "A" * 5000,
    "\u65e5\u672c\u8a9e" * 60,
)

saved = cache(lambda name: json.load(FIXTURES / f"{name}.json"))


def golden(name: str) -> str:
    """Give a golden output; `exectrail report render` on the fixture writes a new one."""
    return (GOLDEN / name).read_text(encoding="utf-8")


def waiver(**changes: Any) -> Waiver:
    fields = {"reason": "moving", "owner": "team", "expires": dt.date(2027, 1, 31)}
    return Waiver(**{**fields, "expired": False, **changes})


def result(status: str = "fail", **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "check": "node.clock",
        "title": "The clock is synchronised",
        "host": "node1",
        "severity": Severity.MAJOR,
        "expected": "synchronised",
        "observed": "seen",
        "message": "told",
        "remediation": "timedatectl set-ntp true",
    }
    return Result(**{**fields, **changes, "status": Status(status)})


def node(*results: Result, host: str = "node1", **changes: Any) -> HostReport:
    named = tuple(msgspec.structs.replace(each, host=host) for each in results)
    return HostReport(**{"host": host, "state": HostState.CHECKED, "results": named, **changes})


def report(*nodes: HostReport, gates: str = "blocker major", **changes: Any) -> Report:
    severities = tuple(Severity(each) for each in gates.split())
    profile = Profile(name="ours", title="Our nodes", sha256="ab" * 32, gates=severities)
    settings = {
        "run_id": "r1",
        "started": STARTED,
        "finished": FINISHED,
        "strict": False,
        **changes,
    }
    return build_report(nodes, Requirements(profile=profile, checks=()), **settings)


def hostile_report(text: str) -> Report:
    """Give a report that has `text` wherever a node, an inventory or a file may have put it."""
    told = {"observed": text, "message": text, "remediation": text, "title": text, "check": text}
    excused = waiver(reason=text, owner=text)
    return report(
        node(
            result(**told, expected=text, references=(text, f"https://x/{text}")),
            result("error", **told, waiver=excused),
            result("warn", **told),
            result("skip", **told),
            host=f"a{text}",
            facts={text: text, "os": text},
        ),
        node(result(**told), host=f"b{text}", state=HostState.UNREACHABLE, problem=text, fix=text),
    )
