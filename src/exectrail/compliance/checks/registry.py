"""What a check is, and the table of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec

from exectrail.compliance.items import Items
from exectrail.compliance.model import Status


class Outcome(NamedTuple):
    """What a check found on one node: facts in `observed`, one sentence in `message`."""

    status: Status
    observed: str
    message: str


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a requirements file can set for a check."""

    def expected(self) -> str:
        """Say what a fit node shows, given these parameters."""
        raise NotImplementedError


P = TypeVar("P", bound=Parameters)
Judge = Callable[[Items, P], Outcome]


class Check(NamedTuple):
    """A check: its parameters' type, and the pure function that judges a node's items."""

    id: str
    parameters: type[Parameters]
    judge: Callable[[Items, Any], Outcome]


CHECKS: dict[str, Check] = {}


def check(check_id: str, parameters: type[P]) -> Callable[[Judge[P]], Judge[P]]:
    """Register a function under a check id; raise ValueError if the id is taken."""

    def register(judge: Judge[P]) -> Judge[P]:
        if check_id in CHECKS:
            raise ValueError(f"two checks are called {check_id}")
        CHECKS[check_id] = Check(check_id, parameters, judge)
        return judge

    return register


def listing(found: Sequence[str], most: int = 5) -> str:
    """Join findings; of many, only the first."""
    more = len(found) - most
    return "; ".join(found[:most]) + (f"; and {more} more" if more > 0 else "")
