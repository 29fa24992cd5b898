"""The collection as somebody installs it, run by the oldest supported ansible-core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLDEST = "ansible-core==2.18.19"


def _run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ANSIBLE_")}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 2, 3}, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the oldest ansible-core, the collection and its Python package."""
    folder = tmp_path_factory.mktemp("collection")
    galaxy = Path(sys.executable).with_name("ansible-galaxy")
    _run(galaxy, "collection", "build", "--output-path", folder, cwd=ROOT)
    (archive,) = folder.glob("exectrail-audit-*.tar.gz")
    _run(
        *(galaxy, "collection", "install", "--offline", archive, "-p", folder / "collections"),
        cwd=folder,
    )
    venv.create(folder / "venv", with_pip=True)
    _run(
        *(folder / "venv/bin/pip", "install", "--quiet", OLDEST),
        folder / "collections/ansible_collections/exectrail/audit",
        cwd=folder,
    )
    return folder


def test_the_installed_playbook_reports_on_a_node(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}")

    out = _run(
        *(installed / "venv/bin/ansible-playbook", "exectrail.audit.preflight"),
        *("-i", "hosts.yml", "-e", "preflight_report_dir=out"),
        cwd=tmp_path,
        ANSIBLE_COLLECTIONS_PATH=str(installed / "collections"),
    )

    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [host["state"] for host in report["hosts"]] == ["checked"], out
    assert "node.exec-sensor" in {row["check"] for row in report["hosts"][0]["results"]}


def test_the_installed_command_finds_the_collections_playbook(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "hosts.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}")

    out = _run(
        *(installed / "venv/bin/exectrail", "preflight", "-i", "hosts.yml"),
        cwd=tmp_path,
        ANSIBLE_COLLECTIONS_PATH=str(installed / "collections"),
    )

    assert "[1/1] here  read" in out
    assert (tmp_path / "reports/preflight/report.html").exists()


def test_the_archive_holds_what_users_need_and_nothing_else(installed: Path) -> None:
    top = {
        path.name
        for path in (installed / "collections/ansible_collections/exectrail/audit").iterdir()
    }

    assert {"playbooks", "plugins", "roles", "src", "pyproject.toml", "LICENSE"} <= top
    assert not top & {"lab", "tests", "bench", ".git", ".venv", "reports"}
