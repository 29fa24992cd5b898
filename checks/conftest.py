"""Verification by pytest: one test for each requirement and host.

    pytest checks/ --inventory INVENTORY

Every node is asked once, all at the same time, over testinfra's connections; then each test shows
one result. The reports and the exit code are those of `exectrail verify`. A file of this folder
names the requirements that it shows by its SUBJECT.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exectrail.compliance import run
from exectrail.compliance.model import ExitCode, HostReport, HostState, Report, Result, Status
from exectrail.compliance.render import console
from exectrail.compliance.render.findings import Rank, rank
from exectrail.compliance.render.write import write_reports
from exectrail.compliance.requirements import Requirements, load_profile
from exectrail.compliance.verification import Verification, narrow
from exectrail.errors import UsageError
from exectrail.nodes import fleet
from exectrail.printable import printable, printable_lines

_SCRIPTS = Path(__file__).parents[1] / "plugins" / "modules"
_SUBJECTS = ("agent", "audit", "cluster")
"""First words of requirement ids that have a file of their own; all others are about nodes."""
_PATIENCE = 2.0
"""Seconds after which progress is told."""
_OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("--limit", "", "Only these hosts and groups."),
    ("--profile", "installed", "The requirements, installed or a file."),
    ("--waivers", "", "File of accepted failures."),
    ("--report-dir", str(run.VERIFY_DIRECTORY), "Folder for the reports."),
    ("--node-timeout", "60", "Seconds after which a node is given up."),
    ("--masters-group", "masters", "Inventory group of the masters."),
    ("--canary-image", "", "Enter a pod of this image on every node."),
    ("--canary-namespace", "default", "Namespace of these pods."),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("exectrail", "Exectrail (each also as EXECTRAIL_… in the environment)")
    group.addoption("--inventory", action="append", help="Ansible inventory; may be given again.")
    for name, default, text in _OPTIONS:
        group.addoption(name, default=os.environ.get(_variable(name), default), help=text)
    # pytest has a --strict of its own.
    group.addoption("--fail-on-warnings", action="store_true", help="Let warnings fail the run.")


def _variable(option: str) -> str:
    return f"EXECTRAIL_{option.lstrip('-').replace('-', '_').upper()}"


class State:
    """What the run is about, and its report when there is one."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        variable = os.environ.get(_variable("--inventory"))
        sources = config.getoption("--inventory") or ([variable] if variable else [])
        self.profile = str(config.getoption("--profile"))
        self.directory = Path(str(config.getoption("--report-dir")))
        self.requirements: Requirements = load_profile(self.profile)
        self.inventory = fleet.load(sources, config.getoption("--limit") or None)
        self.report: Report | None = None
        self.files: list[Path] = []

    def verify(self, wanted: set[tuple[str, str]]) -> None:
        """Read the nodes of the (check, host) that are wanted, judge them and write the reports."""
        hosts = {host for _, host in wanted}
        option = self.config.getoption
        run.begin(
            self.directory,
            profile=self.profile,
            waivers=str(option("--waivers")),
            strict=bool(option("--fail-on-warnings")),
            selected=hosts,
            inventory=self.inventory.groups,
            addresses=self.inventory.addresses,
        )
        verification = Verification(
            directory=self.directory,
            scripts=_SCRIPTS,
            inventory=self.inventory,
            masters_group=str(option("--masters-group")),
            seconds=_seconds(str(option("--node-timeout"))),
        )
        interrupted = True
        try:
            if option("--canary-image"):
                image, namespace = option("--canary-image"), option("--canary-namespace")
                verification.enter_pods(str(image), str(namespace))
            _read(verification, len(hosts))
            interrupted = False
        finally:
            full = run.finish(self.directory, interrupted=interrupted)
            self.report = narrow(full, self.profile, wanted)
            self.files = list(write_reports(self.report, self.directory).values())


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if float(text) > 0:
            return float(text)
    raise UsageError(f"--node-timeout {text}: give seconds.")


def _read(verification: Verification, total: int) -> None:
    started = time.monotonic()
    with contextlib.closing(verification.read()) as answers:
        for done, found in enumerate(answers, 1):
            seconds = time.monotonic() - started
            if seconds > _PATIENCE:
                text = printable(f"{found.host}  {found.problem or 'read'}")
                sys.stderr.write(f"[{done:>{len(str(total))}}/{total}] {text} ({seconds:.1f} s)\n")


_STATE = pytest.StashKey[State]()


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("numprocesses", None):
        raise pytest.UsageError("Nodes are asked in parallel anyway: leave -n out.")
    with _usage():
        session.config.stash[_STATE] = State(session.config)


class Case(pytest.Item):
    """One requirement on one host."""

    def __init__(self, check: str, host: str, **about: Any) -> None:
        super().__init__(**about)
        self.check = check
        self.host = host

    @property
    def _state(self) -> State:
        return self.config.stash[_STATE]

    def _found(self) -> tuple[Report, HostReport]:
        report = self._state.report
        assert report is not None
        return report, next(each for each in report.hosts if each.host == self.host)

    def setup(self) -> None:
        _, host = self._found()
        if host.state is not HostState.CHECKED:
            raise Unfit(f"{self.host} {host.state}: {host.problem}\n{host.fix}")

    def runtest(self) -> None:
        report, host = self._found()
        result = next(each for each in host.results if each.check == self.check)
        place = rank(result, report.profile)
        if result.status is Status.SKIP:
            pytest.skip(printable(result.message))
        if result.waived and result.waiver:
            waiver = result.waiver
            text = f"waived until {waiver.expires} by {waiver.owner}: {waiver.reason}"
            pytest.xfail(printable(text))
        if place is Rank.GATING or (place is not Rank.FINE and report.strict):
            raise Unfit(_told(result))
        if place is not Rank.FINE:
            warnings.warn(Unfit(_told(result)), stacklevel=1)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Unfit):
            return printable_lines(str(excinfo.value))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        # Were this the name, pytest would print its dots as ::.
        return self.path, None, f"{self.check} on {self.host}"


class Unfit(UserWarning):
    """A requirement that is not met."""


def _told(result: Result) -> str:
    return (
        f"{result.title}\nexpected: {printable(result.expected)}\n"
        f"observed: {printable(result.observed)}\nbecause: {printable(result.message)}\n"
        f"{result.remediation}"
    )


def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Item] | None:
    if name != "SUBJECT":
        return None
    state = collector.config.stash[_STATE]
    cases: list[pytest.Item] = []
    for requirement in state.requirements.checks:
        first = requirement.id.partition(".")[0]
        if obj == (first if first in _SUBJECTS else "node"):
            cases += [
                Case.from_parent(
                    collector, name=f"{requirement.id}[{host}]", check=requirement.id, host=host
                )
                for host in state.inventory.selected
            ]
    return cases


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    wanted = {(item.check, item.host) for item in session.items if isinstance(item, Case)}
    if wanted and not session.config.option.collectonly and not session.testsfailed:
        with _usage():
            session.config.stash[_STATE].verify(wanted)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    state = config.stash.get(_STATE, None)
    if state and state.report:
        colour = terminalreporter.hasmarkup
        terminalreporter.ensure_newline()
        terminalreporter.write(console.render(state.report, colour=colour))
        terminalreporter.write(f"Reports: {' '.join(map(str, state.files))}\n")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    state = session.config.stash.get(_STATE, None)
    session.exitstatus = _exit_code(exitstatus, state.report if state else None)


def _exit_code(status: int, report: Report | None) -> int:
    """Give the exit code that all of Exectrail's commands share."""
    if status in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}:
        return ExitCode.UNKNOWN
    if status in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED}:
        return ExitCode.USAGE
    failed = ExitCode.UNFIT if status == pytest.ExitCode.TESTS_FAILED else ExitCode.FIT
    return (report.exit_code if report else ExitCode.FIT) or failed
