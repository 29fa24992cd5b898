"""The agent on a cluster as its users get it: playbook, service, and the session of a kubectl exec.

The tests are steps of one story and need the order in which they stand. A shell is opened in a
container before the first upgrade and used to the end.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node
from lab.cluster.lifecycle import cluster
from lab.images import recipes
from tests.e2e import agents
from tests.e2e.agents import Shell
from tests.e2e.fleet import build_agent
from tests.e2e.rollout import wait

ROOT = Path(__file__).parents[2]
LOG = "var/log/exectrail/advaudit.log"
METRICS = "/srv/metrics/agent.prom"
PROGRAM = "usr/lib/exectrail-agent"
UNIT = ROOT / "roles/exec_agent/templates/exectrail-agent.service.j2"
TRACES = (
    "etc/exectrail",
    "etc/systemd/system/exectrail-agent.service",
    "etc/systemd/system/multi-user.target.wants/exectrail-agent.service",
    PROGRAM,
    "usr/sbin/exectrail-agent",
    "var/lib/exectrail-agent",
    "var/log/exectrail",
)


@dataclass(frozen=True)
class Ran:
    code: int
    said: str

    def good(self) -> Ran:
        assert self.code == 0, self.said
        return self


@dataclass
class Story:
    cluster: Cluster
    folder: Path
    archive: Path
    shells: list[Shell] = field(default_factory=list)

    @property
    def worker(self) -> Node:
        return self.cluster.workers[0]

    def play(self, *options: str, **variables: Any) -> Ran:
        """Run the playbook as a user does."""
        with self.begin(*options, **variables) as run:
            said, _ = run.communicate(timeout=240)
        return Ran(run.returncode, said)

    def begin(self, *options: str, **variables: Any) -> subprocess.Popen[str]:
        inventory = self.folder / "hosts.yml"
        inventory.write_text(yaml.safe_dump(self.cluster.inventory()))
        settings = {"exec_agent_file": str(self.archive)}
        settings |= {f"exec_agent_{name}": value for name, value in variables.items()}
        return subprocess.Popen(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("playbooks/exec_agent.yml", "-i", str(inventory)),
                *("-e", json.dumps(settings), *options),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def on_worker(self, *command: str) -> str:
        return subprocess.run(
            self.cluster.ssh_command(self.worker, command),
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()

    def process(self) -> str:
        return self.on_worker("systemctl", "show", "-P", "MainPID", "exectrail-agent")

    def limits(self) -> dict[str, str]:
        """What systemd holds the service to."""
        said = self.on_worker(
            *("systemctl", "show", "exectrail-agent"),
            *("-p", "CPUQuotaPerSecUSec", "-p", "MemoryMax", "-p", "OOMScoreAdjust"),
        )
        return dict(line.split("=") for line in said.splitlines())

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.on_worker("exectrail-agent", "status", "--json"))
        return found

    def until_healthy(self) -> None:
        wait(
            lambda: self.on_worker("exectrail-agent", "status").startswith("healthy\n"),
            30,
            "health",
        )

    def records(self) -> list[dict[str, Any]]:
        text = (self.cluster.root(self.worker) / LOG).read_text()
        # The last line may be under way.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def sessions_with(self, word: str) -> set[str]:
        """The sessions in which the program that is known by a word has run."""
        deadline = time.monotonic() + 20
        while True:
            found = {
                record["traceId"]
                for record in self.records()
                if record["kind"] == "Command" and word in record["process.args"]
            }
            if found or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def traces(self) -> list[str]:
        root = self.cluster.root(self.worker)
        return [path for path in TRACES if os.path.lexists(root / path)]

    def versions(self) -> set[str]:
        folder = self.cluster.root(self.worker) / PROGRAM
        return {path.name for path in folder.iterdir() if not path.is_symlink()}

    def current(self) -> str:
        return str((self.cluster.root(self.worker) / PROGRAM / "current").readlink())

    def mode(self, path: str) -> str:
        found = (self.cluster.root(self.worker) / path).lstat()
        return f"{stat.S_IMODE(found.st_mode):04o}"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("agent")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with cluster("test-agent") as made:
        for node in made.machines:
            # On a node that is no container, systemd does this.
            command = made.ssh_command(node, ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"])
            subprocess.run(command, check=True)
        kubectl(made, "run", "seen", f"--image={recipes.BUSYBOX}", "--labels=tier=front")
        kubectl(made, "wait", "--for=condition=Ready", "pod/seen", "--timeout=60s")
        found = Story(made, folder, archive)
        yield found
        for shell in found.shells:
            shell.kill()


def exposure(said: str) -> float:
    (level,) = re.findall(r"exposure level for \S+: ([0-9.]+)", said)
    return float(level)


def test_a_first_version_that_sees_nothing_is_stopped(story: Story) -> None:
    good, story.archive = story.archive, agents.deaf(story.folder, tells=False)
    ran = story.play("--limit", story.worker.name, start_timeout=4)
    story.archive = good

    assert ran.code != 0
    assert "it hears nothing" in ran.said
    assert "The agent is stopped" in ran.said
    assert "what was that?" in ran.said
    assert story.process() == "0"
    assert "disabled" in story.on_worker("systemctl", "is-enabled", "exectrail-agent")


def test_every_node_gets_it_and_a_session_is_recorded(story: Story) -> None:
    story.play(cluster_id="ours", allow_downgrade=True).good()
    story.shells.append(Shell(story.cluster, "seen"))
    story.shells[0].run("installed")

    (trace,) = story.sessions_with("installed")
    (access,) = [one for one in story.records() if one["kind"] == "Kubernetes"]
    assert access["traceId"] == trace
    assert access["k8s.pod.name"] == "seen"
    assert access["k8s.pod.labels"]["tier"] == "front"
    assert access["host.nodename"] == story.worker.name
    assert access["host.hostip"] == story.worker.address
    assert access["clusterid"] == "ours"
    status = story.status()
    assert (status["reasons"], status["notes"], status["pinned"]) == ([], [], True)
    master = story.cluster.ssh_command(story.cluster.masters[0], ["exectrail-agent", "status"])
    assert subprocess.run(master, capture_output=True, check=False).returncode == 0


def test_files_are_their_owners_alone(story: Story) -> None:
    modes = {
        "etc/exectrail/agent.conf": "0600",
        "var/log/exectrail": "0700",
        LOG: "0600",
        "var/lib/exectrail-agent": "0700",
        f"{PROGRAM}/{story.current()}/exectrail-agent.pyz": "0755",
    }

    assert {path: story.mode(path) for path in modes} == modes
    assert story.on_worker("stat", "-c", "%a", "/run/exectrail-agent/status.json") == "644"


def test_the_service_is_confined(story: Story) -> None:
    said = story.on_worker("systemd-analyze", "security", "--no-pager", "exectrail-agent.service")

    assert exposure(said) <= 2.5
    process = story.process()
    status = story.on_worker("cat", f"/proc/{process}/status")
    allowed = int(dict(re.findall(r"(\w+):\t(.*)", status))["CapBnd"], 16)
    # CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_PERFMON, CAP_BPF
    assert allowed == 1 << 2 | 1 << 19 | 1 << 38 | 1 << 39
    listening = story.on_worker("ss", "-Hlnptuw")
    assert '"sshd",pid=' in listening
    assert f"pid={process}," not in listening
    assert story.limits() == {
        "CPUQuotaPerSecUSec": "infinity",
        "MemoryMax": str(96 << 20),
        "OOMScoreAdjust": "-500",
    }


@pytest.mark.parametrize("sensor", ["bpf", "audit"])
@pytest.mark.parametrize("asks", [True, False])
def test_every_variant_of_the_service_is_confined(story: Story, sensor: str, *, asks: bool) -> None:
    unit = jinja2.Environment(trim_blocks=True, autoescape=False).from_string(UNIT.read_text())  # noqa: S701 - no HTML
    text = unit.render(
        exec_agent_cpu_quota="20%",
        exec_agent_log_folder="/srv/log",
        exec_agent_memory_max="96M",
        exec_agent_python="/usr/bin/python3",
        __exec_agent_asks=asks,
        __exec_agent_folder=f"/{PROGRAM}",
        __exec_agent_look={"node": {"api": ["192.0.2.1", "2001:db8::1"]}},
        __exec_agent_sensor=sensor,
        __exec_agent_writable=["/srv/log"],
    )
    path = f"root/{sensor}-{asks}.service"
    (story.cluster.root(story.worker) / path).write_text(text)

    assert (
        exposure(story.on_worker("systemd-analyze", "security", "--offline=yes", f"/{path}")) <= 2.5
    )
    assert story.on_worker("systemd-analyze", "verify", f"/{path}", "2>&1") == ""


def test_a_node_takes_back_what_sees_nothing_even_if_nobody_waits_for_it(story: Story) -> None:
    current = story.current()
    good, story.archive = story.archive, agents.deaf(story.folder, tells=False)
    run = story.begin("--limit", story.worker.name, cluster_id="theirs", start_timeout=4)
    try:
        wait(lambda: story.current() != current, 60, "another version")
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
    story.archive = good
    story.shells[0].run("taken-back")

    wait(lambda: story.current() == current, 60, "the old version")
    story.until_healthy()
    conf = story.cluster.root(story.worker) / "etc/exectrail/agent.conf"
    assert "cluster_id = ours" in conf.read_text()
    assert story.sessions_with("taken-back") == story.sessions_with("installed")


def test_an_upgrade_with_other_settings_keeps_the_session(story: Story) -> None:
    before, old = story.process(), story.current()
    story.archive = agents.another(story.archive, "second")
    metrics = story.cluster.root(story.worker) / METRICS.lstrip("/")
    metrics.parent.mkdir()
    settings = {"cluster_id": "second", "cpu_quota": "70%", "memory_max": "128M"}
    story.play("--limit", story.worker.name, metrics_file=METRICS, **settings).good()
    story.shells[0].run("upgraded")

    assert story.process() != before
    assert story.versions() == {old, story.current()}
    assert story.sessions_with("upgraded") == story.sessions_with("installed")
    kubectl(story.cluster, "exec", "seen", "--", "true", "named")
    (named,) = story.sessions_with("named")
    (access,) = [
        one for one in story.records() if one["kind"] == "Kubernetes" and one["traceId"] == named
    ]
    assert access["clusterid"] == "second"
    assert "exectrail_agent_up 1\n" in metrics.read_text()
    assert story.mode(METRICS.lstrip("/")) == "0644"
    limits = story.limits()
    assert (limits["CPUQuotaPerSecUSec"], limits["MemoryMax"]) == ("700ms", str(128 << 20))


def test_an_agent_that_hangs_is_ended_and_another_tells_what_it_missed(story: Story) -> None:
    drop_in = "/run/systemd/system/exectrail-agent.service.d"
    story.on_worker("mkdir", drop_in)
    try:
        story.on_worker(f"printf '[Service]\\nWatchdogSec=3\\n' >{drop_in}/sooner.conf")
        story.on_worker("systemctl daemon-reload && systemctl restart exectrail-agent")
        story.until_healthy()
        hung = story.process()
        story.on_worker("kill", "-STOP", hung)
        story.shells[0].run("hung")
        wait(lambda: story.process() not in {"0", hung}, 60, "another process")
    finally:
        story.on_worker(f"rm -r {drop_in}; systemctl daemon-reload")
    story.until_healthy()

    assert "Watchdog timeout" in story.on_worker("journalctl", "-u", "exectrail-agent")
    assert story.sessions_with("hung") == story.sessions_with("installed")
    assert not [one for one in story.records() if one["kind"] == "Loss"]


def test_an_exec_goes_on_when_the_agent_is_killed_and_when_it_stops(story: Story) -> None:
    story.on_worker("kill", "-KILL", story.process())
    story.shells[0].run("killed")
    story.until_healthy()
    story.on_worker("systemctl", "stop", "exectrail-agent")
    story.shells[0].run("stopped")
    story.on_worker("systemctl", "start", "exectrail-agent")

    for word in ("killed", "stopped"):
        assert story.sessions_with(word) == story.sessions_with("installed")
    records = story.records()
    assert len([one for one in records if one["kind"] == "Kubernetes"]) == 2
    assert [one["seq"] for one in records] == list(range(1, len(records) + 1))
    assert not [one for one in records if one["kind"] == "Loss"]


def test_it_is_removed_in_the_middle_of_an_exec_and_leaves_the_log(story: Story) -> None:
    story.play("--limit", story.worker.name, state="absent").good()
    story.shells[0].run("removed")

    assert story.shells[0].end() == 0
    assert story.traces() == ["var/lib/exectrail-agent", "var/log/exectrail"]
    assert "exectrail" not in story.on_worker("ls", "/sys/fs/bpf", "/run")
    assert story.on_worker("systemctl", "list-units", "--all", "exectrail*", "--no-legend") == ""
