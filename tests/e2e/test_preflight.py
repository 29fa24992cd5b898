"""The preflight against virtual machines: every fault is named, and nothing else is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab.vm import faults
from lab.vm.machine import Machine, machine
from tests.integration.conftest import Exectrail

pytestmark = pytest.mark.vm

SYSTEMS = [name for name in faults.known() if name.startswith("os-")]
OTHERS = [name for name in faults.known() if name not in SYSTEMS]
Statuses = dict[str, str]


def inventory_of(machines: list[Machine], folder: Path, **variables: object) -> Path:
    path = folder / "hosts.yml"
    hosts = {one.name: one.inventory_variables() | variables for one in machines}
    path.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    return path


def judged(one: Machine, folder: Path) -> dict[str, Statuses]:
    """Check a machine over ssh, then its evidence by the vendor's rules too."""
    exectrail = Exectrail(folder)
    inventory = inventory_of([one], folder, preflight_cluster_type="dedicated")
    found = {"self_managed": exectrail.preflight(inventory)}
    exectrail.reports = folder / "ack"
    evidence = folder / "reports" / "evidence" / f"{one.name}.json"
    found["ack"] = exectrail(
        "evaluate", "--profile", "ack", "--report-dir", exectrail.reports, evidence
    )
    return {
        profile: {row["check"]: row["status"] for row in ran.report["hosts"][0]["results"]}
        for profile, ran in found.items()
    }


def findings(of: Statuses) -> Statuses:
    return {check: status for check, status in of.items() if status not in {"pass", "skip"}}


def changed(before: Statuses, after: Statuses) -> Statuses:
    return {check: status for check, status in after.items() if before[check] != status}


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Statuses]:
    with machine("healthy") as one:
        return judged(one, tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def debian_called_ubuntu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Statuses]:
    with machine("healthy-ubuntu", faults=["os-ubuntu"]) as one:
        return judged(one, tmp_path_factory.mktemp("ubuntu"))


def test_a_fit_machine_is_fit(debian: dict[str, Statuses]) -> None:
    assert set(debian["self_managed"].values()) <= {"pass", "skip"}


def test_a_debian_called_ubuntu_meets_the_vendors_rules(
    debian_called_ubuntu: dict[str, Statuses],
) -> None:
    assert set(debian_called_ubuntu["ack"].values()) <= {"pass", "skip"}
    assert debian_called_ubuntu["ack"]["node.resolv-conf"] == "pass"


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "no-python"])
def test_a_fault_on_a_debian_called_ubuntu_is_named_and_nothing_else(
    name: str, debian_called_ubuntu: dict[str, Statuses], tmp_path: Path
) -> None:
    with machine(f"fault-{name}", faults=["os-ubuntu", name]) as one:
        found = judged(one, tmp_path)

    meant = dict(faults.known()[name].finds)
    for profile, healthy in debian_called_ubuntu.items():
        of_profile = {check: status for check, status in meant.items() if check in healthy}
        assert findings(found[profile]) == of_profile, profile


def test_a_machine_without_python_fails_that_and_leaves_the_rest_unknown(tmp_path: Path) -> None:
    with machine("fault-no-python", faults=["no-python"]) as one:
        found = judged(one, tmp_path)["self_managed"]

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
    name: str, meant: Statuses, debian: dict[str, Statuses], tmp_path: Path
) -> None:
    with machine(name, faults=[name]) as one:
        found = judged(one, tmp_path)

    assert changed(debian["ack"], found["ack"]) == meant
    text = (tmp_path / "reports" / "report.html").read_text()
    assert "<script>alert" not in text
    assert "\x1b" not in text


@pytest.fixture(scope="module")
def with_an_operator() -> Iterator[Machine]:
    """A machine on which a user who is not root may log in."""
    with machine("operator") as one:
        one.run(
            "useradd --create-home --shell /bin/sh --password '*' jane && "
            "install -d -o jane -m 0700 /home/jane/.ssh && "
            "install -o jane -m 0600 /root/.ssh/authorized_keys /home/jane/.ssh/ && "
            "echo root:right | chpasswd"
        )
        yield one


@pytest.mark.parametrize(
    ("password", "state", "problem"),
    [
        ("right", "checked", ""),
        ("wrong", "unreachable", "password is wrong"),
        (None, "unreachable", "needs a password"),
    ],
)
def test_becoming_root_with_a_password(
    with_an_operator: Machine, tmp_path: Path, password: str | None, state: str, problem: str
) -> None:
    variables = {"ansible_user": "jane", "ansible_become_method": "ansible.builtin.su"}
    if password:
        variables["ansible_become_password"] = password

    ran = Exectrail(tmp_path).preflight(inventory_of([with_an_operator], tmp_path, **variables))

    row = ran.report["hosts"][0]
    assert row["state"] == state, row
    assert problem in row["problem"]
    assert ran.code == (0 if state == "checked" else 3)


def test_check_mode_and_a_second_run_agree_and_change_nothing(
    with_an_operator: Machine, tmp_path: Path
) -> None:
    inventory = inventory_of([with_an_operator], tmp_path)
    exectrail = Exectrail(tmp_path)
    before = with_an_operator.run(TREE).stdout

    found = []
    for arguments in ([], ["--", "--check"], []):
        report = exectrail.preflight(inventory, *arguments).report
        found.append([(row["check"], row["status"]) for row in report["hosts"][0]["results"]])

    assert found[0] == found[1] == found[2]
    assert with_an_operator.run(TREE).stdout == before


TREE = (
    "find / -xdev -type f -not -path '/var/log/*' -not -path '/var/lib/systemd/*' "
    "-printf '%p %s %T@\\n' | sort"
)


def test_the_newest_ansible_on_a_debian_13_controller(tmp_path: Path) -> None:
    """A Debian 13 machine checks itself with the newest supported line, for its newer Python."""
    root = Path(__file__).parents[2]
    packages = tmp_path / "packages"
    pins = [
        line.split(" ;")[0]
        for line in (root / "requirements.txt").read_text().splitlines()
        if line.startswith(("ansible-core==2.21", "click", "jinja2", "msgspec", "pyyaml"))
    ]
    subprocess.run(
        [
            *(Path(root / ".venv/bin/pip"), "install", "--quiet", "--target", packages),
            *("--python-version", "3.13", "--ignore-requires-python"),
            *("--only-binary=:all:", *pins),
        ],
        check=True,
    )
    archive = tmp_path / "archive.tar"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "playbooks", "plugins", "roles", "src", "ansible.cfg"],
        cwd=root,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(
        ["tar", "--create", "--file", archive, "--null", "--files-from=-"],
        input=tracked,
        cwd=root,
        check=True,
    )
    subprocess.run(["tar", "--append", "--file", archive, "-C", tmp_path, "packages"], check=True)
    with machine("controller", "debian13") as one:
        one.run("mkdir /opt/checkout")
        one.run("tar -x -C /opt/checkout", stdin=archive.read_bytes())
        ran = one.run(
            "cd /opt/checkout && printf 'all: {hosts: {here: {ansible_connection: local}}}' > h.yml"
            " && export PYTHONPATH=packages:src LC_ALL=C.UTF-8"
            " && python3 -m ansible playbook playbooks/preflight.yml -i h.yml"
            " -e preflight_report_dir=/opt/out",
            timeout=300,
        )
        assert (
            "core 2.21"
            in one.run(
                "cd /opt/checkout && PYTHONPATH=packages LC_ALL=C.UTF-8 "
                "python3 -m ansible playbook --version"
            ).stdout
        )
        report = json.loads(one.run("cat /opt/out/report.json").stdout)

    assert report["verdict"] == "fit", ran.stdout
