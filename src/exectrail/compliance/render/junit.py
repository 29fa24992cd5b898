"""The report for CI: a suite per node, a case per check.

Red (failure, error) is what makes the exit code, green is only what passed, and everything else
is *skipped* with the reason in its message: a JUnit reader knows no fourth colour, and shows why
a case was skipped but hardly ever what a passed one printed.

=================================  ========================================================
a gating failure                   ``<failure>``, its type the severity
a gating error                     ``<error>``, its type the severity
a warning, or a failure or error   in a strict run, which it fails, ``<failure>``;
of a severity that does not gate   else ``<skipped type="warning">``
waived                             ``<skipped type="waived">`` with reason, owner and last day
does not apply                     ``<skipped type="not-applicable">``
a node that was not checked        one case ``reached`` with ``<error type="unreachable">``;
                                   its checks are skipped, so that it counts once
=================================  ========================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape

from exectrail.compliance.model import HostReport, HostState, Report, Result, Status
from exectrail.compliance.render.findings import Rank, rank
from exectrail.printable import printable, printable_lines


def render(report: Report) -> str:
    """Return the report as JUnit XML, well-formed whatever the nodes said."""
    totals: Counter[str] = Counter()
    suites = [part for host in report.hosts for part in _suite(host, report, totals)]
    seconds = (report.finished - report.started).total_seconds()
    head = _start("testsuites", name=f"exectrail {report.profile.name}", **_numbers(totals))
    return "".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>\n',
            f'{head} time="{seconds:.3f}">\n',
            *suites,
            "</testsuites>\n",
        )
    )


def _suite(host: HostReport, report: Report, totals: Counter[str]) -> Iterator[str]:
    """Give the XML of a node and add its cases to `totals`."""
    cases = [(result.check, *_outcome(result, host, report)) for result in host.results]
    if host.state is not HostState.CHECKED:
        told = _element("error", host.state, host.problem, f"{host.problem}\n\n{host.fix}")
        cases.insert(0, ("reached", "error", told))
    counts = Counter(kind for _, kind, _ in cases)
    totals += counts
    when = f"{report.started:%Y-%m-%dT%H:%M:%S}"
    yield _start("testsuite", name=host.host, **_numbers(counts), time="0", timestamp=when) + ">\n"
    if host.facts:
        yield "<properties>"
        for name, value in host.facts.items():
            yield _start("property", name=name, value=value) + "/>"
        yield "</properties>\n"
    class_name = _attribute(host.host)
    for check, _, told in cases:
        start = f'<testcase classname="{class_name}" name="{_attribute(check)}" time="0"'
        yield f"{start}>{told}</testcase>\n" if told else f"{start}/>\n"
    yield "</testsuite>\n"


def _outcome(result: Result, host: HostReport, report: Report) -> tuple[str, str]:
    """Return what a case counts as, and the element that says so."""
    if result.status is Status.PASS:
        return "pass", ""
    place = rank(result, report.profile)
    gates = place is Rank.GATING
    warns = place in (Rank.FAILING, Rank.WARNING)
    if host.state is HostState.CHECKED and (gates or (warns and report.strict)):
        kind = "error" if gates and result.status is Status.ERROR else "failure"
        return kind, _element(kind, result.severity, result.message, _details(result))
    if result.status is Status.SKIP:
        return "skipped", _element("skipped", "not-applicable", result.message, "")
    if host.state is not HostState.CHECKED:
        return "skipped", _element("skipped", host.state, result.message, "")
    if place is Rank.WAIVED and result.waiver:
        waiver = result.waiver
        kind = "waived"
        why = f"waived until {waiver.expires} by {waiver.owner}: {waiver.reason}"
    else:
        kind = "warning"
        why = f"{result.status}, but {result.severity} does not gate: {result.message}"
    return "skipped", _element("skipped", kind, why, _details(result))


def _details(result: Result) -> str:
    return (
        f"{result.title}\n"
        f"expected: {printable(result.expected)}\n"
        f"observed: {printable(result.observed)}\n"
        f"because: {printable(result.message)}\n\n"
        f"{result.remediation}"
    )


def _element(tag: str, kind: str, message: str, body: str) -> str:
    start = _start(tag, type=kind, message=message)
    return f"{start}>{escape(printable_lines(body))}</{tag}>" if body else f"{start}/>"


def _start(tag: str, **attributes: str) -> str:
    written = [f'{name}="{_attribute(value)}"' for name, value in attributes.items()]
    return f"<{' '.join((tag, *written))}"


def _attribute(text: str) -> str:
    return escape(printable(text))


def _numbers(counts: Counter[str]) -> dict[str, str]:
    return {
        "tests": str(counts.total()),
        "failures": str(counts["failure"]),
        "errors": str(counts["error"]),
        "skipped": str(counts["skipped"]),
    }
