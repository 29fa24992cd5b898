"""How somebody came into a container, told by the agent on a node of a real cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from tests.e2e.agents import Shell
from tests.e2e.rollout import wait

ROOT = Path(__file__).parents[2]
LOG = "var/log/exectrail/advaudit.log"
CONFIG = "[agent]\ncluster_id = c1\n"
TWICE = "test -e /runs/first && exec sleep 600; touch /runs/first; sleep 12"
"""Ends once and runs on when it is started again."""
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
                "livenessProbe": {
                    "exec": {"command": ["cat", "/etc/group"]},
                    "periodSeconds": 2,
                    "timeoutSeconds": 30,
                },
                "readinessProbe": {
                    "exec": {"command": ["cat", "/etc/passwd"]},
                    "periodSeconds": 2,
                    "timeoutSeconds": 30,
                },
                "lifecycle": {"preStop": {"exec": {"command": ["cat", "/etc/gai.conf"]}}},
            }
        ],
    },
}


MAIN = {"name": "main", "image": recipes.TOOLS}
RUNS = {"name": "runs", "mountPath": "/runs"}
OFTEN = {"periodSeconds": 1, "timeoutSeconds": 30}


def runs(name: str, code: int = 0) -> dict[str, Any]:
    """Give a probe or hook of two programs that counts its runs itself."""
    script = f"echo >>/runs/{name}; cat /dev/null {name}; exit {code}"
    return {"exec": {"command": ["bash", "-c", script]}}


COUNTED: dict[str, Any] = {
    "name": "counted",
    "volumes": [{"name": "runs", "hostPath": {"path": "/root/runs", "type": "DirectoryOrCreate"}}],
    # By the time it has ended the agent knows the pod.
    "initContainers": [{**MAIN, "name": "before", "command": ["sleep", "1"]}],
    "containers": [
        {
            **MAIN,
            "volumeMounts": [RUNS],
            "startupProbe": {**runs("startup"), **OFTEN},
            "livenessProbe": {**runs("liveness"), **OFTEN},
            "readinessProbe": {**runs("readiness", 1), **OFTEN},
            "lifecycle": {"postStart": runs("postStart")},
        }
    ],
}
OTHERS: list[dict[str, Any]] = [
    {
        "name": "again",
        "volumes": [{"name": "runs", "emptyDir": {}}],
        "containers": [
            {
                **MAIN,
                "command": ["bash", "-c", TWICE],
                "volumeMounts": [RUNS],
                "startupProbe": {"exec": {"command": ["cat", "/etc/hostname"]}, **OFTEN},
                "lifecycle": {"postStart": {"exec": {"command": ["cat", "/etc/shells"]}}},
            }
        ],
    },
    {"name": "small", "containers": [{**MAIN, "image": recipes.BUSYBOX}]},
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
        text = path.read_bytes() if path.exists() else b""
        # The last line may be under way.
        return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]

    def start(self, options: str) -> None:
        """Start the agent as a service does."""
        (self.cluster.root(self.cluster.masters[0]) / "root/agent.conf").write_text(
            CONFIG + options
        )
        self.on_node(
            "systemd-run --quiet --unit=agent --property=Delegate=yes --property=Type=notify "
            "python3 -I /root/exectrail-agent.pyz run --config /root/agent.conf"
        )

    def entries(self, word: str, least: int = 1, **fields: Any) -> list[dict[str, Any]]:
        """Wait for so many accesses whose command has the word in it."""
        deadline = time.monotonic() + 20
        while True:
            every = [each for each in self.records() if each["kind"] == "Kubernetes"]
            mine = [each for each in every if word in each.get("entry.cmdline", "")]
            found = [each for each in mine if fields.items() <= each.items()]
            if len(found) >= least:
                return found
            assert time.monotonic() < deadline, [each.get("entry.cmdline") for each in every]
            time.sleep(0.2)

    def entry(self, word: str) -> dict[str, Any]:
        """Wait for the access whose command has the word in it."""
        return self.entries(word)[-1]

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
        seen = Watched(made)
        seen.start("probes = full\n")
        pods = yaml.safe_dump_all([POD, *(pod(**each) for each in OTHERS)])
        kubectl(made, "apply", "-f", "-", stdin=pods.encode())
        kubectl(made, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        yield seen


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def calm(container: str, ran: Path) -> Callable[[], bool]:
    """Tell whether nothing has run in a container from outside for two seconds."""
    seen: list[str] = []
    since = time.monotonic()

    def check() -> bool:
        nonlocal seen, since
        now = [f"{path.name} {len(lines(path))}" for path in sorted(ran.iterdir())]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if any(">>/runs/" in word for word in words) or {"exec", container} <= {*words}:
                    now.append(path.parent.name)
        if now != seen or now[-1].isdigit():
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 2

    return check


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
    ("word", "probe"), [("/etc/group", "liveness"), ("/etc/passwd", "readiness")]
)
def test_probes(watched: Watched, word: str, probe: str) -> None:
    entry = watched.entry(word)

    assert (entry["entry.type"], entry["entry.probe"]) == ("probe", probe)


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
    script = "cat /etc/issue.net; sleep 5"
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


def test_somebody_who_only_joins_the_control_group(watched: Watched) -> None:
    groups = f"find /sys/fs/cgroup -path '*{watched.container('web')}*' -name cgroup.procs"
    join = f"for group in $({groups}); do echo $$ >$group; done"
    watched.on_node(f"{join}; exec cat /proc/uptime >/dev/null")
    entry = watched.entry("/proc/uptime")

    assert (entry["entry.type"], entry["entry.confidence"]) == ("unknown", 0.5)
    assert "without a known runtime" in entry["entry.reason"]
    assert entry["k8s.pod.name"] == "web"


def test_applets_of_busybox(watched: Watched) -> None:
    script = "cat /dev/null applet; (head -n 1 /etc/passwd); busybox sleep 0; exit 4"
    command = kubectl_command(watched.cluster, "exec", "small", "--", "sh", "-c", script)
    done = subprocess.run(command, capture_output=True, check=False)
    session = watched.session(watched.entry("applet"))

    assert done.returncode == 4
    programs = [each for each in session if each["kind"] == "Command"]
    # What the shell runs by itself, as `head` in its child here, is no program.
    assert [(each["process.name"], each["process.args"]) for each in programs] == [
        ("sh", ["sh", "-c", script]),
        ("cat", ["cat", "/dev/null", "applet"]),
        ("busybox", ["busybox", "sleep", "0"]),
    ]
    assert {each["process.executable"] for each in programs} == {"/bin/busybox"}


@pytest.mark.parametrize(
    ("word", "probe", "kind"),
    [("/etc/hostname", "startup", "probe"), ("/etc/shells", "postStart", "hook")],
)
def test_what_runs_at_each_start_of_a_container(
    watched: Watched, word: str, probe: str, kind: str
) -> None:
    first, second = watched.entries(word, 2, **{"k8s.pod.name": "again"})[:2]

    # The first may come before the API server has told of the pod, and is no surer than that.
    early = first["entry.type"] == "exec" and first["entry.confidence"] <= 0.6
    assert early or (first["entry.type"], first["entry.probe"]) == (kind, probe)
    assert (second["entry.type"], second["entry.probe"]) == (kind, probe)


def test_what_a_workload_does_by_itself_is_no_access(watched: Watched) -> None:
    entries = {each["entry.cmdline"] for each in watched.records() if each["kind"] == "Kubernetes"}

    assert not [each for each in entries if "kube-" in each or "/pause" in each or "etcd" in each]


def test_a_hook_at_the_end(watched: Watched) -> None:
    kubectl(watched.cluster, "delete", "pod", "web", "--timeout=60s")
    entry = watched.entry("/etc/gai.conf")

    assert (entry["entry.type"], entry["entry.probe"]) == ("hook", "preStop")


def test_a_session_that_is_older_than_the_agent(watched: Watched) -> None:
    shell = Shell(watched.cluster, "heard")
    try:
        shell.run("early")
        watched.on_node("systemctl stop agent && rm -r /sys/fs/bpf/exectrail")
        watched.start("probes = full\n")
        shell.run("late")
        assert shell.end() == 0
    finally:
        shell.kill()
    (entry,) = watched.entries("", recovered=True)

    assert (entry["entry.type"], entry["entry.confidence"]) == ("unknown", 0.2)
    assert entry["k8s.pod.name"] == "heard"
    assert watched.commands(entry) == [["cat", "/dev/null", "late"]]


def test_probes_and_hooks_are_counted_by_default(watched: Watched) -> None:
    watched.on_node("systemctl stop agent")
    known = len(watched.records())
    watched.start("")
    kubectl(watched.cluster, "apply", "-f", "-", stdin=yaml.safe_dump(pod(**COUNTED)).encode())
    ran = watched.cluster.root(watched.cluster.masters[0]) / "root/runs"
    try:
        wait(lambda: len(lines(ran / "liveness")) > 1, 120, "two runs")
        # Nobody begins another run then, and those under way come to their end.
        watched.on_node("systemctl kill -s STOP kubelet")
        wait(calm(watched.container("counted"), ran), 60, "no run is under way")
        watched.on_node("systemctl stop agent")
        counts = {path.name: len(lines(path)) for path in ran.iterdir()}
    finally:
        watched.on_node("systemctl kill -s CONT kubelet")
    mine = [each for each in watched.records()[known:] if each.get("k8s.pod.name") == "counted"]
    watched.start("probes = full\n")

    assert {each["kind"] for each in mine} == {"Throttle"}
    told = {
        each["throttle.probe"]: [
            each["throttle.reason"],
            *(each[f"throttle.{name}"] for name in ("runs", "count", "failures")),
        ]
        for each in mine
    }
    assert len(told) == len(mine)
    assert told == {
        "postStart": ["hook", counts["postStart"], 2 * counts["postStart"], 0],
        "startup": ["probe", counts["startup"], 2 * counts["startup"], 0],
        "liveness": ["probe", counts["liveness"], 2 * counts["liveness"], 0],
        "readiness": ["probe", counts["readiness"], 2 * counts["readiness"], counts["readiness"]],
    }


def test_every_line_is_what_its_schema_says_and_nothing_is_missing(watched: Watched) -> None:
    watched.on_node("python3 -I /root/exectrail-agent.pyz status --config /root/agent.conf")
    records = watched.records()
    for record in records:
        path = ROOT / f"docs/reference/records/{record['kind'].lower()}.schema.json"
        Draft202012Validator(json.loads(path.read_text())).validate(record)

    assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
    assert [record for record in records if record["kind"] == "Loss"] == []
    assert "canary" in {record.get("health.cause") for record in records}
