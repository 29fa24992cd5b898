"""The preflight against virtual machines: every fault is named, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.vm import faults
from lab.vm.machine import Machine, machine
from tests.e2e.patience import ATTEMPTS, gave_up
from tests.integration.conftest import Exectrail, Ran

pytestmark = pytest.mark.vm

Statuses = dict[str, str]
TREE = (
    "find / -xdev -type f -not -path '/var/log/*' -not -path '/var/lib/systemd/*' "
    "-printf '%p %s %T@\\n' | sort"
)


def groups() -> Iterator[list[str]]:
    """Every fault of a Debian, in as few groups as can be in which no two are about the same."""
    # Without Python nothing else can be seen.
    left = [f for f in faults.known().values() if not f.name.startswith(("os-", "no-python"))]
    while left:
        about: set[str] = set()
        group = []
        for fault in left:
            # Whose /etc/resolv.conf is wrong is not asked where its nameservers come from.
            subject = fault.name.partition("-")[0].replace("dns", "resolv")
            of_fault = {subject, *fault.finds}
            if not about & of_fault:
                group.append(fault)
                about |= of_fault
        left = [fault for fault in left if fault not in group]
        yield [fault.name for fault in group]


FAULTY = {f"faults-{number}": group for number, group in enumerate(groups())}
MACHINES = {
    "healthy-ubuntu": ["os-ubuntu"],
    **{name: ["os-ubuntu", *group] for name, group in FAULTY.items()},
    **{name: [name] for name in ("os-alinux", "os-containeros", "os-hostile")},
    "no-python": ["no-python", "os-binary"],
}


def there(one: Machine, names: Iterable[str]) -> list[str]:
    """Give those of the faults that a machine has."""
    known = faults.known()
    lines = [
        f"if {{ {known[name].check}; }} </dev/null >/dev/null 2>&1; then echo {name}; fi"
        for name in names
    ]
    return one.run("sh -s", stdin="\n".join(lines).encode()).stdout.split()


def inventory_of(machines: list[Machine], folder: Path, **jane: dict[str, object]) -> Path:
    """Write an inventory of machines, and of the first of them as others who log in there."""
    path = folder / "hosts.yml"
    hosts = {one.name: one.inventory_variables() for one in machines}
    hosts |= {name: hosts[machines[0].name] | variables for name, variables in jane.items()}
    dedicated = {"preflight_cluster_type": "dedicated"}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": dedicated}}))
    return path


@dataclass
class Judged:
    """What was said of machines over ssh, and of their evidence by the vendor's rules.

    `faults` are those that each has, `statuses` those of its checks by profile.
    """

    faults: dict[str, list[str]] = field(default_factory=dict)
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: dict[str, dict[str, Statuses]] = field(default_factory=dict)
    pages: str = ""

    def judge(self, folder: Path, inventory: Path) -> Ran:
        """Have machines judged: once more where one is so slow that a program there is given up."""
        for attempt in range(ATTEMPTS):
            attempts = folder / str(attempt)
            attempts.mkdir()
            ran = self._judge(attempts, inventory)
            if not gave_up(json.dumps(ran.report)):
                break
        return ran

    def _judge(self, folder: Path, inventory: Path) -> Ran:
        exectrail = Exectrail(folder)
        # All at once they would be slow, and their clocks seem wrong.
        exectrail.environment["ANSIBLE_FORKS"] = "2"
        ran = exectrail.preflight(inventory)
        self.pages += (exectrail.reports / "report.html").read_text()
        hosts = {host["host"]: host for host in ran.report["hosts"]}
        names = [name for name, host in hosts.items() if host["state"] == "checked"]
        evidence = [exectrail.reports / "evidence" / f"{name}.json" for name in names]
        exectrail.reports = folder / "ack"
        options = ("--profile", "ack", "--report-dir", exectrail.reports)
        by_vendor = exectrail("evaluate", *options, *evidence)
        for profile, report in (("self_managed", ran.report), ("ack", by_vendor.report)):
            for host in report["hosts"]:
                found = {row["check"]: row["status"] for row in host["results"]}
                self.statuses.setdefault(host["host"], {})[profile] = found
        self.hosts |= hosts
        return ran


def findings(of: Statuses) -> Statuses:
    return {check: status for check, status in of.items() if status not in {"pass", "skip"}}


def changed(before: Statuses, after: Statuses) -> Statuses:
    return {check: status for check, status in after.items() if before[check] != status}


@pytest.fixture(scope="module")
def healthy() -> Iterator[Machine]:
    """A machine on which a user who is not root may log in."""
    with machine("healthy") as one:
        one.run(
            "useradd --create-home --shell /bin/sh --password '*' jane && "
            "install -d -o jane -m 0700 /home/jane/.ssh && "
            "install -o jane -m 0600 /root/.ssh/authorized_keys /home/jane/.ssh/ && "
            "echo root:right | chpasswd"
        )
        yield one


@pytest.fixture(scope="module")
def judged(healthy: Machine, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    found = Judged({"healthy": there(healthy, faults.known())})
    folder = tmp_path_factory.mktemp("judged")
    jane: dict[str, object] = {
        "ansible_user": "jane",
        "ansible_become_method": "ansible.builtin.su",
    }
    inventory = inventory_of(
        [healthy],
        folder,
        right=jane | {"ansible_become_password": "right"},
        wrong=jane | {"ansible_become_password": "wrong"},
        silent=jane,
    )
    assert found.judge(folder, inventory).code == 3
    for start in range(0, len(MACHINES), 4):
        folder = tmp_path_factory.mktemp("judged")
        # A machine ends with the thread that started it.
        with ThreadPoolExecutor(2) as pool, ExitStack() as stack:
            booting = {
                name: pool.submit(stack.enter_context, machine(name, faults=MACHINES[name]))
                for name in list(MACHINES)[start : start + 4]
            }
            machines = [one.result() for one in booting.values()]
            found.faults |= {one.name: there(one, MACHINES[one.name]) for one in machines}
            found.judge(folder, inventory_of(machines, folder))
    return found


def test_every_fault_is_really_there_and_on_no_fit_machine(judged: Judged) -> None:
    assert judged.faults == MACHINES | {"healthy": []}
    assert {name for names in MACHINES.values() for name in names} == set(faults.known())


def test_a_fit_machine_is_fit(judged: Judged) -> None:
    assert findings(judged.statuses["healthy"]["self_managed"]) == {}


def test_a_debian_called_ubuntu_meets_the_vendors_rules(judged: Judged) -> None:
    found = judged.statuses["healthy-ubuntu"]["ack"]

    assert findings(found) == {}
    assert found["node.resolv-conf"] == "pass"


@pytest.mark.parametrize("name", FAULTY)
def test_faults_on_a_debian_called_ubuntu_are_named_and_nothing_else(
    name: str, judged: Judged
) -> None:
    meant = {
        check: status
        for fault in FAULTY[name]
        for check, status in faults.known()[fault].finds.items()
    }
    for profile, found in judged.statuses[name].items():
        of_profile = {check: status for check, status in meant.items() if check in found}
        assert findings(found) == of_profile, profile


def test_a_machine_without_python_fails_that_and_leaves_the_rest_unknown(judged: Judged) -> None:
    found = judged.statuses["no-python"]["self_managed"]

    assert found.pop("node.python") == "fail"
    assert set(found.values()) == {"error"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("os-alinux", {"node.os-family": "pass"}),
        ("os-containeros", {"node.os-family": "pass"}),
        ("os-hostile", {}),
    ],
)
def test_another_os_release_on_a_debian_is_judged_by_the_vendors_rules(
    name: str, meant: Statuses, judged: Judged
) -> None:
    assert changed(judged.statuses["healthy"]["ack"], judged.statuses[name]["ack"]) == meant


def test_what_an_os_release_says_does_no_harm_in_a_report(judged: Judged) -> None:
    assert "alert(1)" in judged.pages
    assert "<script>alert" not in judged.pages
    assert "\x1b" not in judged.pages


@pytest.mark.parametrize(
    ("user", "state", "problem"),
    [
        ("right", "checked", ""),
        ("wrong", "unreachable", "password is wrong"),
        ("silent", "unreachable", "needs a password"),
    ],
)
def test_becoming_root_with_a_password(judged: Judged, user: str, state: str, problem: str) -> None:
    host = judged.hosts[user]

    assert host["state"] == state, host
    assert problem in host["problem"]


def test_check_mode_and_a_second_run_agree_and_change_nothing(
    healthy: Machine, tmp_path: Path
) -> None:
    inventory = inventory_of([healthy], tmp_path)
    exectrail = Exectrail(tmp_path)
    before = healthy.run(TREE).stdout

    found = []
    for arguments in ([], ["--", "--check"], []):
        for _attempt in range(ATTEMPTS):
            ran = exectrail.preflight(inventory, *arguments)
            if not gave_up(json.dumps(ran.report)):
                break
        rows = ran.report["hosts"][0]["results"]
        found.append((ran.code, [(row["check"], row["status"]) for row in rows]))

    assert found[0] == found[1] == found[2]
    assert found[0][0] == 0
    assert healthy.run(TREE).stdout == before
