"""The preflight over real ssh, and everything that can be wrong with a request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lab.sshd import Fleet
from tests.integration.conftest import Exectrail

NO_GATE = """\
name: none
title: Nothing gates
include: self_managed
gates: []
"""


def _with(inventory: Path, host: str, **variables: object) -> Path:
    data = yaml.safe_load(inventory.read_text())
    data["all"]["hosts"][host].update(variables)
    inventory.write_text(yaml.safe_dump(data))
    return inventory


def test_every_node_is_judged_and_named_as_it_arrives(
    exectrail: Exectrail, inventory: Path, machines: Fleet
) -> None:
    ran = exectrail.preflight(inventory)

    assert set(ran.states().values()) == {"checked"}
    assert sorted(ran.states()) == machines.names
    for name in machines.names:
        assert f"{name}  read (" in ran.out
    assert {"report.json", "report.html", "junit.xml"} <= {
        path.name for path in ran.reports.iterdir()
    }
    assert ran.code == ran.report["exit_code"]


def test_evaluating_the_saved_evidence_gives_the_same_results(
    exectrail: Exectrail, inventory: Path
) -> None:
    live = exectrail.preflight(inventory)
    again = exectrail.folder / "again"
    saved = exectrail(
        "evaluate", "--report-dir", again, *sorted((live.reports / "evidence").iterdir())
    )

    assert saved.code == live.code
    assert json.loads((again / "report.json").read_text())["hosts"] == live.report["hosts"]


def test_the_playbook_alone_fails_by_the_gate_and_check_mode_agrees(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    playbook = Path(__file__).parents[2] / "playbooks/preflight.yml"
    hosts = []
    for mode in ([], ["--check"], []):
        done = subprocess.run(
            [
                *(Path(exectrail.command()[0]).with_name("ansible-playbook"), playbook),
                *("-i", inventory, *mode),
                *("-e", f"preflight_report_dir={exectrail.reports}"),
            ],
            cwd=tmp_path,
            env=exectrail.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        report = json.loads((exectrail.reports / "report.json").read_text())
        assert done.returncode == (2 if report["exit_code"] else 0), done.stdout + done.stderr
        assert "changed=0" in done.stdout
        assert "changed=1" not in done.stdout
        hosts.append(
            [[(row["check"], row["status"]) for row in host["results"]] for host in report["hosts"]]
        )
    assert hosts[0] == hosts[1] == hosts[2]
    assert (exectrail.reports / "report.previous.json").exists()


@pytest.mark.parametrize(
    ("inventory_text", "arguments", "message"),
    [
        (None, [], "There is no inventory"),
        ("", [], "no hosts"),
        ("all: {hosts: {a: {ansible_connection: local}}}", ["--limit", "b"], "limit"),
        (
            "all: {hosts: {a: {ansible_connection: local}}}",
            ["--profile", "akc"],
            "akc",
        ),
        (
            "all: {hosts: {a: {ansible_connection: local}}}",
            ["--profile", "missing/file.yml"],
            "missing/file.yml",
        ),
        ("all: {hosts: {a: {ansible_connection: local}}}", ["--waivers", "none.yml"], "none.yml"),
        ("all: {hosts: {a: {ansible_connection: local}}}", ["--report-dir", "/proc/1/x"], "/proc"),
        ("all: {hosts: {a: {ansible_connection: local}}}", ["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_bad_request_is_one_message_and_code_4(
    exectrail: Exectrail,
    tmp_path: Path,
    inventory_text: str | None,
    arguments: list[str],
    message: str,
) -> None:
    path = tmp_path / "hosts.yml"
    if inventory_text is not None:
        path.write_text(inventory_text)

    ran = exectrail.preflight(path, *arguments)

    assert ran.code == 4, ran.out + ran.err
    assert message in ran.out + ran.err
    assert "Traceback" not in ran.out + ran.err
    assert not (exectrail.reports / "report.json").exists()


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--profile", "name: x\n\ttitle: y\n", "file.yml:2"),
        ("--profile", "name: x\ninclude: self_managed\ntitle: y\nseverty: x\n", "file.yml:4"),
        (
            "--waivers",
            "- {check: node.nonsense, hosts: [a], reason: r, owner: o, expires: 2030-01-01}\n",
            "node.nonsense",
        ),
        (
            "--waivers",
            "- {check: node.clock, hosts: [a], reason: r, expires: 2030-01-01}\n",
            "owner",
        ),
        (
            "--waivers",
            "- {check: node.clock, hosts: [zzz], reason: r, owner: o, expires: 2030-01-01}\n",
            "zzz",
        ),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    exectrail: Exectrail, tmp_path: Path, option: str, text: str, message: str
) -> None:
    (tmp_path / "file.yml").write_text(text)
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: {ansible_connection: local}}}")

    ran = exectrail.preflight(tmp_path / "hosts.yml", option, tmp_path / "file.yml")

    assert ran.code == 4, ran.out + ran.err
    assert message in ran.err
    assert "file.yml:" in ran.err


def test_an_expired_waiver_does_not_excuse(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    waivers = tmp_path / "waivers.yml"
    waivers.write_text(
        "- {check: node.clock, hosts: ['node-*'], reason: r, owner: ops@example.org,"
        " expires: 2020-01-01}\n"
    )

    ran = exectrail.preflight(inventory, "--waivers", waivers)

    rows = [
        row
        for host in ran.report["hosts"]
        for row in host["results"]
        if row["check"] == "node.clock"
    ]
    assert ran.code != 4
    assert all(row["waiver"] is None or row["waiver"]["expired"] for row in rows)
    assert ran.report["counts"]["waived"] == 0


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"ansible_port": 1}, "nothing listens on its ssh port"),
        ({"ansible_ssh_private_key_file": "/nonexistent"}, "ssh refused the login"),
        (
            {
                "ansible_ssh_common_args": "-o UserKnownHostsFile=/dev/null "
                "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
            },
            "its ssh host key is not known",
        ),
        ({"ansible_host": "no-such-name.invalid"}, "its name does not resolve"),
        (
            {"ansible_become_user": "nobody", "ansible_become_exe": "/nonexistent/sudo"},
            "cannot become root",
        ),
    ],
)
def test_a_node_out_of_reach_is_a_row_and_the_others_are_judged(
    exectrail: Exectrail, inventory: Path, variables: dict[str, object], problem: str
) -> None:
    ran = exectrail.preflight(_with(inventory, "node-002", **variables))

    assert ran.code == 3, ran.out + ran.err
    assert ran.states() == {
        "node-001": "checked",
        "node-002": "unreachable",
        "node-003": "checked",
    }
    row = next(host for host in ran.report["hosts"] if host["host"] == "node-002")
    assert problem in row["problem"]
    assert row["fix"]
    assert {result["status"] for result in row["results"]} == {"error"}


def test_a_changed_host_key_says_how_to_forget_the_old_one(
    exectrail: Exectrail, inventory: Path, machines: Fleet, tmp_path: Path
) -> None:
    other = (machines.folder / "client_key.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[{machines.addresses[0]}]:{machines.port} {' '.join(other)}\n")

    ran = exectrail.preflight(
        _with(
            inventory,
            "node-001",
            ansible_ssh_common_args=f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=yes",
        )
    )

    assert ran.code == 3
    row = ran.report["hosts"][0]
    assert "not the one on record" in row["problem"]
    assert "ssh-keygen -R" in row["fix"]


def test_a_node_without_python_is_told_apart(exectrail: Exectrail, inventory: Path) -> None:
    ran = exectrail.preflight(
        _with(inventory, "node-003", ansible_python_interpreter="/opt/none/python3")
    )

    row = ran.report["hosts"][2]
    statuses = {result["check"]: result["status"] for result in row["results"]}
    assert row["state"] == "checked"
    assert statuses["node.python"] == "fail"
    assert statuses["node.systemd"] == "error"
    assert "no Python 3" in json.dumps(row)


def test_a_full_disk_is_said_before_any_node_is_touched(
    exectrail: Exectrail, inventory: Path
) -> None:
    exectrail.reports.mkdir()
    mounted = f'mount -t tmpfs -o size=64k tmpfs {exectrail.reports} && exec "$@"'

    ran = exectrail(
        "preflight",
        "-i",
        inventory,
        "--report-dir",
        exectrail.reports,
        prefix=["unshare", "--mount", "sh", "-c", mounted, "sh"],
    )

    assert ran.code == 4, ran.out + ran.err
    assert "Free some space" in ran.err
    assert "node-001  read" not in ran.out


@pytest.mark.parametrize(
    ("end", "at_ctrl_c"),
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), signal.SIG_DFL, id="ctrl-c"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), signal.SIG_DFL, id="by-ci"),
        pytest.param(lambda pid: os.kill(pid, signal.SIGTERM), signal.SIG_IGN, id="background"),
    ],
)
def test_an_interrupted_run_reports_what_was_learnt(
    exectrail: Exectrail,
    inventory: Path,
    tmp_path: Path,
    end: Callable[[int], None],
    at_ctrl_c: signal.Handlers,
) -> None:
    slow = tmp_path / "python3"
    slow.write_text("#!/bin/sh\nsleep 120\n")
    slow.chmod(0o755)
    child = subprocess.Popen(
        exectrail.command(
            "preflight",
            "-i",
            _with(inventory, "node-002", ansible_python_interpreter=str(slow)),
            "--report-dir",
            exectrail.reports,
        ),
        cwd=tmp_path,
        env=exectrail.environment,
        start_new_session=True,
        # Whatever it is for who runs the tests.
        preexec_fn=lambda: signal.signal(signal.SIGINT, at_ctrl_c),  # noqa: PLW1509
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    evidence = exectrail.reports / "evidence"
    deadline = time.monotonic() + 100
    while len(list(evidence.glob("[!.]*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    end(child.pid)
    out, _ = child.communicate(timeout=100)

    report = json.loads((exectrail.reports / "report.json").read_text())
    assert child.returncode == 3, out
    assert report["interrupted"]
    assert {host["host"]: host["state"] for host in report["hosts"]} == {
        "node-001": "checked",
        "node-002": "not-reached",
        "node-003": "checked",
    }
    assert "interrupted" in out


def test_a_node_that_hangs_is_given_up(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "python3"
    slow.write_text("#!/bin/sh\nsleep 45\n")
    slow.chmod(0o755)

    ran = exectrail.preflight(
        _with(inventory, "node-002", ansible_python_interpreter=str(slow)),
        "--",
        "-e",
        "preflight_timeout=10",
    )

    assert ran.code == 3
    assert ran.states()["node-002"] == "not-reached"
    assert ran.states()["node-003"] == "checked"


def test_a_profile_where_nothing_gates_passes(
    exectrail: Exectrail, inventory: Path, tmp_path: Path
) -> None:
    (tmp_path / "none.yml").write_text(NO_GATE)

    ran = exectrail.preflight(inventory, "--profile", tmp_path / "none.yml")

    assert ran.code == 0, ran.out + ran.err
