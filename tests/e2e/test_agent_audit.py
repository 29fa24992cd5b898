"""The audit sensor on a kernel without BTF: alone, beside auditd, and in everybody's way."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.vm.machine import Machine, machine
from tests.e2e.patience import ATTEMPTS
from tests.integration.agent_cases import CASES, judge
from tests.unit.agent.world import validator

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
CASES_FILE = "tests/integration/agent_cases.py"
ALONE = {"enabled": 0, "pid": 0, "rules": 0, "ours": 0}
Told = dict[str, Any]


def installed(one: Machine) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted((ROOT / "src" / "exectrail_agent").glob("**/*.py")):
            archive.add(path, path.relative_to(ROOT / "src"))
        archive.add(Path(__file__).with_name("agent_audit_story.py"), "story.py")
        archive.add(ROOT / CASES_FILE, CASES_FILE)
    one.put(packed.getvalue(), "/root/agent.tar")
    one.run("mkdir -p /root/agent && tar -C /root/agent -xf /root/agent.tar")


def story(
    one: Machine, name: str, argument: str = "", *, check: bool = True, runtime: str = "runc"
) -> Told:
    command = ["env", f"EXECTRAIL_RUNTIME={runtime}", "python3", "/root/agent/story.py"]
    done = one.run([*command, name, argument], check=check, timeout=180)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def commands(found: Told, *kinds: str) -> list[list[str]]:
    return [one["argv"] for one in found["told"] if one["kind"] in (kinds or ("entry", "exec"))]


def losses(found: Told) -> tuple[int, dict[str, int]]:
    """Give how many execs were lost, and by their causes the losses of other things."""
    others = {cause: n for cause, n in found["losses"].items() if not cause.startswith("exec-")}
    return sum(found["losses"].values()) - sum(others.values()), others


@pytest.fixture(scope="module")
def alone() -> Iterator[Machine]:
    """Linux 5.10, with nobody who owns kernel audit: for the tests before those with `shared`."""
    with machine("audit", "debian11") as one:
        installed(one)
        one.run(
            "printf 'exit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d && "
            "apt-get -q update -o Acquire::Languages=none && "
            "DEBIAN_FRONTEND=noninteractive "
            "apt-get -q install -y --no-install-recommends runc crun auditd",
            timeout=600,
        )
        yield one


@pytest.fixture(scope="module")
def shared(alone: Machine) -> Machine:
    """The same machine, now with auditd and a rule of its own."""
    alone.run(
        "systemctl start auditd && auditctl -a always,exit -F arch=b64 -S execve -F uid=0 -k theirs"
    )
    return alone


SEVERAL = (
    "/bin/echo 'two words' '' \"$(printf '\\377\\n')\"; cd /usr; (setsid sleep 1 &); "
    "python3 -c 'import os; os.kill(os.getpid(), 9)'; "
    "python3 -c 'import os, threading; "
    'threading.Thread(target=os.execv, args=("/bin/true", ["by-thread"])).start(); '
    "import time; time.sleep(9)'; "
    "script -qc '/bin/true on-a-terminal' /dev/null < /dev/null > /dev/null; "
    "/bin/true $(head -c 60000 /dev/zero | tr '\\0' x) $(head -c 60000 /dev/zero | tr '\\0' y);"
    "exit 3"
)
"""What is run in a session: each of these is told in its own way."""


def test_a_session_as_the_owner(alone: Machine) -> None:
    for _attempt in range(ATTEMPTS):
        found = story(alone, "session", SEVERAL)
        entry = next(one for one in found["told"] if one["kind"] == "entry")
        if entry["argv"][0] != "unshare":
            # It was not yet gone elsewhere when the starved sensor looked where it is.
            break

    by_argv = {tuple(one["argv"]): one for one in found["told"] if "argv" in one}
    assert entry["argv"][:2] == ["sh", "-c"]
    assert entry["moved"]
    assert entry["environment"] == {"KUBERNETES_EXEC_AUDIT_ID": "an-id"}
    echo = by_argv["/bin/echo", "two words", "", "\xff"]
    assert echo["parent"].endswith("dash")
    assert by_argv["setsid", "sleep", "1"]["cwd"] == "/usr"
    assert ("sleep", "1") in by_argv
    terminal = by_argv["/bin/true", "on-a-terminal"]
    assert terminal["tty"][0] == 136
    long = next(one for one in found["told"] if one.get("size", 0) > 100_000)
    assert (long["size"], long["cut"]) == (120_012, 120_012 - 32768)
    assert ("by-thread",) in by_argv
    exits = [one["status"] for one in found["told"] if one["kind"] == "exit"]
    assert 9 in exits
    assert 3 << 8 in exits
    # Each process once, however many programs it ran; and the session's end comes last.
    ran = {one["pid"] for one in found["told"] if "argv" in one}
    assert sorted(one["pid"] for one in found["told"] if one["kind"] == "exit") == sorted(ran)
    assert [one["kind"] for one in found["told"]].count("end") == 1
    assert found["told"][-1]["kind"] == "end"
    assert found["losses"] == {}
    assert found["owner"]


def test_denials_are_passed_on_while_it_owns_kernel_audit(alone: Machine) -> None:
    strict = "import ctypes; ctypes.CDLL(None).prctl(22, 1, 0, 0, 0); open('/')"
    before = alone.run("journalctl --dmesg --output=cat | grep -c type=1326", check=False).stdout
    done = alone.run(["python3", "/root/agent/story.py", "session", f'python3 -c "{strict}"; :'])
    after = alone.run("journalctl --dmesg --output=cat | grep -c type=1326", check=False).stdout

    (line,) = [each for each in done.stderr.splitlines() if each.startswith("audit: type=1326 ")]
    assert 'comm="python3"' in line
    assert after == before


def test_everything_is_given_back(alone: Machine) -> None:
    found = story(alone, "session", "true")

    assert found["before"].items() >= ALONE.items()
    assert (found["during"]["enabled"], found["during"]["ours"]) == (1, 2)
    assert found["during"]["backlog_wait_time"] == 0
    assert found["after"] == found["before"]


def test_what_a_killed_sensor_left_is_used_and_given_back_by_the_next(alone: Machine) -> None:
    story(alone, "crash", check=False)

    found = story(alone, "session", "/bin/echo again")

    assert (found["before"]["enabled"], found["before"]["ours"]) == (1, 2)
    assert found["during"]["ours"] == 2
    assert found["after"].items() >= ALONE.items()
    assert found["after"]["backlog_limit"] == 64
    assert ["/bin/echo", "again"] in commands(found)


def looked_late(found: Told) -> bool:
    """Whether a first program was gone when the starved agent looked at it."""
    for records in found["cases"].values():
        if isinstance(records, str):
            # Of a program that is gone, it may not even be known in which container it was.
            return True
        first = next((one for one in records if one["kind"] == "Command"), {})
        if any(each.startswith("environment: gone") for each in first.get("unknown", ())):
            return True
    return False


def judge_all(found: Told) -> None:
    assert found["started"] == []
    assert found["losses"] == {}
    for case in CASES:
        records = found["cases"][case.name]
        assert isinstance(records, list), records
        judge(case, records, "audit")
        for record in records:
            validator(record["kind"]).validate(record)


def test_the_sessions_of_a_container_are_those_of_the_other_sensor(alone: Machine) -> None:
    for _attempt in range(ATTEMPTS):
        found = story(alone, "cases")
        if not looked_late(found):
            break
    judge_all(found)
    access, *_, end = found["returned"]
    (command,) = (one for one in found["returned"] if one["kind"] == "Command")
    assert command["process.cmdline"] == "/bin/true remembered"
    assert (access["kind"], access["recovered"], end["kind"]) == ("Kubernetes", True, "SessionEnd")


def test_a_self_test_beside_an_agent_takes_nothing_from_it(alone: Machine) -> None:
    found = story(alone, "beside")

    assert (found["before"]["enabled"], found["before"]["ours"]) == (1, 2)
    code, said = found["self-test"]
    assert (code, "saw a program of its own" in said) == (0, True)
    assert "the running agent" in said
    code, said = found["unknown"]
    assert (code, "another agent uses kernel audit" in said) == (69, True)
    assert found["before"] == found["after"] == found["later"]
    assert "Loss" not in found["kinds"]
    assert found["end"].items() >= ALONE.items()


def test_execs_whose_records_are_dropped_are_told_or_counted_one_by_one(alone: Machine) -> None:
    number = 300
    found = story(alone, "few-records", f"for i in $(seq {number}); do /bin/true $i; done")

    counted, others = losses(found)
    # Two more have begun the session.
    assert len(commands(found)) + counted == number + 2
    assert counted > 0
    # Of records, not of execs: they tell why. Of some an event's records are all among them.
    assert "audit-overrun" in others
    assert others.keys() <= {"audit-overrun", "audit-gap"}


def test_execs_that_nobody_told_of_are_among_the_lost_events(alone: Machine) -> None:
    number = 300
    found = story(alone, "few-events", f"for i in $(seq {number}); do /bin/true $i; done")

    counted, others = losses(found)
    missing = number + 2 - len(commands(found)) - counted
    assert 0 < missing <= others["connector-overrun"]


def test_beside_auditd(shared: Machine) -> None:
    found = story(shared, "session", "/bin/echo both; sleep 1")

    assert not found["owner"]
    assert found["before"]["pid"]
    assert found["during"] == {
        **found["before"],
        "rules": found["before"]["rules"] + 2,
        "ours": 2,
    }
    assert found["after"] == found["before"]
    assert ["/bin/echo", "both"] in commands(found)
    assert found["losses"] == {}
    assert (
        'key="theirs"'
        in shared.run("grep -m 1 'type=SYSCALL.*theirs' /var/log/audit/audit.log").stdout
    )
    assert shared.run("systemctl is-active auditd").stdout == "active\n"


def test_rules_that_cover_it_already_are_not_added_again(shared: Machine) -> None:
    every = "execve,execveat,setns,unshare"
    shared.run(f"auditctl -a always,exit -F arch=b64 -S {every} -k every")
    try:
        found = story(shared, "session", "/bin/echo covered")
    finally:
        shared.run(f"auditctl -d always,exit -F arch=b64 -S {every} -k every")

    assert found["during"]["ours"] == 1  # Of the other ABI.
    assert ["/bin/echo", "covered"] in commands(found)
    assert found["after"] == found["before"]


def test_rules_that_somebody_flushed_come_back(shared: Machine) -> None:
    found = story(shared, "flushed", "auditctl -D")

    assert (found["later"]["rules"], found["later"]["ours"]) == (2, 2)
    assert ["/bin/echo", "afterwards"] in commands(found)
    shared.run("auditctl -a always,exit -F arch=b64 -S execve -F uid=0 -k theirs")


def test_an_auditd_that_comes_later_gets_what_is_its(shared: Machine) -> None:
    shared.run("kill $(pidof auditd); while pidof auditd; do sleep 0.2; done")
    try:
        # The kernel turns the first attempt down, but tells the owner of it.
        found = story(
            shared,
            "succeeded",
            "for i in 1 2 3 4 5; do pidof auditd && break; auditd; sleep 2; done",
        )
    finally:
        shared.run("pidof auditd || systemctl restart auditd", check=False)

    assert found["during"]["pid"]
    assert not found["owner"]
    assert found["later"]["pid"] not in {0, found["during"]["pid"]}
    assert ["/bin/echo", "afterwards"] in commands(found)
    assert found["after"]["ours"] == 0


def test_audit_switched_off_for_all_tasks_is_refused(shared: Machine) -> None:
    shared.run("auditctl -a never,task")
    try:
        found = story(shared, "session")
    finally:
        shared.run("auditctl -d never,task")

    assert "-a never,task" in found["problem"]
    assert found["after"] == found["before"]


def test_a_kernel_that_panics_on_loss_gets_no_rules(shared: Machine) -> None:
    shared.run("auditctl -f 2")
    try:
        found = story(shared, "session")
    finally:
        shared.run("auditctl -f 1")

    assert "-f 2" in found["problem"]
    assert found["after"] == found["before"]


def test_immutable_rules(shared: Machine) -> None:
    """The last of this machine: only a restart would undo it."""
    lines = ["b64", "b32"]
    for abi in lines:
        shared.run(f"auditctl -a always,exit -F arch={abi} -S execve,execveat -k fixed")
    shared.run("auditctl -e 2")

    covered = story(shared, "session", "/bin/echo fixed")

    assert ["/bin/echo", "fixed"] in commands(covered)
    assert covered["after"] == covered["before"]


def test_immutable_rules_without_execs_are_refused_with_what_to_do() -> None:
    with machine("audit-fixed", "debian11") as one:
        installed(one)
        one.run(
            "cd /root/agent && python3 -c '"
            "from exectrail_agent.audit.control import AuditControl, ENABLED, Status; "
            "AuditControl().change(ENABLED, Status(enabled=2))'"
        )

        found = story(one, "session")

    assert "/etc/audit/rules.d/exectrail.rules" in found["problem"]
    assert "-a always,exit -F arch=b64 -S execve,execveat,setns,unshare" in found["problem"]
    assert found["after"]["pid"] == 0
