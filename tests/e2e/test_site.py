"""A fleet from nothing to verified and back, as a user runs it: one story, in this order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node
from lab.cluster.lifecycle import cluster
from lab.images import recipes
from tests.e2e import agents
from tests.e2e.agents import Shell
from tests.e2e.fleet import BIN, ROOT, Fleet, Ran, build_agent
from tests.e2e.rollout import POLICY, STATE, await_ready, on, server, wait

LOG = "var/log/exectrail/advaudit.log"
UNIT = "etc/systemd/system/exectrail-agent.service"
PROGRAM = "usr/lib/exectrail-agent"
DROP_IN = f"{UNIT}.d/other.conf"
# Where traces of an installation could be left.
COMPARED = ("etc", "usr/lib/exectrail-agent", "usr/sbin", "usr/lib/systemd")
LISTED = ("/var/lib", "/run", "/run/systemd/system", "/sys/fs/bpf")


@dataclass
class Site:
    made: Cluster
    fleet: Fleet
    archive: Path

    @property
    def master(self) -> Node:
        return self.made.masters[0]

    def play(self, name: str, *options: str, **variables: Any) -> Ran:
        return self.fleet.play(
            name, *options, **{"exec_agent_file": str(self.archive), **variables}
        )

    def on(self, node: Node, *command: str) -> str:
        return on(self.made, node, *command).strip()

    def root(self, node: Node) -> Path:
        return self.made.root(node)

    @property
    def summary(self) -> dict[str, Any]:
        path = self.fleet.folder / "played/install/summary.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def steps(self, step: str) -> dict[str, str]:
        """What became of a step on each node, by the summary."""
        return {
            node["host"].removeprefix(f"{self.made.name}-"): one["outcome"]
            for node in self.summary["nodes"]
            for one in node["steps"]
            if one["step"] == step
        }

    def agent(self, node: Node) -> int:
        return int(self.on(node, "systemctl", "show", "-P", "MainPID", "exectrail-agent") or 0)

    def current(self, node: Node) -> str:
        return str((self.root(node) / PROGRAM / "current").readlink())

    def running(self) -> dict[str, tuple[int, int]]:
        """The agent's pid and the API server's of each node."""
        return {
            node.name: (self.agent(node), (server(node) or (0,))[0]) for node in self.made.machines
        }

    def traces(self) -> set[tuple[Any, ...]]:
        """Everything that an installation could have left on the nodes."""
        found: set[tuple[Any, ...]] = set()
        for node in self.made.machines:
            root = self.root(node)
            names = self.on(node, "find", *LISTED, "-maxdepth", "1", "-name", "*exectrail*")
            found |= {(node.name, name) for name in names.split()}
            for path in (each for top in COMPARED for each in (root / top).rglob("*")):
                about = path.lstat()
                whole = path.is_file() and not path.is_symlink()
                text = path.read_bytes() if whole and "kubernetes" in path.parts else about.st_size
                found.add((node.name, str(path.relative_to(root)), about.st_mode, whole and text))
        return found

    def sessions_with(self, node: Node, word: str) -> set[str]:
        """The sessions in which a program has run that is known by a word."""
        deadline = time.monotonic() + 20
        while True:
            text = (self.root(node) / LOG).read_text()
            # The last line may be under way.
            records = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            found = {
                record["traceId"]
                for record in records
                if record["kind"] == "Command" and word in record["process.args"]
            }
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with cluster("test-site", workers=2) as made:
        kubectl(made, "run", "seen", f"--image={recipes.BUSYBOX}", f"--overrides={placed(made)}")
        for node in made.machines:
            # On a node that is no container, systemd does this.
            on(made, node, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        await_ready(made, made.masters[0])
        fleet = Fleet(folder, made.inventory(), audit_policy_stable_seconds=3)
        yield Site(made, fleet, archive)


def placed(made: Cluster) -> str:
    return json.dumps({"spec": {"nodeName": made.workers[0].name}})


@pytest.fixture(scope="module")
def before(site: Site) -> set[tuple[Any, ...]]:
    return site.traces()


@pytest.fixture
def shell(site: Site) -> Iterator[Shell]:
    kubectl(site.made, "wait", "--for=condition=Ready", "pod/seen", "--timeout=60s")
    opened = Shell(site.made, "seen")
    yield opened
    opened.kill()


def test_nothing_is_touched_when_a_node_cannot_take_it(
    site: Site, before: set[tuple[Any, ...]]
) -> None:
    # None of them shows whether its kernel is locked down.
    for node in site.made.machines:
        site.on(node, "umount", "/sys/kernel/security")
    ran = site.play("site")
    after = site.traces()
    for node in site.made.machines:
        site.on(node, "mount", "-t", "securityfs", "securityfs", "/sys/kernel/security")

    assert ran.code == 2
    assert "Nothing was touched, because" in ran.said
    assert "preflight_waivers" in ran.said
    assert site.summary["exit_code"] == 3
    assert after ^ before == set()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (
            {"install_wave": [1], "exec_agent_cluster": "x", "audit_policy_log_maxsize": "big"},
            (
                "install_wave is unknown; install_waves perhaps?",
                "exec_agent_cluster is unknown",
                "audit_policy_log_maxsize",
            ),
        ),
        ({"install_waves": ["all"]}, ("no size of a wave",)),
        ({"install_masters_group": "heads"}, ("group heads has no hosts",)),
        ({"audit_policy_profile": "some"}, ("some",)),
        ({"exec_agent_file": "/nowhere.pyz"}, ("There is no /nowhere.pyz",)),
    ],
)
def test_a_bad_request_is_one_clear_error(
    site: Site, variables: dict[str, Any], says: tuple[str, ...]
) -> None:
    ran = site.play("install", **variables)
    said = " ".join(ran.said.split())

    assert ran.code != 0
    assert [words for words in says if words not in said] == []
    assert "Read the evidence of the node" not in ran.said


def test_check_mode_shows_what_virgin_nodes_would_get(
    site: Site, before: set[tuple[Any, ...]]
) -> None:
    ran = site.play("site", "--check", "--diff").good()

    assert "+sensor = bpf" in ran.said
    assert "+    - --audit-policy-file=/etc/kubernetes/audit-policy.yaml" in ran.said
    assert site.summary["check"]
    assert site.steps("agent") == {"worker-1": "done", "worker-2": "done", "master-1": "done"}
    assert site.traces() ^ before == set()


def stopped(site: Site, how: signal.Signals, *when: Path) -> tuple[int, str]:
    """Run site until one of these files is there, and send the terminal's processes a signal."""
    command = [
        *(str(BIN / "exectrail"), "site", "-i", str(site.fleet.folder / "hosts.yml")),
        *("--report-dir", str(site.fleet.folder / "stopped"), "--agent", str(site.archive), "--"),
        *("-e", json.dumps(site.fleet.settings)),
    ]
    said = site.fleet.folder / "stopped.txt"
    with said.open("w") as output:
        run = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )
    try:
        wait(lambda: any(map(Path.exists, when)) or run.poll() is not None, 120, "the moment")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, how)
        run.wait(60)
    return run.returncode, said.read_text()


def test_a_run_that_is_interrupted_is_completed_by_the_next(site: Site) -> None:
    """By Ctrl-C in the first wave, and then by the death of the controller on a master."""
    master = site.root(site.master)
    code, said = stopped(site, signal.SIGINT, site.root(site.made.workers[0]) / UNIT)
    assert code == 3, said
    assert said.count("Run it again") == 1
    assert "agent: not brought to its end" in said
    assert not (master / UNIT).exists()
    code, said = stopped(site, signal.SIGKILL, master / POLICY)
    assert code == -signal.SIGKILL, said
    # What was begun there comes to its end by itself.
    journal = master / STATE / "rollout.json"
    wait(lambda: '"outcome": "done"' in journal.read_text(), 120, "the change is done")
    ran = site.play("site").good()

    assert site.summary["exit_code"] == 0
    assert site.steps("agent") == {"worker-1": "kept", "worker-2": "kept", "master-1": "kept"}
    assert site.steps("policy") == {"master-1": "kept"}
    assert {node["verified"] for node in site.summary["nodes"]} == {"verify passed"}
    assert "Nothing is left to do." in ran.said


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = site.running()
    ran = site.play("site").good()

    assert set(ran.changed.values()) == {0}
    assert site.running() == before
    assert site.steps("agent") == {"worker-1": "kept", "worker-2": "kept", "master-1": "kept"}


def test_a_run_repairs_what_is_broken_and_nothing_else(site: Site) -> None:
    one, two = site.made.workers
    before = site.running()
    # Else its watchdog may be first.
    site.on(one, "systemctl", "service-watchdogs", "no")
    site.on(one, "kill", "-STOP", str(site.agent(one)))
    site.on(two, "systemctl", "stop", "exectrail-agent")
    site.on(two, "ln", "-sf", "/dev/null", f"/{UNIT}")
    site.on(two, "systemctl", "daemon-reload")
    (site.root(two) / "etc/exectrail/agent.conf").write_text("[agent]\nsensor = none\n")
    program = site.root(site.master) / PROGRAM / site.current(site.master).rpartition("/")[2]
    whole = (program / "exectrail-agent.pyz").read_bytes()
    (program / "exectrail-agent.pyz").write_bytes(whole + b"\n")
    ran = site.play("site").good()
    site.on(one, "systemctl", "service-watchdogs", "yes")
    after = site.running()

    assert site.summary["exit_code"] == 0
    assert site.steps("agent") == {"worker-1": "done", "worker-2": "done", "master-1": "done"}
    assert "was stopped by a signal" in ran.said
    assert (program / "exectrail-agent.pyz").read_bytes() == whole
    for node in site.made.machines:
        assert after[node.name][0] not in {0, before[node.name][0]}
    assert after[site.master.name][1] == before[site.master.name][1]


def test_a_node_whose_agent_cannot_work_is_taken_back_alone(site: Site) -> None:
    broken = site.made.workers[1]
    old = site.current(broken)
    site.archive = agents.another(site.archive, "second")
    drop_in = site.root(broken) / DROP_IN
    drop_in.parent.mkdir()
    drop_in.write_text(
        f"[Service]\nExecStartPre=/bin/sh -c '[ \"$(readlink /{PROGRAM}/current)\" = {old} ]'\n"
    )
    ran = site.play("site", "--tags", "agent,verify", install_max_fail_percentage=50)
    drop_in.unlink()
    drop_in.parent.rmdir()
    site.on(broken, "systemctl", "daemon-reload")

    assert ran.code == 2
    assert site.summary["exit_code"] == 2
    assert site.steps("agent") == {"worker-1": "done", "worker-2": "failed", "master-1": "done"}
    assert f"Version {old} is back" in ran.said
    assert site.current(broken) == old
    assert site.current(site.master) != old
    assert {node["verified"] for node in site.summary["nodes"]} == {"verify passed"}


def test_after_a_failure_in_the_first_wave_the_others_are_left(site: Site) -> None:
    first, *_ = site.made.workers
    before = site.running()
    site.archive = agents.deaf(site.fleet.folder, tells=True)
    ran = site.play("install", "--tags", "agent")
    site.archive = site.fleet.folder / "second.pyz"

    assert ran.code == 2
    assert site.steps("agent") == {"worker-1": "failed", "worker-2": "left", "master-1": "left"}
    assert "no ears" in ran.said
    assert site.agent(first) == before[first.name][0]
    assert site.running() == before


def test_an_upgrade_keeps_the_session(site: Site, shell: Shell) -> None:
    first = site.made.workers[0]
    shell.run("installed")
    site.archive = agents.another(site.archive, "third")
    old, pid = site.current(first), site.agent(first)
    site.play("upgrade").good()
    shell.run("upgraded")

    assert site.current(first) != old
    assert site.agent(first) != pid
    assert site.sessions_with(first, "upgraded") == site.sessions_with(first, "installed")
    assert site.steps("policy") == {"master-1": "kept"}


def test_a_downgrade_is_refused_on_all_nodes_at_once(site: Site) -> None:
    before = site.running()
    good, site.archive = site.archive, agents.of_version(site.archive, "0.0.9")
    ran = site.play("upgrade")
    site.archive = good

    assert ran.code == 2
    assert "0.0.9 is older: set exec_agent_allow_downgrade=true" in " ".join(ran.said.split())
    assert site.running() == before
    assert site.steps("agent") == {"worker-1": "failed", "worker-2": "failed", "master-1": "failed"}


def test_a_purge_has_to_be_confirmed(site: Site) -> None:
    before = site.running()
    ran = site.play("uninstall", purge=True)

    assert ran.code == 2
    assert f"{site.master.name}: /var/log/kubernetes: 1 file" in ran.said
    assert f"{site.made.workers[0].name}: /var/log/exectrail: " in ran.said
    assert "Nothing was deleted" in ran.said
    assert site.running() == before


def test_uninstalled_nodes_are_as_before_but_for_the_logs(
    site: Site, before: set[tuple[Any, ...]]
) -> None:
    site.play("uninstall").good()
    # Where the numbers of records go on.
    kept = {(node.name, "/var/lib/exectrail-agent") for node in site.made.machines}

    assert site.traces() ^ before == kept
    for node in site.made.machines:
        assert (site.root(node) / LOG).stat().st_size
    assert (site.root(site.master) / "var/log/kubernetes/kubernetes.audit").exists()
    running = server(site.master)
    assert running
    assert not [word for word in running[1] if word.startswith("--audit")]
    assert site.steps("agent") == {"worker-1": "done", "worker-2": "done", "master-1": "done"}


def test_nothing_is_left_to_uninstall(site: Site) -> None:
    assert set(site.play("uninstall").good().changed.values()) == {0}


def test_an_upgrade_is_refused_where_nothing_is_installed(site: Site) -> None:
    assert "run install" in site.play("upgrade").said
    assert site.agent(site.master) == 0


def test_a_confirmed_purge_removes_what_was_recorded(site: Site) -> None:
    site.play("uninstall", purge=True, confirm="yes").good()

    for node in site.made.machines:
        assert not (site.root(node) / LOG).parent.exists()
        assert not (site.root(node) / "var/lib/exectrail-agent").exists()
    assert not (site.root(site.master) / "var/log/kubernetes").exists()
