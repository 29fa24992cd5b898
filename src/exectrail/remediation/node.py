"""One node's part of a run: judge, plan, change, judge again, and take back what did not help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from exectrail.compliance.model import Evidence, Status
from exectrail.remediation import decide
from exectrail.remediation.decide import Case, Job
from exectrail.remediation.model import Became, Change, Outcome
from exectrail.remediation.run import Opened


class Unmet(Exception):  # noqa: N818  the node's refusal, not a fault of the program
    """The node did not do what it was asked to; the message says why."""

    became = Became.FAILED


class Unheard(Unmet):
    """It is not known what the node did."""

    became = Became.UNKNOWN


class Ask(Protocol):
    """Lets the node's script do something and gives its answer; raises Unmet."""

    def __call__(self, do: str, check: str, **more: Any) -> dict[str, Any]:
        """See plugins/modules/node_repair.py for what it does and what it needs."""


class Node:
    """A node, as far as `collect` reads its evidence and `ask` reaches its script."""

    def __init__(self, opened: Opened, collect: Callable[[], Evidence], ask: Ask) -> None:
        self._opened = opened
        self._collect = collect
        self._ask = ask

    def repair(self) -> list[Outcome]:
        """Make all repairs, then read the node once more and take back what did not help."""
        found = self._collect()
        outcomes = {case.result.check: self._attempt(case, found) for case in self._judge(found)}
        made = [check for check, each in outcomes.items() if each.became is Became.REPAIRED]
        return list((outcomes | self._prove(made, outcomes)).values())

    def undo(self) -> list[Outcome]:
        """Put back what the last repair of each check has changed."""
        return [self._undo(check) for check in self._opened.asked.checks]

    def _judge(self, found: Evidence, checks: Sequence[str] = ()) -> list[Case]:
        opened = self._opened
        asked = checks or opened.asked.checks
        return decide.judge(found, opened.requirements, opened.waivers, asked, opened.today)

    def _attempt(self, case: Case, found: Evidence) -> Outcome:
        """Repair one check; whether it helped is not known yet."""
        check = case.result.check
        try:
            planned = self._plan(case, found)
            if isinstance(planned, Outcome):
                return planned
            if self._opened.asked.dry:
                shown = decide.diffs(planned.changes)
                return Outcome(check, Became.WOULD_REPAIR, case.result.message, shown)
            made = self._ask("apply", check, **msgspec.to_builtins(planned))
        except Unmet as reason:
            return Outcome(check, reason.became, f"{case.result.message} {reason}")
        shown = decide.diffs([msgspec.convert(each, Change) for each in made["changes"]])
        kept = f"What was there before is in {made['folder']}."
        return Outcome(check, Became.REPAIRED, kept, shown)

    def _plan(self, case: Case, found: Evidence) -> Job | Outcome:
        if settled := decide.settled(case):
            return settled
        wanted = decide.look(case, found)
        if isinstance(wanted, Outcome):
            return wanted
        seen = self._ask("look", case.result.check, **msgspec.to_builtins(wanted))
        if seen["interrupted"] and not self._opened.asked.dry:
            # What a killed run had left is taken back now, so the evidence is of another node.
            found = self._collect()
            (case,) = self._judge(found, [case.result.check])
            if settled := decide.settled(case):
                return settled
        return decide.plan(case, found, seen)

    def _prove(self, checks: Sequence[str], made: Mapping[str, Outcome]) -> dict[str, Outcome]:
        if not checks:
            return {}
        cases = self._judge(self._collect(), checks)
        if any(case.result.status is Status.ERROR for case in cases):
            # A busy node may not answer in time at once.
            cases = self._judge(self._collect(), checks)
        return {case.result.check: self._proven(case, made[case.result.check]) for case in cases}

    def _proven(self, case: Case, made: Outcome) -> Outcome:
        check, status, now = case.result.check, case.result.status, case.result.message
        if status is Status.PASS:
            return Outcome(check, Became.REPAIRED, f"{now} {made.message}", made.diff)
        try:
            self._ask("undo", check, state="taken back")
        except Unmet as reason:
            told = f"After its repair: {now} It could not be taken back: {reason}"
            return Outcome(check, reason.became, told, made.diff)
        became = Became.UNKNOWN if status is Status.ERROR else Became.FAILED
        return Outcome(check, became, f"After its repair: {now} So it was taken back.")

    def _undo(self, check: str) -> Outcome:
        try:
            changes = self._ask("undo", check, state="undone")["changes"]
        except Unmet as reason:
            return Outcome(check, reason.became, str(reason))
        if changes is None:
            return Outcome(check, Became.NOTHING, "There is no repair of it on this node.")
        shown = decide.diffs([msgspec.convert(each, Change) for each in changes])
        became = Became.WOULD_UNDO if self._opened.asked.dry else Became.UNDONE
        subjects = ", ".join(subject for subject, *_ in shown) or "Everything"
        return Outcome(check, became, f"{subjects} as before.", shown)
