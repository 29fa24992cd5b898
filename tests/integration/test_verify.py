"""Verification of nodes without an agent, over real ssh: by pytest, by the playbook, and status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import junitparser
import pytest
import yaml

from lab.sshd import Fleet
from tests.integration.conftest import BIN, Exectrail, Ran

ROOT = Path(__file__).parents[2]
ONE = """\
name: one
title: The agent is there
gates: [blocker]
requirements:
  - id: agent.installed
    title: The agent is installed
    severity: {severity}
    remediation: Install it.
  - id: node.kubelet
    title: The kubelet runs
    severity: minor
"""
WAIVER = "- {{check: agent.installed, hosts: [node-001], reason: r, owner: o, expires: {until}}}\n"


def _checks(exectrail: Exectrail, *arguments: str | Path, files: str = "checks") -> list[str]:
    reports = ("--report-dir", exectrail.reports)
    return [
        *(sys.executable, "-m", "pytest", str(ROOT / files), "--color=no"),
        *map(str, (*reports, *arguments)),
    ]


def _run(exectrail: Exectrail, command: list[str]) -> Ran:
    done = subprocess.run(
        command,
        cwd=exectrail.folder,
        env=exectrail.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return Ran(done.returncode, done.stdout, done.stderr, exectrail.reports)


def _play(exectrail: Exectrail, inventory: Path, *arguments: str, **variables: str) -> Ran:
    settings = {"report_dir": str(exectrail.reports), **variables}
    command = [
        *(str(BIN / "ansible-playbook"), str(ROOT / "playbooks/verify.yml"), "-i", str(inventory)),
        *("-e", json.dumps({f"verify_{name}": value for name, value in settings.items()})),
        *arguments,
    ]
    return _run(exectrail, command)


def _results(ran: Ran) -> dict[tuple[str, str], str]:
    return {
        (host["host"], row["check"]): row["status"]
        for host in ran.report["hosts"]
        for row in host["results"]
    }


def _profile(folder: Path, severity: str = "blocker") -> Path:
    path = folder / f"{severity}.yml"
    path.write_text(ONE.format(severity=severity))
    return path


def _with(inventory: Path, host: str, **variables: object) -> None:
    data = yaml.safe_load(inventory.read_text())
    data["all"]["hosts"][host].update(variables)
    inventory.write_text(yaml.safe_dump(data))


def _masters(inventory: Path, *hosts: str) -> None:
    data = yaml.safe_load(inventory.read_text())
    data["all"]["children"] = {"control": {"hosts": {host: {} for host in hosts}}}
    inventory.write_text(yaml.safe_dump(data))


def _evidence(ran: Ran, host: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ran.reports / f"evidence/{host}.json").read_text())
    return found


def _jump(inventory: Path, machines: Fleet, host: str) -> Path:
    """Reach a host by way of another; give the file that ssh makes then."""
    used, configuration = inventory.with_name("used"), inventory.with_name("ssh_config")
    configuration.write_text(
        f"Host jump\n HostName {machines.addresses[0]}\n Port {machines.port}\n User root\n"
        f" IdentityFile {machines.folder}/client_key\n UserKnownHostsFile {machines.known_hosts}\n"
        f'Match originalhost jump exec "touch {used}"\n'
    )
    pinned = yaml.safe_load(inventory.read_text())["all"]["vars"]["ansible_ssh_common_args"]
    arguments = f"-F {configuration} -o ProxyJump=jump {pinned}"
    _with(inventory, host, ansible_ssh_common_args=arguments)
    return used


def test_pytest_and_the_playbook_find_the_same_on_every_way_to_a_node(
    exectrail: Exectrail, inventory: Path, machines: Fleet
) -> None:
    jumped = _jump(inventory, machines, "node-002")
    _with(inventory, "node-003", ansible_connection="local")
    tested = _run(exectrail, _checks(exectrail, "--inventory", inventory, "-v"))
    assert jumped.exists(), tested.out
    jumped.unlink()
    by_pytest, evidence = _results(tested), _evidence(tested, "node-001")
    played = _play(exectrail, inventory)

    assert jumped.exists(), played.out
    assert tested.code == 2, tested.out + tested.err
    assert by_pytest == _results(played)
    assert {host for host, _ in by_pytest} == set(machines.names)
    for host in machines.names:
        assert by_pytest[host, "agent.installed"] == "fail"
        assert by_pytest[host, "agent.active"] == "skip"
        assert f"agent.installed[{host}] FAILED" in tested.out
        assert f"agent.active[{host}] SKIPPED" in tested.out
    assert "UNFIT" in tested.out
    assert "Traceback" not in tested.out + tested.err
    suites = list(junitparser.JUnitXml.fromfile(str(tested.reports / "junit.xml")))
    assert [suite.name for suite in suites] == machines.names
    assert "agent.installed" in {case.name for case in suites[0] if case.is_failure}
    assert (tested.reports / "report.html").exists()
    for known in (evidence, _evidence(played, "node-001")):
        variables = known["variables"]
        assert variables["asked"] <= variables["answered"] <= time.time()
        assert variables["masters_group"] == "masters"
        assert {"node-001", "node-003", machines.addresses[1]} <= set(
            variables["inventory_addresses"]
        )
        assert {"kernel.release", "agent.unit"} <= known["items"].keys()
    assert played.code == 2
    assert "node-[001-003]: unfit" in played.out
    assert played.out.count("fatal: ") == 1
    assert "changed=1" not in played.out


def test_nodes_out_of_reach_are_errors_and_the_others_are_judged(
    exectrail: Exectrail, inventory: Path, machines: Fleet, tmp_path: Path
) -> None:
    other = (machines.folder / "client_key.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[{machines.addresses[0]}]:{machines.port} {' '.join(other)}\n")
    strict = f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes"
    _with(inventory, "node-001", ansible_ssh_common_args=strict)
    _with(inventory, "node-002", ansible_port=1)
    arguments = ("--inventory", inventory, "--profile", _profile(tmp_path))
    tested = _run(exectrail, _checks(exectrail, *arguments))
    states = tested.states()
    problems = {host["host"]: host["problem"] for host in tested.report["hosts"]}
    played = _play(exectrail, inventory, profile=str(_profile(tmp_path)))
    shown = exectrail("status", "-i", inventory)

    assert (tested.code, played.code, shown.code) == (3, 2, 3), tested.out + shown.err
    assert states == played.states()
    assert states == {"node-001": "unreachable", "node-002": "unreachable", "node-003": "checked"}
    assert "not the one on record" in problems["node-001"]
    assert "nothing listens" in problems["node-002"]
    assert "ERROR at setup of agent.installed on node-002" in tested.out
    assert _results(tested)["node-003", "agent.installed"] == "fail"
    assert "node-001: its ssh host key is not the one on record" in shown.out
    assert "node-002: nothing listens on its ssh port" in shown.out


def test_a_node_that_hangs_is_given_up(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    _with(inventory, "node-002", ansible_ssh_extra_args="-o ProxyCommand='sleep 60'")
    arguments = ("--inventory", inventory, "--profile", _profile(tmp_path), "--node-timeout", "10")

    ran = _run(exectrail, _checks(exectrail, *arguments))

    assert ran.code == 3, ran.out
    assert ran.states()["node-002"] == "unreachable"
    assert ran.states()["node-003"] == "checked"


def test_only_what_is_chosen_is_asked_and_judged(exectrail: Exectrail, inventory: Path) -> None:
    arguments = ("--inventory", inventory, "--limit", "node-002:node-003", "-k", "not node-003")

    ran = _run(exectrail, _checks(exectrail, *arguments, files="checks/test_agent.py"))

    checks = {check for _, check in _results(ran)}
    assert ran.code == 2
    assert ran.states() == {"node-002": "checked"}
    assert "agent.installed" in checks
    assert {check.partition(".")[0] for check in checks} == {"agent"}


@pytest.mark.parametrize(
    ("until", "options", "code", "said"),
    [
        ("2999-01-01", ["--profile", "blocker.yml"], 0, "xfailed"),
        ("2020-01-01", ["--profile", "minor.yml"], 0, "warning"),
        ("2020-01-01", ["--profile", "minor.yml", "--fail-on-warnings"], 1, "1 failed"),
    ],
)
def test_a_waiver_excuses_until_its_day_and_what_does_not_gate_warns(  # noqa: PLR0913, PLR0917
    exectrail: Exectrail, inventory: Path, until: str, options: list[str], code: int, said: str
) -> None:
    for severity in ("blocker", "minor"):
        _profile(exectrail.folder, severity)
    (exectrail.folder / "waivers.yml").write_text(WAIVER.format(until=until))
    arguments = ("--inventory", inventory, "--limit", "node-001", "--waivers", "waivers.yml")

    ran = _run(exectrail, _checks(exectrail, *arguments, *options, files="checks/test_agent.py"))

    assert ran.code == code, ran.out
    assert said in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inventory", "missing.yml"], "There is no inventory"),
        (["--inventory", "empty.yml"], "no hosts"),
        (["--inventory", "hosts.yml", "--limit", "nobody"], "nobody"),
        (["--inventory", "hosts.yml", "--profile", "instaled"], "instaled"),
        (["--inventory", "hosts.yml", "--waivers", "none.yml"], "none.yml"),
        (["--inventory", "hosts.yml", "--node-timeout", "soon"], "soon"),
        (["--inventory", "hosts.yml", "-k", "nothing"], "deselected"),
    ],
)
def test_a_bad_request_is_code_4(
    exectrail: Exectrail, inventory: Path, arguments: list[str], message: str
) -> None:
    inventory.with_name("empty.yml").write_text("")

    ran = _run(exectrail, _checks(exectrail, *arguments))

    assert ran.code == 4, ran.out + ran.err
    assert message in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert not (ran.reports / "report.json").exists()


def test_names_are_shown_without_asking_any_node(exectrail: Exectrail, inventory: Path) -> None:
    _with(inventory, "node-002", ansible_port=1)
    ran = _run(exectrail, _checks(exectrail, "--inventory", inventory, "--collect-only", "-q"))

    assert ran.code == 0, ran.out
    assert "checks/test_agent.py::agent.active[node-002]" in ran.out
    assert not ran.reports.exists()


def test_ctrl_c_reports_what_was_learnt(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    _with(inventory, "node-002", ansible_ssh_extra_args="-o ProxyCommand='sleep 120'")
    arguments = ("--inventory", inventory, "--profile", _profile(tmp_path))
    child = subprocess.Popen(
        _checks(exectrail, *arguments),
        cwd=tmp_path,
        env=exectrail.environment,
        start_new_session=True,
        # Whoever runs the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    evidence = exectrail.reports / "evidence"
    deadline = time.monotonic() + 100
    while len(list(evidence.glob("[!.]*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=100)

    report = json.loads((exectrail.reports / "report.json").read_text())
    assert child.returncode == 3, out
    assert report["interrupted"]
    assert {host["host"]: host["state"] for host in report["hosts"]} == {
        "node-001": "checked",
        "node-002": "not-reached",
        "node-003": "checked",
    }


def test_canary_pods_that_no_master_can_make_are_told_for_each_node(
    exectrail: Exectrail, inventory: Path
) -> None:
    _masters(inventory, "node-001", "node-002")
    _with(inventory, "node-001", ansible_port=1)
    image = "registry.example.org/tools:1"
    arguments = ("--canary-image", image, "--masters-group", "control")
    tested = _run(exectrail, _checks(exectrail, "--inventory", inventory, *arguments))
    found = [_evidence(tested, "node-003")]
    played = _play(exectrail, inventory, canary_image=image, masters_group="control")
    found.append(_evidence(played, "node-003"))

    assert tested.code == 3, tested.out
    for each in found:
        assert each["variables"]["masters_group"] == "control"
        assert "/etc/kubernetes/admin.conf" in each["variables"]["canary"]["problem"]
    _play(exectrail, inventory, masters_group="control")
    assert "canary" not in _evidence(played, "node-003")["variables"]


def test_check_mode_does_all_but_make_pods(exectrail: Exectrail, inventory: Path) -> None:
    _masters(inventory, "node-001", "node-002")
    limit = ("--limit", "control")
    proven = _results(_play(exectrail, inventory, *limit, masters_group="control"))
    asked = {"canary_image": "registry.example.org/tools:1", "masters_group": "control"}
    ran = _play(exectrail, inventory, *limit, "--check", "--diff", **asked)

    assert _results(ran) == proven
    assert ran.out.count("No canary pods in check mode") == 1
    assert "canary" not in _evidence(ran, "node-002")["variables"]
    assert "changed=1" not in ran.out


def test_a_site_that_is_only_looked_at_is_verified_if_that_is_asked_for(
    exectrail: Exectrail, inventory: Path
) -> None:
    _masters(inventory, "node-001")
    groups = ("--masters-group", "control", "--workers-group", "")
    where = ("-i", inventory, "--report-dir", exectrail.reports, *groups)
    ran = exectrail("site", *where, "--check", "--", "--tags", "verify")

    assert ran.code == 2, ran.out + ran.err
    assert "node-001: verify failed" in ran.out


def test_status_is_a_row_per_node(exectrail: Exectrail, inventory: Path, machines: Fleet) -> None:
    exectrail.preflight(inventory, "--limit", "node-001")
    shown = exectrail("status", "-i", inventory, "--report-dir", exectrail.reports)
    told = exectrail("status", "-i", inventory, "--limit", "node-002", "--json")

    assert shown.code == 2, shown.out + shown.err
    rows = {line.split()[0]: line for line in shown.out.splitlines() if line}
    assert set(machines.names) <= rows.keys()
    assert any(word in rows["node-001"].split()[1] for word in ("fit", "unfit", "unknown"))
    assert "absent" in rows["node-002"]
    assert "\x1b" not in shown.out
    (node,) = json.loads(told.out)["nodes"]
    assert (node["host"], node["agent"], told.code) == ("node-002", "absent", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "missing.yml"], "There is no inventory"),
        (["-i", "hosts.yml", "--limit", "nobody"], "nobody"),
        (["-i", "hosts.yml", "--frobnicate"], "--frobnicate"),
    ],
)
def test_a_bad_request_for_the_status_is_code_4(
    exectrail: Exectrail, inventory: Path, arguments: list[str], message: str
) -> None:
    assert inventory.exists()
    ran = exectrail("status", *arguments)

    assert ran.code == 4, ran.out + ran.err
    assert message in ran.err


def test_the_command_wraps_the_playbook(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    arguments = ("-i", inventory, "--report-dir", exectrail.reports, "--limit", "node-001")
    ran = exectrail("verify", *arguments, "--profile", _profile(tmp_path))

    assert ran.code == 2, ran.out + ran.err
    assert ran.states() == {"node-001": "checked"}
    assert "[1/1] node-001  read" in ran.out
    assert exectrail("verify", *arguments, "--profile", "instaled").code == 4
