"""What a check is, and the table of all of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

import msgspec

from exectrail.compliance.items.access import Items, Unreadable
from exectrail.compliance.model import Status


class Outcome(NamedTuple):
    """What a check found on one node: facts in `observed`, one sentence in `message`."""

    status: Status
    observed: str
    message: str

    @classmethod
    def passed(cls, observed: str, message: str) -> Outcome:
        """Say that the node is as it should be."""
        return cls(Status.PASS, observed, message)

    @classmethod
    def failed(cls, observed: str, message: str) -> Outcome:
        """Say that it is not."""
        return cls(Status.FAIL, observed, message)

    @classmethod
    def warned(cls, observed: str, message: str) -> Outcome:
        """Say that it is, but that somebody should look."""
        return cls(Status.WARN, observed, message)

    @classmethod
    def skipped(cls, observed: str, message: str) -> Outcome:
        """Say that it is not for this node to be so."""
        return cls(Status.SKIP, observed, message)


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a requirements file can set for a check; `expects` may name it in braces."""

    expects: ClassVar[str] = ""

    def expected(self) -> str:
        """Say what a fit node shows, given these parameters."""
        return self.expects.format_map(msgspec.structs.asdict(self))


P = TypeVar("P", bound=Parameters)
Judge = Callable[[Items, P], Outcome]


class Check(NamedTuple):
    """A check: its parameters' type, and the pure function that judges a node's items.

    It is skipped where one of the checks `after` which it comes does not pass.
    """

    id: str
    parameters: type[Parameters]
    judge: Callable[[Items, Any], Outcome]
    after: tuple[str, ...] = ()


CHECKS: dict[str, Check] = {}


def check(
    check_id: str, parameters: type[P], *, after: tuple[str, ...] = ()
) -> Callable[[Judge[P]], Judge[P]]:
    """Register a function under a check id; raise ValueError if the id is taken.

    `after` are the checks without which this one can say nothing: where one of them does not pass
    (or warn), this one is skipped, so that one broken thing is one finding.
    """

    def register(judge: Judge[P]) -> Judge[P]:
        if check_id in CHECKS:
            raise ValueError(f"two checks are called {check_id}")

        @functools.wraps(judge)
        def chained(items: Items, given: P) -> Outcome:
            obstacles = (_obstacle(items, earlier) for earlier in after)
            return next(filter(None, obstacles), None) or judge(items, given)

        chosen = chained if after else judge
        CHECKS[check_id] = Check(check_id, parameters, chosen, after)
        return chosen

    return register


def _obstacle(items: Items, earlier: str) -> Outcome | None:
    """Say why a check after the `earlier` one is skipped; None if it is not for that one."""
    try:
        outcome = CHECKS[earlier].judge(items, CHECKS[earlier].parameters())
    except Unreadable:
        outcome = None
    if outcome and outcome.status in (Status.PASS, Status.WARN):
        return None
    if outcome and outcome.status is Status.SKIP:
        return outcome
    return Outcome.skipped(f"{earlier} does not pass", f"It can't be said before {earlier} passes.")


def plain_check(
    check_id: str, expected: str, *, after: tuple[str, ...] = ()
) -> Callable[[Callable[[Items], Outcome]], Judge[Parameters]]:
    """Register a function as `check` does that has nothing to set and always expects the same."""
    parameters = msgspec.defstruct(
        "".join(word.title() for word in re.split("[.-]", check_id)),
        (),
        bases=(Parameters,),
        namespace={"__doc__": "Nothing to set.", "expects": expected},
        module=__name__,
        frozen=True,
        kw_only=True,
        forbid_unknown_fields=True,
    )

    def register(judge: Callable[[Items], Outcome]) -> Judge[Parameters]:
        @functools.wraps(judge)
        def judged(items: Items, _given: Parameters) -> Outcome:
            return judge(items)

        return check(check_id, cast("type[Parameters]", parameters), after=after)(judged)

    return register


def listing(found: Sequence[str], most: int = 5) -> str:
    """Join findings; of many, only the first."""
    more = len(found) - most
    return "; ".join(found[:most]) + (f"; and {more} more" if more > 0 else "")
