"""The nodes of an inventory, asked all at once, here over connections to this machine."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from exectrail.nodes import fleet

RAW: dict[str, Any] = {
    "_meta": {
        "hostvars": {
            "m": {"ansible_host": "192.0.2.1", "exec_agent_node_name": "m.example.org"},
            "w": {"ansible_host": "w"},
        }
    },
    "all": {"children": ["ungrouped", "cluster"]},
    "cluster": {"children": ["masters", "workers"]},
    "masters": {"hosts": ["m"]},
    "workers": {"hosts": ["w"]},
    "ungrouped": {"hosts": ["alone"]},
}


def _local(*hosts: str, **variables: str) -> fleet.Inventory:
    each = {"ansible_connection": "local", **variables}
    raw = {"_meta": {"hostvars": dict.fromkeys(hosts, each)}, "all": {"hosts": list(hosts)}}
    return fleet.parse(raw)


def _asked(inventory: fleet.Inventory, **lines: str) -> dict[str, fleet.Answer]:
    return {answer.host: answer for answer in fleet.ask(inventory, lines, seconds=60)}


def test_a_host_has_the_groups_above_its_own_and_all_its_names() -> None:
    found = fleet.parse(RAW)

    assert found.groups == {
        "alone": ("all", "ungrouped"),
        "m": ("all", "cluster", "masters"),
        "w": ("all", "cluster", "workers"),
    }
    assert found.addresses == {
        "alone": ("alone",),
        "m": ("m", "192.0.2.1", "m.example.org"),
        "w": ("w",),
    }
    assert found.selected == ("alone", "m", "w")


def test_each_host_answers_for_itself_even_at_one_address() -> None:
    hosts = [f"n{number}" for number in range(12)]
    found = _asked(_local(*hosts), **{host: f"echo {host}; echo e-{host} >&2" for host in hosts})

    assert {host: answer.out for host, answer in found.items()} == {h: f"{h}\n" for h in hosts}
    assert all(answer.err == f"e-{host}\n" for host, answer in found.items())
    assert all(answer.asked <= answer.answered for answer in found.values())
    assert not any(answer.unreachable for answer in found.values())


def test_a_host_that_hangs_is_given_up_and_its_program_ended(tmp_path: Path) -> None:
    lines = {"slow": f"sleep 30; : {tmp_path}"}
    (answer,) = fleet.ask(_local(*lines), lines, seconds=0.3)

    assert "timed out" in answer.unreachable
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert f": {tmp_path}" not in each.read_text(errors="replace")


def test_what_a_node_says_is_no_shell_and_no_format_here() -> None:
    found = _asked(_local("n"), n="printf '%s %%s \\377' \"$((1+1))\"")

    assert found["n"].out == "2 %s �"


def test_who_wants_no_more_waits_for_nobody() -> None:
    started = time.monotonic()
    lines = {"quick": "echo here", "slow": "sleep 100"}
    with contextlib.closing(fleet.ask(_local(*lines), lines, seconds=100)) as answers:
        assert next(answers).out == "here\n"

    assert time.monotonic() - started < 60


def test_a_connection_that_nobody_knows_is_said() -> None:
    found = _asked(_local("n", ansible_connection="winrm"), n="echo here")

    assert "testinfra" in found["n"].unreachable
