"""A controller of another Debian, Python and Ansible than this one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from lab.vm.machine import machine
from tests.e2e.patience import ATTEMPTS, gave_up

pytestmark = pytest.mark.vm


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
            *(
                Path(root / ".venv/bin/pip"),
                "install",
                "--quiet",
                "--no-compile",
                "--target",
                packages,
            ),
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
    needless = "--exclude=ansible_test"
    subprocess.run(
        ["tar", "--append", "--file", archive, needless, "-C", tmp_path, "packages"], check=True
    )
    with machine("controller", "debian13") as one:
        one.run("mkdir /opt/checkout")
        one.run("tar -x -C /opt/checkout", stdin=archive.read_bytes())
        for _attempt in range(ATTEMPTS):
            ran = one.run(
                "cd /opt/checkout"
                " && printf 'all: {hosts: {here: {ansible_connection: local}}}' > h.yml"
                " && export PYTHONPATH=packages:src LC_ALL=C.UTF-8"
                " && python3 -m ansible playbook playbooks/preflight.yml -i h.yml -vv"
                " -e preflight_report_dir=/opt/out",
                check=False,
                timeout=300,
            )
            said = one.run("cat /opt/out/report.json").stdout
            if not gave_up(said):
                break
        report = json.loads(said)

    assert "core 2.21" in ran.stdout
    assert report["verdict"] == "fit", ran.stdout + said
    assert ran.returncode == 0, ran.stdout
