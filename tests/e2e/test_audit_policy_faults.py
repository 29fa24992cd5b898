"""The roll-out on a real cluster where something goes wrong: afterwards every API server serves.

Faults of a single master are tried on the cluster's three masters at once, each with an inventory
of its own: nearly all the time goes into waiting for the kubelet.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import podman
from lab.cluster.kubeadm import kubectl
from lab.cluster.layout import Cluster, Node
from lab.cluster.lifecycle import cluster
from tests.e2e.rollout import (
    LOGS,
    MANIFEST,
    MANIFESTS,
    POLICY,
    STAGED,
    STATE,
    Ambush,
    Ended,
    Gate,
    Run,
    Seen,
    Trap,
    await_ready,
    kubelet,
    on,
    replace,
    restart,
    server,
    wait,
    write_inventory,
)

DORMANT = "--audit-log-format=bogus"
"""Means nothing to the server until it has a log."""
CRASHING = {"audit_policy_start_timeout": 40, "audit_policy_ready_timeout": 10}
"""A server that ends at once may be seen as started, or never."""
BACK = "The old manifest and policy are back and the API server is ready."
OTHERS = "Other masters were not touched."
EVIDENCE = ("cause.txt", "manifest.diff", "kube-apiserver.log", "kubelet.log")


@dataclass(frozen=True)
class Master:
    """One master, and an inventory in which it is the only one."""

    made: Cluster
    node: Node
    inventory: Path
    folder: Path

    @property
    def root(self) -> Path:
        return self.made.root(self.node)

    def start(self, *options: str, **variables: str | int) -> Run:
        report = self.folder / f"{self.node.name}-{time.monotonic_ns()}"
        return Run(self.inventory, report, *options, **variables)

    def run(self, **variables: str | int) -> Ended:
        return self.start(**variables).end()

    def on(self, *command: str) -> str:
        return on(self.made, self.node, *command)

    def seen(self) -> Seen:
        return Seen.of(self.made, self.node)

    def after_swap(self, act: Callable[[], object]) -> Trap:
        """Act when the manifest is replaced, which is seconds before the new server starts."""
        manifest = self.root / MANIFEST
        old = manifest.stat().st_ino
        return Trap(lambda: manifest.stat().st_ino != old, act)

    @contextmanager
    def mount(self, *what: str) -> Iterator[None]:
        """Mount something over the log folder."""
        (self.root / LOGS).mkdir(mode=0o700, exist_ok=True)
        self.on("mount", *what, f"/{LOGS}")
        try:
            yield
        finally:
            self.on("umount", f"/{LOGS}")


def as_before(master: Master, before: Seen) -> None:
    """The old settings are in force; there is no second manifest and nothing half done."""
    await_ready(master.made, master.node)
    now = master.seen()
    assert now == before
    assert [name for name in now.manifests if "apiserver" in name] == ["kube-apiserver.yaml"]
    assert not (master.root / STAGED).exists()


def taken_back(master: Master, before: Seen, ended: Ended, *words: str) -> None:
    assert ended.code != 0, ended.text
    evidence = ended.report / "evidence" / master.node.name
    for each in (*words, BACK, str(evidence)):
        assert each in ended.text
    for name in EVIDENCE:
        assert (evidence / name).stat().st_size, name
    as_before(master, before)


def refused(ended: Ended, *words: str) -> None:
    assert ended.code != 0, ended.text
    for each in ("No master was touched", *words):
        assert each in ended.text


@pytest.fixture(scope="module")
def trio() -> Iterator[Cluster]:
    with cluster("test-faults", masters=3, workers=0) as made:
        last = made.masters[2]
        text = (made.root(last) / MANIFEST).read_text()
        flag = "    - --tls-private-key-file="
        restart(made, last, text.replace(flag, f"    - {DORMANT}\n{flag}", 1))
        wait(lambda: (found := server(last)) and DORMANT in found[1], 90, "it has the flag")
        await_ready(made, last)
        yield made


@pytest.fixture
def masters(trio: Cluster, tmp_path: Path) -> list[Master]:
    """The masters with the inventory of the whole cluster; all serve before and afterwards."""
    inventory = write_inventory(trio, trio.masters, tmp_path / "masters.yml")
    for node in trio.masters:
        await_ready(trio, node)
    return [Master(trio, node, inventory, tmp_path) for node in trio.masters]


# --- the whole cluster ------------------------------------------------------------------------


def test_a_failure_on_the_first_master_leaves_the_others_untouched(masters: list[Master]) -> None:
    before = [each.seen() for each in masters]
    ended = masters[0].run(audit_policy_start_timeout=1)
    taken_back(masters[0], before[0], ended, "audit_policy_start_timeout", OTHERS)
    for each, then in zip(masters[1:], before[1:], strict=True):
        assert each.seen().untouched == then.untouched
        assert not (each.root / STATE / "rollout.json").exists()


def test_two_runs_at_once_with_a_limit(masters: list[Master]) -> None:
    """One goes through and says that other masters differ, the other one names it."""
    before = [each.seen() for each in masters]
    # Long enough for a third to come while the first is at it.
    lasts = {"audit_policy_stable_seconds": 15}
    both = [masters[1].start("--limit", masters[1].node.name, **lasts) for _ in range(2)]
    wait(lambda: any(each.process.poll() is not None for each in both), 60, "one is refused")
    loser, winner = sorted(both, key=lambda each: each.process.poll() is None)
    late = Run(masters[1].inventory, winner.report, "--limit", masters[1].node.name).end()
    assert late.code != 0
    assert "with the same folder" in late.text
    first, second = winner.end(), loser.end()
    assert second.code != 0, second.text
    assert "another run is active" in second.text
    for text in (second.text, late.text):
        assert f" pid {winner.process.pid} " in text
    assert first.code == 0, first.text
    others = f"{masters[0].node.name}, {masters[2].node.name}"
    assert f"different from these settings: {others}" in first.text
    await_ready(masters[1].made, masters[1].node)
    assert masters[1].seen().flag("audit-policy-file") == f"/{POLICY}"
    for place in (0, 2):
        assert masters[place].seen().untouched == before[place].untouched
    assert not (masters[0].root / STATE / "lock.json").exists()


def crashed(master: Master, words: str) -> bool:
    logs = (master.root / "var/log/pods").glob("kube-system_kube-apiserver-*/kube-apiserver/*.log")
    for log in logs:
        # The kubelet removes those of containers that it has replaced.
        with suppress(FileNotFoundError):
            if f"Error: unknown flag: --{words}" in log.read_text():
                return True
    return False


def test_an_api_server_that_crashes_all_the_time(masters: list[Master]) -> None:
    made, broken = masters[1].made, masters[1]
    before = [each.seen() for each in masters]
    good = before[1].manifest.decode()
    flaw = good.replace("    - --secure-port", "    - --no-such-flag=1\n    - --secure-port")
    restart(made, broken.node, flaw)
    try:
        wait(lambda: crashed(broken, "no-such-flag"), 40, "the API server crashes")
        ended = broken.run()
    finally:
        restart(made, broken.node, good)
    refused(ended, f"{broken.node.name}: the API server ")
    for place in (0, 2):
        assert masters[place].seen().untouched == before[place].untouched
        assert f"{masters[place].node.name}: the API server" not in ended.text
    await_ready(made, broken.node)
    as_before(broken, before[1])


def test_one_of_three_masters_is_down(masters: list[Master]) -> None:
    made, lost = masters[2].made, masters[2]
    before = [each.seen() for each in masters]
    podman.podman("kill", made.container(lost.node))
    try:
        # That it is tried again takes long, and shows nothing.
        ended = lost.run(ansible_ssh_retries=0)
    finally:
        podman.podman("start", made.container(lost.node))
    refused(ended, f"{lost.node.name}: it does not answer")
    for each, then in zip(masters[:2], before[:2], strict=True):
        assert each.seen().untouched == then.untouched
    await_ready(made, lost.node)
    as_before(lost, before[2])


# --- one master at a time, three at once ------------------------------------------------------


class Lanes:
    """Tries the faults that were asked for, in their order, on whichever master is free."""

    def __init__(self, free: list[Master], jobs: list[tuple[Any, ...]]) -> None:
        self._results: dict[tuple[Any, ...], Future[None]] = {job: Future() for job in jobs}
        self._jobs: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        for job in jobs:
            if job[0] not in OWN:
                self._jobs.put(job)
        self._threads = [
            threading.Thread(
                target=self._work, args=(each, [job for job in jobs if OWN.get(job[0]) == lane])
            )
            for lane, each in enumerate(free)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, master: Master, own: list[tuple[Any, ...]]) -> None:
        while True:
            try:
                job = own.pop(0) if own else self._jobs.get_nowait()
            except queue.Empty:
                return
            try:
                # A server that has just been restarted is not taken for well.
                await_ready(master.made, master.node, lasting=10)
                fault, *case = job
                fault(master, *case)
            except BaseException as error:  # noqa: BLE001 - raised in the test that it belongs to
                self._results[job].set_exception(error)
            else:
                self._results[job].set_result(None)

    def result(self, *job: Any) -> None:
        self._results[job].result()

    def end(self) -> None:
        while not self._jobs.empty():
            self._jobs.get()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def lanes(
    trio: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lanes]:
    # Runs on different masters would change it under each other's hands.
    gone = ("configmap", "kubeadm-config", "--namespace=kube-system", "--ignore-not-found")
    kubectl(trio, "delete", *gone)
    folder = tmp_path_factory.mktemp("lanes")
    free = [
        Master(trio, node, write_inventory(trio, [node], folder / f"{node.name}.yml"), folder)
        for node in trio.masters
    ]
    jobs = []
    for item in request.session.items:
        fault = getattr(getattr(item, "function", None), "fault", None)
        if isinstance(item, pytest.Function) and fault and item.module is request.module:
            case = item.callspec.params if hasattr(item, "callspec") else {}
            jobs.append((fault, *case.values()))
    if (test_a_flag_that_the_server_refuses.fault,) not in jobs:
        remove_dormant(free[2])
    working = Lanes(free, jobs)
    try:
        yield working
    finally:
        working.end()


def on_a_master(fault: Callable[[Master], None]) -> Any:
    """Make a test of a function that tries a fault on one master."""

    def test(lanes: Lanes) -> None:
        lanes.result(fault)

    test.__name__ = fault.__name__
    test.__doc__ = fault.__doc__
    test.fault = fault  # type: ignore[attr-defined]
    return test


def on_a_master_each(*cases: tuple[str, ...]) -> Callable[[Callable[..., None]], Any]:
    """Do the same for several cases."""

    def decorate(fault: Callable[..., None]) -> Any:
        def test(lanes: Lanes, case: tuple[str, ...]) -> None:
            lanes.result(fault, case)

        test.__name__ = fault.__name__
        test.__doc__ = fault.__doc__
        test.fault = fault  # type: ignore[attr-defined]
        return pytest.mark.parametrize("case", cases, ids=["-".join(each) for each in cases])(test)

    return decorate


@on_a_master
def test_a_flag_that_the_server_refuses(master: Master) -> None:
    before = master.seen()
    assert DORMANT in before.arguments
    try:
        ended = master.run(**CRASHING)
        taken_back(master, before, ended, "Its last words:", "bogus")
    finally:
        remove_dormant(master)


def remove_dormant(master: Master) -> None:
    manifest = (master.root / MANIFEST).read_text()
    restart(master.made, master.node, manifest.replace(f"    - {DORMANT}\n", ""))
    # Not to be taken for ready before the old server has ended.
    wait(lambda: (found := server(master.node)) and DORMANT not in found[1], 60, "it is gone")


def is_dead(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def cut(master: Master, ambush: Callable[[Callable[[], object]], Ambush], **wanted: int) -> Ended:
    """Pull the plug at the moment that the ambush is for, and put it in again."""
    container = master.made.container(master.node)
    pid = int(podman.podman("inspect", "--format={{.State.Pid}}", container))

    def off() -> None:
        os.kill(pid, signal.SIGKILL)
        # Whoever is held up must not get on before the kill has reached him; the node's first
        # process is the last to be dead.
        wait(lambda: is_dead(pid), 30, "all of the node's processes are dead")

    with ambush(off) as lurking:
        run = master.start(**wanted)
        wait(lambda: lurking.sprung, 60, "the power is cut")
    manifest = (master.root / MANIFEST).read_bytes()
    wait(lambda: not podman_running(container), 20, "the node is off")
    podman.podman("start", container)
    assert (master.root / MANIFEST).read_bytes() == manifest
    return run.end()


def podman_running(container: str) -> bool:
    return podman.podman("inspect", "--format={{.State.Running}}", container).strip() == "true"


def completes(master: Master, manifests: list[str], **wanted: int) -> None:
    """Run again: the settings are in force, once, and nothing half done is left."""
    await_ready(master.made, master.node, lasting=10)
    ended = master.run(**wanted)
    assert ended.code == 0, ended.text
    now = master.seen()
    for name, value in wanted.items():
        flag = name.removeprefix("audit_policy_").replace("_", "-")
        assert [word for word in now.arguments if word.startswith(f"--audit-{flag}=")] == [
            f"--audit-{flag}={value}"
        ]
    await_ready(master.made, master.node)
    assert now.manifests == manifests
    assert not (master.root / STAGED).exists()


@on_a_master
def test_power_fails_between_copy_and_rename(master: Master) -> None:
    before, state, staged = master.seen(), master.root / STATE, master.root / STAGED
    state.mkdir(mode=0o700, exist_ok=True)
    # The worker notes that the manifest is staged before it renames it.
    ended = cut(
        master,
        lambda off: Gate(state, ".rollout.json.new", staged.exists, off),
        audit_policy_log_maxage=40,
    )
    assert ended.code != 0, ended.text
    assert staged.exists()
    await_ready(master.made, master.node)
    now = master.seen()
    assert now == dataclasses.replace(before, policy=now.policy, pid=0, written=0.0)
    completes(master, before.manifests, audit_policy_log_maxage=40)


@on_a_master
def test_power_fails_right_after_the_rename(master: Master) -> None:
    before, manifest = master.seen(), master.root / MANIFEST
    ended = cut(master, master.after_swap, audit_policy_log_maxage=50)
    assert ended.code != 0, ended.text
    assert manifest.read_bytes() != before.manifest
    completes(master, before.manifests, audit_policy_log_maxage=50)


OWN = {
    # Two nodes off at once would leave the third without etcd.
    test_power_fails_between_copy_and_rename.fault: 0,
    test_power_fails_right_after_the_rename.fault: 0,
    test_a_flag_that_the_server_refuses.fault: 2,
}
"""Faults that are for one master: its position."""


STEPS = {
    "saved": "manifest and policy are saved",
    "policy": "the policy is in place",
    "staged": "the manifest is staged",
    "swapped": "the manifest is in place",
    "started": "the new API server has started",
    "ready": "the new API server is ready",
    "stable": "the new API server lasts",
    "proven": "it has recorded a request of ours",
}


@on_a_master_each(
    ("saved", "swapped", "ready"), ("policy", "started", "stable"), ("staged", "proven")
)
def test_the_controller_is_killed(master: Master, case: tuple[str, ...]) -> None:
    """After a step, and the next run after another step of the same change: all steps in turn.

    The change waits on the node, with the step written down, until the next run is on its way.
    """
    wanted = {"audit_policy_log_maxage": 60 + list(STEPS).index(case[0])}
    before, state = master.seen(), master.root / STATE
    state.mkdir(mode=0o700, exist_ok=True)
    runs = [master.start(**wanted)]

    def kill(step: str) -> None:
        runs[-1].until(STEPS[step])
        runs[-1].kill()
        # It could not give it back: the next run must see that nobody holds it any more.
        assert " pid " in json.loads((state / "lock.json").read_text())["holder"]
        runs.append(master.start(**wanted))

    with ExitStack() as held:
        gates = [
            held.enter_context(
                Gate(
                    state, ".rollout.json.new", partial(stands_at, state, step), partial(kill, step)
                )
            )
            for step in case
        ]
        try:
            wait(lambda: all(gate.sprung for gate in gates), 120, "each run is killed")
        except AssertionError:
            runs[-1].kill()
            raise
    ended = runs[-1].end()
    assert ended.code == 0, ended.text
    now = master.seen()
    assert now.flag("audit-log-maxage") == str(wanted["audit_policy_log_maxage"])
    assert now.manifests == before.manifests
    changes = {run.parent for run in (master.root / STATE / "changes").glob("*/request.json")}
    assert len([each for each in changes if wanted_in(each, wanted)]) == 1
    again = master.run(**wanted)
    assert (again.code, again.changed) == (0, 0), again.text


def stands_at(state: Path, step: str) -> bool:
    """Whether the last step that a change has noted is this one."""
    journal = state / "rollout.json"
    return journal.exists() and bool(json.loads(journal.read_text())["steps"][-1][0] == step)


def wanted_in(change: Path, wanted: dict[str, int]) -> bool:
    flags = json.loads((change / "request.json").read_text())["wanted"]
    return bool(flags["audit-log-maxage"] == str(wanted["audit_policy_log_maxage"]))


@on_a_master
def test_a_policy_that_the_server_refuses(master: Master) -> None:
    before, policy = master.seen(), master.root / POLICY
    with master.after_swap(lambda: policy.write_text("kind: Junk\n")):
        ended = master.run(**CRASHING, audit_policy_log_maxage=2)
    taken_back(master, before, ended, "Its last words:", "audit policy")


@on_a_master
def test_the_policy_vanishes(master: Master) -> None:
    before, policy = master.seen(), master.root / POLICY
    with master.after_swap(policy.unlink):
        ended = master.run(audit_policy_start_timeout=18, audit_policy_log_maxage=3)
    taken_back(master, before, ended, "audit_policy_start_timeout", "hostPath type check failed")


@on_a_master
def test_the_log_folder_becomes_read_only(master: Master) -> None:
    """A folder that the old settings have no need of, or there would be no way back."""
    before = master.seen()
    logs = "/var/log/protected"

    def protect() -> None:
        master.on("mount", "--bind", logs, logs)
        master.on("mount", "-o", "remount,bind,ro", logs)

    (master.root / logs[1:]).mkdir()
    try:
        with master.after_swap(protect) as trap:
            ended = master.run(**CRASHING, audit_policy_log_path=f"{logs}/audit.log")
        assert trap.sprung
    finally:
        master.on("umount", logs)
    taken_back(master, before, ended, "Its last words:", f"{logs}/audit.log: read-only file")


@on_a_master
def test_the_log_file_system_fills_up(master: Master) -> None:
    before = master.seen()
    fill = f"head -c 100M /dev/zero > /{LOGS}/filler || true"
    with (
        master.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs"),
        master.after_swap(lambda: master.on("sh", "-c", fill)),
    ):
        ended = master.run(
            audit_policy_log_maxsize=1,
            audit_policy_log_maxbackup=1,
            audit_policy_probe_timeout=4,
        )
    taken_back(master, before, ended, "audit_policy_probe_timeout", "no space left on device")


@on_a_master
def test_the_server_is_slow(master: Master) -> None:
    before = master.seen()
    ended = master.run(audit_policy_ready_timeout=1, audit_policy_log_maxage=5)
    taken_back(master, before, ended, "audit_policy_ready_timeout", "within 1 s")


def lock_of(master: Master) -> int:
    """Which lock lies there: of a run, or of one that was killed."""
    lock = master.root / STATE / "lock.json"
    return lock.stat().st_ino if lock.exists() else 0


@on_a_master
def test_the_kubelet_is_stopped_during_the_change(master: Master) -> None:
    before, held = master.seen(), lock_of(master)
    pid = kubelet(master.node)

    def stop() -> None:
        # It must not see the new manifest any more.
        os.kill(pid, signal.SIGKILL)
        master.on("systemctl", "stop", "kubelet")

    # Once killed it must stay away, also while somebody asks systemd to stop it.
    drop_in = "/run/systemd/system/kubelet.service.d/stays-away.conf"
    lines = f"mkdir -p {Path(drop_in).parent}; printf '[Service]\\nRestart=no\\n' >{drop_in}"
    master.on("sh", "-c", f"{lines}; systemctl daemon-reload")
    try:
        with Trap(lambda: lock_of(master) != held, stop) as trap:
            ended = master.run(audit_policy_start_timeout=3, audit_policy_log_maxage=6)
        assert trap.sprung
        assert "the kubelet does not run" in ended.text
        assert master.seen().pid == before.pid
    finally:
        master.on("sh", "-c", f"rm {drop_in}; systemctl daemon-reload; systemctl start kubelet")
    taken_back(master, before, ended)


@on_a_master
def test_the_kubelet_was_stopped_before(master: Master) -> None:
    before = master.seen()
    master.on("systemctl", "stop", "kubelet")
    try:
        refused(master.run(audit_policy_log_maxage=7), "the kubelet does not run")
    finally:
        master.on("systemctl", "start", "kubelet")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_the_policy_path_is_a_directory(master: Master) -> None:
    before = master.seen()
    folder = master.root / "etc/kubernetes/taken.yaml"
    folder.mkdir()
    (folder / "somebody's").touch()
    ended = master.run(audit_policy_path="/etc/kubernetes/taken.yaml")
    (folder / "somebody's").unlink()
    folder.rmdir()
    refused(ended, "/etc/kubernetes/taken.yaml is a directory")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_the_log_folder_is_read_only(master: Master) -> None:
    before = master.seen()
    with master.mount("-t", "tmpfs", "-o", "ro", "tmpfs"):
        ended = master.run(audit_policy_log_maxage=8)
    refused(ended, "the log can't be written", f"/{LOGS} is not writable: a read-only file system")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_the_log_file_system_is_small(master: Master) -> None:
    before = master.seen()
    with master.mount("-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        ended = master.run(audit_policy_log_maxage=9)
    refused(ended, "the log may take 1100 MiB", "has room for 8 MiB", "audit_policy_log_maxbackup")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_the_state_folder_is_on_another_file_system(master: Master) -> None:
    before = master.seen()
    ended = master.run(audit_policy_state_dir="/dev/shm/exectrail")  # noqa: S108 - on the node
    refused(ended, "are on different file systems", "audit_policy_state_dir")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_a_stray_manifest(master: Master) -> None:
    before = master.seen()
    stray = master.root / MANIFESTS / "kube-apiserver.yaml~"
    replace(stray, "# what an editor has left\n")
    ended = master.run(audit_policy_log_maxage=10)
    stray.unlink()
    refused(ended, f"/{MANIFESTS}/kube-apiserver.yaml~ is another manifest of an API server")
    assert master.seen().untouched == before.untouched


@on_a_master
def test_the_lock_of_another_controller(master: Master) -> None:
    before, lock = master.seen(), master.root / STATE / "lock.json"
    lock.parent.mkdir(mode=0o700, exist_ok=True)
    holder = "operator@elsewhere pid 1 since 2"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    until = time.clock_gettime(time.CLOCK_BOOTTIME) + 7000
    begun = time.monotonic()
    lock.write_text(json.dumps({"run": "x", "holder": holder, "boot": boot, "until": until}))
    ended = master.run(audit_policy_log_maxage=11)
    lock.unlink()
    refused(ended, f"another run is active: {holder}")
    left = re.search(r"its lock ends in (\d+) s", ended.text)
    assert left
    assert 7000 - (time.monotonic() - begun) - 1 < int(left[1]) <= 7000
    assert master.seen().untouched == before.untouched


def test_all_masters_serve_in_the_end(lanes: Lanes, trio: Cluster) -> None:
    lanes.end()
    for node in trio.masters:
        await_ready(trio, node)
        names = sorted(each.name for each in (trio.root(node) / MANIFESTS).iterdir())
        assert [name for name in names if "apiserver" in name] == ["kube-apiserver.yaml"]
        running = server(node)
        assert running
        assert DORMANT not in running[1]
