"""The installed agent beside Docker, containerd and Podman, which came to its node after it."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.vm.machine import Machine, machine
from lab.vm.ssh import Completed, Shell
from tests.e2e.fleet import Fleet, build_agent
from tests.unit.agent.world import check_line

pytestmark = pytest.mark.vm

LOG = "/var/log/exectrail/advaudit.log"
PACKAGES = (
    *("apparmor", "busybox-static", "containerd", "crun", "dbus-user-session", "docker-cli"),
    *("docker.io", "passt", "podman", "runc", "uidmap"),
)
# No registry is asked: the image is what it takes to run a shell.
PREPARE = f"""
set -e
apt-get -q update -o Acquire::Languages=none
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
    -o Dpkg::Options::=--force-unsafe-io {" ".join(PACKAGES)}
mkdir -p /root/image/bin
cp /bin/busybox /root/image/bin
ln -s busybox /root/image/bin/sh
tar -C /root/image -cf /tmp/image.tar .
useradd --create-home --shell /bin/bash jane
loginctl enable-linger jane
docker import /tmp/image.tar demo:1
docker save demo:1 | ctr --namespace demo image import -
podman import /tmp/image.tar demo:1
until [ -e /run/user/$(id -u jane)/bus ]; do sleep 0.5; done
"""
OWN = "while :; do /bin/busybox sleep 1; done"
"""What a container does by itself."""
LINE = f"sh -c {shlex.quote(OWN)}"
BRIEF = "/bin/busybox sleep 0.5"
SURE = {1, 0.5}
"""The lower one where the runtime has ended at that very moment."""
HELD = 3
"""Seconds after which nothing waits for its container any more."""
Told = dict[str, Any]


def jane(command: str) -> str:
    """A command of a user without privileges, who has logged in."""
    there = f"XDG_RUNTIME_DIR=/run/user/$(id -u) {command}"
    return shlex.join(["su", "--login", "jane", "--command", there])


@dataclass(frozen=True)
class Kind:
    """How one runtime starts containers and enters them, and what its records have.

    Of each command `{}` is the container's name.
    """

    runtime: str
    name: str
    image: str
    start: str
    enter: str
    by: Callable[[str], str] = str

    def run(self, name: str, options: str, command: str) -> str:
        return self.by(f"{self.start.format(options=options, name=name)} {command}")

    def execute(self, command: str, options: str = "") -> str:
        return self.by(f"{self.enter.format(options=options, name=self.name)} {command}")


DOCKER = Kind(
    *("docker", "web", "demo:1"),
    "docker run {options} --name {name} demo:1",
    "docker exec {options} {name}",
)
PODMAN = Kind(
    *("podman", "shop", "localhost/demo:1"),
    "podman run {options} --network none --name {name} localhost/demo:1",
    "podman exec {options} {name}",
)
JANES = Kind(
    *("podman", "janes", "localhost/demo:1"),
    "podman run {options} --name {name} localhost/demo:1",
    "podman exec {options} {name}",
    jane,
)
CONTAINERD = Kind(
    *("containerd", "plain", ""),
    "ctr --namespace demo run {options} docker.io/library/demo:1 {name}",
    "ctr --namespace demo task exec {options} --exec-id by-hand {name}",
)
KINDS = {"docker": DOCKER, "podman": PODMAN, "podman of a user": JANES, "containerd": CONTAINERD}


@dataclass
class Node:
    """A machine with the agent and every runtime; each has one container that runs.

    - `ids`: of these containers.
    - `asked`: the sessions of which a test knows that there are to be.
    """

    machine: Machine
    shell: Shell
    ids: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def run(self, command: str, *, check: bool = True, timeout: float = 120) -> Completed:
        return self.shell.run(command, check=check, timeout=timeout)

    @contextmanager
    def beside(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command that goes on meanwhile."""
        running = subprocess.Popen(self.machine.ssh_command([command]), stdin=subprocess.DEVNULL)
        try:
            yield running
        finally:
            running.kill()
            running.wait()

    def records(self) -> list[Told]:
        text = self.run(f"cat {LOG}").stdout
        # The last line may be under way.
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def access(self, word: str) -> Told:
        """Wait for the one access whose command has the word in it."""
        deadline = time.monotonic() + 30
        while True:
            every = [each for each in self.records() if each["kind"] == "Kubernetes"]
            found = [each for each in every if word in each.get("entry.cmdline", "")]
            if found:
                (one,) = found
                self.asked.append(one["traceId"])
                return one
            assert time.monotonic() < deadline, [each.get("entry.cmdline") for each in every]
            time.sleep(0.5)

    def session(self, access: Told) -> list[Told]:
        """Wait for the end of an access; give its records."""
        deadline = time.monotonic() + 30
        while True:
            mine = [each for each in self.records() if each.get("traceId") == access["traceId"]]
            if mine[-1]["kind"] == "SessionEnd":
                return mine
            assert time.monotonic() < deadline, mine
            time.sleep(0.5)

    def accesses(self) -> list[str]:
        """Give the commands of all accesses that no test has asked for."""
        return [
            f"{each['container.id']}: {each['entry.cmdline']}"
            for each in self.records()
            if each["kind"] == "Kubernetes" and each["traceId"] not in self.asked
        ]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("runtimes")
    archive = build_agent(folder / "exectrail-agent.pyz")
    with machine("runtimes", "debian13") as one, one.shell() as shell:
        inventory = {"workers": {"hosts": {one.image: one.inventory_variables()}}}
        fleet = Fleet(folder, {"all": {"children": inventory}}, exec_agent_file=str(archive))
        fleet.play("exec_agent").good()
        made = Node(one, shell)
        made.run(PREPARE, timeout=900)
        made.run(jane("podman import /tmp/image.tar demo:1"))
        for kind in KINDS.values():
            said = made.run(kind.run(kind.name, "--detach", LINE)).stdout.strip()
            made.ids[kind.name] = said or kind.name
        yield made


def judge(node: Node, kind: Kind, access: Told, *, seated: bool = False) -> None:
    """Judge what an access says of its container and of the way into it."""
    assert access["entry.type"] == "runtime-exec"
    assert access["entry.confidence"] in SURE
    assert access["entry.tty"] is seated
    assert access["container.runtime"] == kind.runtime
    assert (access["container.name"], access["container.id"]) == (kind.name, node.ids[kind.name])
    assert access.get("container.image", "") == kind.image
    assert [key for key in access if key.startswith(("k8s", "kube")) or "unresolved" in key] == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [*((each, "") for each in KINDS.values()), (DOCKER, "-t")],
    ids=[*KINDS, "docker with a terminal"],
)
def test_somebody_who_enters_a_container(node: Node, kind: Kind, options: str) -> None:
    word = f"{kind.name}{options}"
    script = f"echo one; /bin/busybox true {word}; /bin/busybox false; exit 3"
    done = node.run(kind.execute(f"sh -c {shlex.quote(script)}", options), check=False)
    access = node.access(f"true {word};")
    session = node.session(access)

    assert (done.returncode, done.stdout.strip()) == (3, "one"), done.stderr
    judge(node, kind, access, seated=bool(options))
    assert access.get("process.tty", "").startswith("pts/" if options else "")
    programs = [each for each in session if each["kind"] == "Command"]
    assert [(each["process.name"], each["process.args"]) for each in programs] == [
        ("sh", ["sh", "-c", script]),
        ("busybox", ["/bin/busybox", "true", word]),
        ("busybox", ["/bin/busybox", "false"]),
    ]
    shell = programs[0]["eventId"]
    assert [each["parentEventId"] for each in programs] == [access["eventId"], shell, shell]
    codes = {each["eventId"]: each["exit.code"] for each in session if "exit.code" in each}
    assert [codes[each["eventId"]] for each in programs] == [3, 0, 1]
    assert session[-1]["session.commands"] == len(programs)
    assert session[-1]["container.name"] == kind.name


def test_somebody_who_enters_by_the_low_level_runtime(node: Node) -> None:
    """Without a monitor between them, as CRI-O does for `kubectl exec`."""
    crun = f"crun exec {node.ids['shop']}"
    node.run(f"{crun} /bin/busybox true by-crun")
    access = node.access("by-crun")

    assert (access["entry.type"], access["entry.parentname"]) == ("runtime-exec", "crun")
    assert (access["container.runtime"], access["container.name"]) == ("podman", "shop")


def test_what_is_confined_by_apparmor_is_told_too(node: Node) -> None:
    """The containers of root have Docker's and Podman's own profiles here, enforced."""
    for kind in (DOCKER, PODMAN):
        pid = node.run(f"{kind.runtime} inspect --format '{{{{.State.Pid}}}}' {kind.name}").stdout
        assert "(enforce)" in node.run(f"cat /proc/{pid.strip()}/attr/current").stdout
        word = f"confined-{kind.name}"
        node.run(kind.execute(f"sh -c '/bin/busybox sleep 2; : {word}'"))
        access = node.access(word)
        judge(node, kind, access)
        programs = [each for each in node.session(access) if each["kind"] == "Command"]
        assert [each["process.args"][0] for each in programs] == ["sh", "/bin/busybox"]
        # Nothing is hidden of what runs long enough to be looked at, as its runtime may not.
        hidden = [why for each in programs for why in each.get("unknown", ())]
        assert [why for why in hidden if not why.startswith("parent.")] == []
    assert 'apparmor="DENIED"' not in node.run("journalctl --dmesg").stdout
    assert node.run("exectrail-agent status", check=False).returncode == 0


def test_the_user_ids_of_a_users_container_are_the_nodes(node: Node) -> None:
    user = int(node.run("id -u jane").stdout)
    first = int(node.run("grep ^jane: /etc/subuid").stdout.split(":")[1])
    node.run(JANES.execute("/bin/busybox true as-root"))
    node.run(JANES.execute("/bin/busybox true as-five", "--user 5"))

    # In her container she is root, and 1 is the first of the ids that she may give away.
    for word, expected in {"as-root": user, "as-five": first + 4}.items():
        access = node.access(word)
        (program,) = [each for each in node.session(access) if each["kind"] == "Command"]
        assert access["process.user.uid"] == program["process.user.uid"] == expected


def test_somebody_who_enters_by_nsenter(node: Node) -> None:
    pid = node.run("docker inspect --format '{{.State.Pid}}' web").stdout.strip()
    node.run(f"nsenter -t {pid} -m -p -u -n -i -- /bin/busybox true by-nsenter")
    access = node.access("by-nsenter")

    assert (access["entry.type"], access["entry.confidence"]) == ("nsenter", 1)
    assert (access["container.name"], access["container.id"]) == ("web", node.ids["web"])
    kinds = [each["kind"] for each in node.session(access)]
    assert kinds == ["Kubernetes", "Command", "CommandExit", "SessionEnd"]


def test_containers_of_half_a_second_are_no_accesses(node: Node) -> None:
    for kind in KINDS.values():
        node.run(kind.run("brief", "--rm", BRIEF))
    time.sleep(HELD)

    assert node.accesses() == []


def test_docker_health_checks_are_counted(node: Node) -> None:
    check = "echo >>/runs/check; /bin/busybox true; exit 1"
    health = f"--health-cmd {shlex.quote(check)} --health-interval 1s --volume /root/runs:/runs"
    node.run(DOCKER.run("checked", f"--detach {health}", LINE))
    runs = "cat /root/runs/check | wc -l"
    deadline = time.monotonic() + 60
    while int(node.run(runs).stdout) < 3:
        assert time.monotonic() < deadline
        time.sleep(1)
    # Nobody begins another run then, and the one under way comes to its end.
    node.run("systemctl kill --signal STOP docker && sleep 3")
    try:
        count = int(node.run(runs).stdout)
        node.run("systemctl stop exectrail-agent")
    finally:
        node.run("systemctl kill --signal CONT docker")
        node.run("docker rm --force checked")
        node.run("systemctl start exectrail-agent")
    told = [each for each in node.records() if each.get("container.name") == "checked"]

    (probe,) = told
    assert (probe["kind"], probe["throttle.reason"]) == ("Throttle", "probe")
    assert probe["throttle.probe"] == "health"
    assert probe["process.args"] == ["/bin/sh", "-c", check]
    # With a shell, each is two programs.
    assert [probe[f"throttle.{each}"] for each in ("runs", "count", "failures")] == [
        count,
        2 * count,
        count,
    ]


@pytest.mark.parametrize("end", ["docker restart", "docker stop"])
def test_a_session_ends_with_its_container(node: Node, end: str) -> None:
    word = f"98{len(end)}"
    with node.beside(DOCKER.execute(f"/bin/busybox sleep {word}")) as running:
        access = node.access(word)
        node.run(f"{end} -t 1 web")
        code = running.wait(30)
    session = node.session(access)
    node.run("docker start web")
    node.run(DOCKER.execute(f"/bin/busybox true after-{word}"))
    again = node.access(f"after-{word}")

    assert code != 0
    judge(node, DOCKER, access)
    assert [each["kind"] for each in session][-2:] == ["CommandExit", "SessionEnd"]
    assert session[-2]["exit.signal"] == 9
    judge(node, DOCKER, again)
    node.session(again)


def test_all_is_told_and_nothing_else(node: Node) -> None:
    time.sleep(HELD)
    status = node.run("exectrail-agent status", check=False)
    text = node.run(f"cat {LOG}").stdout
    records = [check_line(line) for line in text.splitlines(keepends=True)]

    assert status.returncode == 0, status.stdout
    assert [each["seq"] for each in records] == list(range(1, len(records) + 1))
    assert [each for each in records if each["kind"] == "Loss"] == []
    assert [each for each in records if "container.unresolved" in each] == []
    # Neither what starts containers, nor what they do by themselves.
    assert node.accesses() == []
    sessions = {each["traceId"] for each in records if "traceId" in each}
    assert sessions == set(node.asked)
