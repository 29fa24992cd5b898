"""Whether a run's variables and inventory can be meant as they are, before any node is touched."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from exectrail.errors import UsageError
from exectrail.hostnames import fold

Options = Mapping[str, Mapping[str, Any]]
"""The options of a role's argument_specs.yml."""
Check = Callable[[Options, Mapping[str, Any]], Sequence[str]]
"""Gives what is wrong with the values of options that are set."""

PLAYBOOKS = frozenset(
    {
        *("preflight_hosts", "preflight_run_id", "exec_agent_hosts"),
        *("verify_hosts", "verify_run_id", "install_run_id"),
    }
)
"""Variables of playbooks, which no role documents."""


class Nodes(NamedTuple):
    """Hosts by what is to be done on them, in the order of the inventory."""

    nodes: tuple[str, ...]
    masters: tuple[str, ...]
    left_out: tuple[str, ...]


def nodes(groups: Mapping[str, Sequence[str]], masters: str, workers: str) -> Nodes:
    """Find the nodes of a cluster by the names of its two groups; UsageError if one is empty.

    A group with the name "" is none. Without hosts beside the masters, there need be no workers.
    """
    everybody = [str(host) for host in groups["all"]]
    if not everybody:
        raise UsageError(
            "The inventory has no hosts. Name one with -i; inventories/example is one to copy."
        )
    first, second = ([str(host) for host in groups.get(name, ())] for name in (masters, workers))
    found = dict.fromkeys([*first, *second])
    others = tuple(host for host in everybody if host not in found)
    if masters and not first:
        raise UsageError(
            f"The inventory's group {masters} has no hosts. Name the group of all masters with "
            'install_masters_group; "" if the control plane is none of yours.'
        )
    if workers and not second and (others or workers != "workers"):
        raise UsageError(
            f"The inventory's group {workers} has no hosts, and {fold(others) or 'nobody'} is in "
            f'no group of nodes. Name the group with install_workers_group; "" for none.'
        )
    if not found:
        raise UsageError("Neither masters nor workers are named: there is nothing to do.")
    return Nodes(tuple(found), tuple(first), others)


def check(
    variables: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Options], judge: Check
) -> None:
    """Raise UsageError that names all that is wrong with the hosts' variables.

    `variables` maps hosts to theirs, `specs` maps each role to its options; a variable whose name
    begins with a role's has to be one of them.
    """
    wrong: dict[str, list[str]] = {}
    for host, given in variables.items():
        for role, options in specs.items():
            mine = {name: given[name] for name in given if name.startswith(f"{role}_")}
            for told in (*_unknown(mine, options), *judge(options, _known(mine, options))):
                wrong.setdefault(told, []).append(host)
    if wrong:
        listed = "\n".join(
            f"  {told}" + (f" ({fold(hosts)})" if len(hosts) < len(variables) else "")
            for told, hosts in wrong.items()
        )
        raise UsageError(f"Nothing was touched, because of the variables:\n{listed}")


def _known(given: Mapping[str, Any], options: Options) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in options}


def _unknown(given: Collection[str], options: Options) -> list[str]:
    found = []
    for name in given:
        if name not in options and name not in PLAYBOOKS:
            near = difflib.get_close_matches(name, [*options, *PLAYBOOKS], 1)
            found.append(f"{name} is unknown" + (f"; {near[0]} perhaps?" if near else ""))
    return found
