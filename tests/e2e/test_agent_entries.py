"""How somebody came into a container, told by the agent on a node of a real cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from lab.cluster.kubeadm import kubectl, kubectl_command
from lab.cluster.layout import Cluster
from lab.cluster.lifecycle import cluster
from lab.images import recipes

ROOT = Path(__file__).parents[2]
LOG = "var/log/exectrail/advaudit.log"
CONFIG = "[agent]\ncluster_id = c1\nprobes = full\n"
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "terminationGracePeriodSeconds": 2,
        "containers": [
            {
                "name": "main",
                "image": recipes.TOOLS,
                "startupProbe": {"exec": {"command": ["cat", "/etc/hostname"]}},
                "livenessProbe": {
                    "exec": {"command": ["cat", "/etc/group"]},
                    "periodSeconds": 2,
                },
                "readinessProbe": {
                    "exec": {"command": ["cat", "/etc/passwd"]},
                    "periodSeconds": 2,
                },
                "lifecycle": {
                    "postStart": {"exec": {"command": ["cat", "/etc/shells"]}},
                    "preStop": {"exec": {"command": ["cat", "/etc/issue"]}},
                },
            }
        ],
    },
}


MAIN = {"name": "main", "image": recipes.TOOLS}
OTHERS: list[dict[str, Any]] = [
    {
        "name": "shared",
        "shareProcessNamespace": True,
        "containers": [{**MAIN, "name": "one"}, MAIN],
    },
    {"name": "hostly", "hostPID": True, "containers": [MAIN]},
    {"name": "brief", "containers": [MAIN]},
    {"name": "heard", "containers": [{**MAIN, "stdin": True, "command": ["bash"]}]},
]
"""Pods beside `POD`: the name and what their specification has."""
SURE = {0.8, 0.5}
"""Without a terminal and an audit id; the lower one where the runtime ended at that very moment."""


def pod(name: str, **spec: Any) -> dict[str, Any]:
    spec = {"terminationGracePeriodSeconds": 1, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@dataclass
class Watched:
    """A cluster of one node, and the agent on it."""

    cluster: Cluster
    read: int = 0

    def on_node(self, command: str) -> str:
        node = self.cluster.masters[0]
        return subprocess.run(
            self.cluster.ssh_command(node, [command]), capture_output=True, text=True, check=True
        ).stdout

    def records(self) -> list[dict[str, Any]]:
        path = self.cluster.root(self.cluster.masters[0]) / LOG
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def entry(self, word: str, seconds: float = 20) -> dict[str, Any]:
        """Wait for the access whose command has the word in it."""
        deadline = time.monotonic() + seconds
        while True:
            entries = [each for each in self.records() if each["kind"] == "Kubernetes"]
            found = [each for each in entries if word in each["entry.cmdline"]]
            if found:
                return found[-1]
            assert time.monotonic() < deadline, [each["entry.cmdline"] for each in entries]
            time.sleep(0.2)

    def session(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """Wait for the end of an access; give its records."""
        deadline = time.monotonic() + 20
        while True:
            mine = [each for each in self.records() if each.get("traceId") == entry["traceId"]]
            if mine[-1]["kind"] == "SessionEnd":
                return mine
            assert time.monotonic() < deadline, mine
            time.sleep(0.2)

    def commands(self, entry: dict[str, Any]) -> list[list[str]]:
        """Wait for the end of an access; give what was run in it."""
        mine = self.session(entry)
        return [each["process.args"] for each in mine if each["kind"] == "Command"]

    def container(self, pod: str, name: str = "main") -> str:
        """Return the id of a pod's container."""
        path = f"{{.status.containerStatuses[?(@.name=='{name}')].containerID}}"
        found = kubectl(self.cluster, "get", "pod", pod, "-o", f"jsonpath={path}")
        return found.rpartition("/")[2]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    archive = tmp_path_factory.mktemp("agent") / "exectrail-agent.pyz"
    subprocess.run([sys.executable, ROOT / "packaging/agent.py", "-o", archive], check=True)
    with cluster("test-entries", masters=1, workers=0) as made:
        root = made.root(made.masters[0])
        (root / "root/exectrail-agent.pyz").write_bytes(archive.read_bytes())
        (root / "root/agent.conf").write_text(CONFIG)
        seen = Watched(made)
        seen.on_node(
            "systemd-run --quiet --unit=agent --property=Delegate=yes --property=Type=notify "
            "python3 -I /root/exectrail-agent.pyz run --config /root/agent.conf"
        )
        pods = yaml.safe_dump_all([POD, *(pod(**each) for each in OTHERS)])
        kubectl(made, "apply", "-f", "-", stdin=pods.encode())
        kubectl(made, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield seen


def terminal(made: Cluster, *arguments: str) -> None:
    """Run kubectl with a terminal of its own."""
    command = shlex.join(kubectl_command(made, *arguments))
    subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )


def test_kubectl_exec(watched: Watched) -> None:
    script = "cat /etc/os-release >/dev/null; (cat /etc/fstab | wc -l); exit 3"
    done = subprocess.run(
        kubectl_command(watched.cluster, "exec", "web", "--", "bash", "-c", script),
        capture_output=True,
        check=False,
    )
    entry = watched.entry("os-release")

    assert done.returncode == 3
    assert entry["entry.type"] == "exec"
    assert entry["entry.tty"] is False
    assert entry["kubeObject.operation.kind"] == "PodExec"
    assert (entry["k8s.pod.namespace"], entry["k8s.pod.name"]) == ("default", "web")
    assert (entry["k8s.container.name"], entry["k8s.pod.labels"]) == ("main", {"app": "web"})
    assert sorted(watched.commands(entry)) == sorted(
        [
            ["bash", "-c", script],
            ["cat", "/etc/os-release"],
            ["cat", "/etc/fstab"],
            ["wc", "-l"],
        ]
    )


def test_kubectl_exec_with_a_terminal(watched: Watched) -> None:
    terminal(watched.cluster, "exec", "-it", "web", "--", "bash", "-c", "cat /etc/debian_version")
    entry = watched.entry("debian_version")

    assert (entry["entry.type"], entry["entry.tty"]) == ("exec", True)
    assert entry["process.tty"].startswith("pts/")


@pytest.mark.parametrize(
    ("word", "probe", "kind"),
    [
        ("/etc/hostname", "startup", "probe"),
        ("/etc/group", "liveness", "probe"),
        ("/etc/passwd", "readiness", "probe"),
        ("/etc/shells", "postStart", "hook"),
    ],
)
def test_probes_and_hooks(watched: Watched, word: str, probe: str, kind: str) -> None:
    # The first may come before the API server has told of the pod; those that follow are known.
    entry = watched.entry(word)

    if probe in {"startup", "postStart"} and entry["entry.type"] == "exec":
        assert entry["entry.confidence"] < 1
        return
    assert entry["entry.type"] == kind
    assert entry["entry.probe"] == probe


def test_copying_both_ways(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("text")
    kubectl(watched.cluster, "cp", str(tmp_path / "there"), "web:/tmp/there")
    kubectl(watched.cluster, "cp", "web:/tmp/there", str(tmp_path / "back"))

    assert (tmp_path / "back").read_text() == "text"
    assert watched.entry("tar -xmf")["entry.type"] == "copy"
    assert watched.entry("tar cf")["entry.type"] == "copy"


def test_a_container_that_is_run_interactively(watched: Watched) -> None:
    run = ["run", "visit", "-it", "--rm", "--restart=Never", f"--image={recipes.TOOLS}", "--"]
    terminal(watched.cluster, *run, "bash", "-c", "sleep 1; cat /etc/nsswitch.conf")
    entry = watched.entry("nsswitch")

    assert entry["entry.type"] == "interactive-container"
    assert entry["k8s.pod.name"] == "visit"


def test_an_ephemeral_container(watched: Watched) -> None:
    kubectl(
        watched.cluster,
        *("debug", "web", f"--image={recipes.TOOLS}", "--container=helper", "--"),
        *("bash", "-c", "sleep 1; cat /etc/profile"),
    )
    entry = watched.entry("/etc/profile")

    assert entry["entry.type"] == "ephemeral-container"
    assert (entry["k8s.pod.name"], entry["k8s.container.name"]) == ("web", "helper")


def debug(target: str, *options: str) -> list[str]:
    """Give the words by which kubectl starts a container to look into a pod or a node."""
    return ["debug", target, *options, f"--image={recipes.TOOLS}", "--image-pull-policy=Never"]


def test_an_ephemeral_container_with_a_terminal(watched: Watched) -> None:
    words = debug("web", "-it", "--target=main", "--container=seated")
    terminal(watched.cluster, *words, "--", "bash", "-c", "sleep 1; cat /etc/gshadow")
    entry = watched.entry("gshadow")

    assert (entry["entry.type"], entry["entry.tty"]) == ("ephemeral-container", True)
    assert (entry["k8s.pod.name"], entry["k8s.container.name"]) == ("web", "seated")
    assert ["cat", "/etc/gshadow"] in watched.commands(entry)


@pytest.mark.parametrize("seated", [True, False], ids=["with a terminal", "without"])
def test_a_pod_to_look_at_the_node(watched: Watched, *, seated: bool) -> None:
    node = f"node/{watched.cluster.masters[0].name}"
    words = debug(node, *(["-it"] if seated else []))
    file = "/etc/hosts.allow" if seated else "/etc/hosts.deny"
    script = ["--", "chroot", "/host", "bash", "-c", f"sleep 1; cat {file}; :"]
    if seated:
        terminal(watched.cluster, *words, *script)
    else:
        kubectl(watched.cluster, *words, *script)
    entry = watched.entry(file)

    assert (entry["entry.type"], entry["entry.confidence"]) == ("nsenter", 0.8)
    assert entry["entry.tty"] is seated
    assert entry["k8s.pod.name"].startswith("node-debugger-")
    assert ["cat", file] in watched.commands(entry)


@pytest.mark.parametrize("container", ["one", "main"])
def test_containers_of_a_pod_that_share_their_pids(watched: Watched, container: str) -> None:
    script = f"cat /etc/{container}; (setsid bash -c 'sleep 0.3; cat /etc/late-{container}' &); :"
    kubectl(watched.cluster, "exec", "shared", "-c", container, "--", "bash", "-c", script)
    entry = watched.entry(f"/etc/{container}")

    assert entry["entry.type"] == "exec"
    assert entry["entry.confidence"] in SURE
    assert entry["k8s.container.name"] == container
    # The pod's pause process adopts what outlives its parent: it stays of the session.
    assert ["cat", f"/etc/late-{container}"] in watched.commands(entry)
    entries = [each for each in watched.records() if each["kind"] == "Kubernetes"]
    assert len([each for each in entries if f"late-{container}" in each["entry.cmdline"]]) == 1


def test_a_pod_with_the_hosts_pids(watched: Watched) -> None:
    kubectl(watched.cluster, "exec", "hostly", "--", "bash", "-c", "cat /etc/networks; :")
    entry = watched.entry("/etc/networks")

    # By then the runtime may have ended already, and what adopts its child adopts orphans too.
    expected = {("exec", sure) for sure in SURE} | {("unknown", 0.3)}
    assert (entry["entry.type"], entry["entry.confidence"]) in expected
    assert entry["k8s.pod.name"] == "hostly"
    assert ["cat", "/etc/networks"] in watched.commands(entry)


def test_two_execs_at_once(watched: Watched) -> None:
    fifo = "/run/both"
    kubectl(watched.cluster, "exec", "web", "--", "mkfifo", fifo)
    scripts = [f"cat /etc/first; echo go >{fifo}; :", f"read go <{fifo}; cat /etc/second; :"]
    running = [
        subprocess.Popen(
            kubectl_command(watched.cluster, "exec", "web", "--", "bash", "-c", script),
            stderr=subprocess.DEVNULL,
        )
        for script in scripts
    ]
    assert [each.wait(30) for each in running] == [0, 0]
    first, second = watched.entry("/etc/first"), watched.entry("/etc/second")

    assert first["traceId"] != second["traceId"]
    assert watched.commands(first) == [["bash", "-c", scripts[0]], ["cat", "/etc/first"]]
    assert watched.commands(second) == [["bash", "-c", scripts[1]], ["cat", "/etc/second"]]


def test_a_container_that_is_deleted_in_mid_session(watched: Watched) -> None:
    command = kubectl_command(watched.cluster, "exec", "brief", "--", "sleep", "987")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        entry = watched.entry("sleep 987")
        kubectl(watched.cluster, "delete", "pod", "brief", "--grace-period=0", "--force")
        assert running.wait(30) != 0
    session = watched.session(entry)

    assert [each["kind"] for each in session][-2:] == ["CommandExit", "SessionEnd"]
    assert session[-2]["exit.signal"] == 9
    assert session[-1]["k8s.pod.name"] == "brief"


def test_through_the_interface_of_the_runtime(watched: Watched) -> None:
    """As the kubelet's probes come, and ``crictl exec --sync``: one call, by nobody on the node."""
    container = watched.container("web")
    fields = [(1, container), (2, "cat"), (2, "/etc/services")]
    call = b"".join(bytes([n << 3 | 2, len(text)]) + text.encode() for n, text in fields)
    message = b"\0" + len(call).to_bytes(4, "big") + call
    node = watched.cluster.container(watched.cluster.masters[0])
    pid = subprocess.check_output(["podman", "inspect", "-f", "{{.State.Pid}}", node], text=True)
    subprocess.run(
        [
            *("curl", "--silent", "--show-error", "--fail", "--http2-prior-knowledge"),
            *("--unix-socket", f"/proc/{pid.strip()}/root/run/containerd/containerd.sock"),
            *("--header", "Content-Type: application/grpc", "--header", "TE: trailers"),
            *("--data-binary", "@-", "--output", "/dev/null"),
            "http://localhost/runtime.v1.RuntimeService/ExecSync",
        ],
        input=message,
        check=True,
        timeout=30,
    )
    entry = watched.entry("/etc/services")

    assert entry["entry.type"] == "exec"
    assert entry["entry.confidence"] in SURE


def test_through_containerds_own_client(watched: Watched) -> None:
    container = watched.container("web")
    script = "cat /etc/issue.net; sleep 1"
    execute = f"ctr -n k8s.io task exec --exec-id by-hand {container} bash -c '{script}'"
    watched.on_node(execute)
    entry = watched.entry("/etc/issue.net")

    assert entry["entry.type"] == "runtime-exec"
    assert entry["entry.reason"].startswith("ctr ")
    assert entry["k8s.pod.name"] == "web"


def test_attaching_is_not_seen(watched: Watched) -> None:
    subprocess.run(
        kubectl_command(watched.cluster, "attach", "-i", "heard"),
        input=b"cat /etc/hostname\n",
        capture_output=True,
        check=False,
        timeout=30,
    )
    kubectl(watched.cluster, "exec", "heard", "--", "echo", "afterwards")
    entry = watched.entry("afterwards")

    told = [each for each in watched.records() if each.get("k8s.pod.name") == "heard"]
    assert {each["traceId"] for each in told} == {entry["traceId"]}


def test_from_the_node_by_nsenter(watched: Watched) -> None:
    container = watched.container("web")
    tasks = watched.on_node("ctr -n k8s.io task ls").splitlines()
    (pid,) = [row.split()[1] for row in tasks if row.startswith(container)]
    watched.on_node(f"nsenter -t {pid} -m -p -u -n -- cat /proc/version >/dev/null")
    entry = watched.entry("/proc/version")

    assert entry["entry.type"] == "nsenter"
    assert entry["k8s.pod.name"] == "web"


def test_what_a_workload_does_by_itself_is_no_access(watched: Watched) -> None:
    entries = {each["entry.cmdline"] for each in watched.records() if each["kind"] == "Kubernetes"}

    assert not [each for each in entries if "kube-" in each or "/pause" in each or "etcd" in each]


def test_a_hook_at_the_end(watched: Watched) -> None:
    kubectl(watched.cluster, "delete", "pod", "web", "--timeout=60s")
    entry = watched.entry("/etc/issue")

    assert (entry["entry.type"], entry["entry.probe"]) == ("hook", "preStop")


def test_every_line_is_what_its_schema_says_and_nothing_is_missing(watched: Watched) -> None:
    watched.on_node("python3 -I /root/exectrail-agent.pyz status --config /root/agent.conf")
    records = watched.records()
    for record in records:
        path = ROOT / f"docs/reference/records/{record['kind'].lower()}.schema.json"
        Draft202012Validator(json.loads(path.read_text())).validate(record)

    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert [record for record in records if record["kind"] == "Loss"] == []
    assert "canary" in {record.get("health.cause") for record in records}
