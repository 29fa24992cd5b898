from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exectrail_agent.containers.index import ContainerIndex
from exectrail_agent.containers.pods import PodFacts
from tests.unit.agent.containers.test_runtimes import CRIO_CONTAINER, CRIO_SANDBOX
from tests.unit.agent.containers.tree import (
    HOST,
    STORAGE,
    TASKS,
    A,
    B,
    C,
    Node,
    Pods,
    config,
    cri,
    group,
    probe,
)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def index(node: Node) -> Iterator[ContainerIndex]:
    made = ContainerIndex(str(node.root), grace=10)
    yield made
    made.close()


def start(node: Node, identity: str = A, pid: int = 50, name: str = "main") -> None:
    node.process(pid, 1000 + pid, 2000 + pid, group(identity))
    node.containerd(identity, config(group(identity), cri(name)), pid)


def by_group(index: ContainerIndex, path: str) -> str | None:
    found = index.by_cgroup(path.encode())
    return found and found.id


def test_an_empty_node(index: ContainerIndex) -> None:
    assert index.all() == []
    assert index.problems == {}
    assert index.by_cgroup(group(A).encode()) is None
    assert index.by_namespaces(1050, 2050) is None


def test_a_container_is_complete_as_soon_as_it_has_a_process(
    index: ContainerIndex, node: Node
) -> None:
    node.containerd(A, config(group(A), cri("main")))
    index.refresh()
    (early,) = index.all()
    assert (early.name, early.cgroup, early.init_pid) == ("main", group(A), 0)
    node.process(50, 1050, 2050, group(A))
    node.write(f"{TASKS}/k8s.io/{A}/init.pid", "50")
    assert select.select([index], [], [], 0)[0]
    index.refresh()
    (full,) = index.all()
    assert (full.init_pid, full.mount_namespace, full.pid_namespace) == (50, 1050, 2050)
    assert index.by_namespaces(1050, 2050) == index.by_cgroup(group(A).encode()) == full


def test_a_question_takes_in_what_has_just_changed(index: ContainerIndex, node: Node) -> None:
    start(node)
    assert by_group(index, group(A)) == A
    start(node, B, 60)
    found = index.by_namespaces(1060, 2060)
    assert found
    assert found.id == B


def test_an_answer_is_as_new_as_the_files(index: ContainerIndex, node: Node) -> None:
    node.containerd(A, config(group(A), cri("main")))
    assert by_group(index, group(A)) == A
    for pid in (50, 60):
        node.process(pid, 1000 + pid, 2000 + pid, group(A))
        node.write(f"{TASKS}/k8s.io/{A}/init.pid", str(pid))
        found = index.by_cgroup(group(A).encode())
        assert found
        assert found.init_pid == pid


def test_what_was_there_before_the_index(node: Node) -> None:
    start(node)
    index = ContainerIndex(str(node.root))
    assert by_group(index, group(A)) == A
    index.close()


def test_nested_groups_belong_to_the_outermost_known_container(
    index: ContainerIndex, node: Node
) -> None:
    start(node)
    start(node, B, 60)
    assert by_group(index, group(A, "init.scope", "system.slice")) == A
    assert by_group(index, group(A, "libpod_parent", f"libpod-{B}")) == A
    assert by_group(index, group(A, "libpod_parent", f"libpod-{C}")) == A
    assert by_group(index, group(C, B)) is None
    assert by_group(index, "/kubepods/pod1") is None
    assert by_group(index, group(A) + "x") is None


def test_a_known_containers_name_elsewhere_is_not_the_container(
    index: ContainerIndex, node: Node
) -> None:
    start(node)
    node.containerd(B, config(group(B), cri("main")))
    for identity in (A, B):
        forged = f"/user.slice/user-7.slice/cri-containerd-{identity}.scope"
        assert by_group(index, forged) is None
        assert index.looks_contained(forged.encode()) == identity
    assert by_group(index, f"/outer/{B}") == B


def test_a_configured_path_that_is_not_the_real_one_does_not_hide_the_container(
    index: ContainerIndex, node: Node
) -> None:
    real = f"/outer/kubepods-pod1.slice:cri-containerd:{A}"
    node.containerd(A, config(f"kubepods-pod1.slice:cri-containerd:{A}", cri("main")))
    assert by_group(index, real) == A
    node.process(50, 1050, 2050, real + "/init.scope", "/elsewhere")
    node.write(f"{TASKS}/k8s.io/{A}/init.pid", "50")
    found = index.by_cgroup(real.encode())
    index.refresh()
    found = index.by_cgroup(real.encode())
    assert found
    assert found.cgroup == real


def test_each_hierarchys_path_is_known(index: ContainerIndex, node: Node) -> None:
    node.process(50, 1050, 2050, f"/v2/{A}", f"/memory/docker-{A}.scope", "/")
    node.containerd(A, config(f"/v2/{A}"), 50, namespace="moby")
    assert by_group(index, f"/v2/{A}/x") == A
    assert by_group(index, f"/memory/docker-{A}.scope") == A


def test_free_names_are_found_by_their_path(index: ContainerIndex, node: Node) -> None:
    node.process(50, 1050, 2050, "/default/web/sub")
    node.containerd("web", config("/default/web"), 50, namespace="default")
    node.containerd("web", config("/test/web"), namespace="test")
    assert by_group(index, "/default/web") == "web"
    assert by_group(index, "/test/web/x") == "web"
    assert by_group(index, "/default/website") is None
    assert len(index.all()) == 2


def test_ids_that_nobody_describes(index: ContainerIndex, node: Node) -> None:
    start(node)
    assert index.looks_contained(group(C).encode()) == C
    assert index.looks_contained(group(C, A).encode()) == C
    assert index.looks_contained(b"/system.slice/ssh.service") is None


def test_a_node_that_is_a_container_does_not_take_itself_for_one(node: Node) -> None:
    node.process(77, *HOST, f"/docker/{C}/system.slice/agent.service")
    inner = f"/docker/{C}{group(A)}"
    node.process(50, 1050, 2050, inner)
    node.containerd(A, config(group(A), cri("main")), 50)
    index = ContainerIndex(str(node.root))
    assert index.looks_contained(f"/docker/{C}/system.slice/ssh.service".encode()) is None
    assert index.looks_contained(inner.encode()) == A
    assert by_group(index, inner) == A
    index.close()


class TestNamespaces:
    def test_the_mount_namespace_decides(self, index: ContainerIndex, node: Node) -> None:
        start(node, A, 50)
        start(node, B, 60)
        found = index.by_namespaces(1050, 2060)
        assert found
        assert found.id == A

    def test_a_pid_namespace_of_its_own_is_enough(self, index: ContainerIndex, node: Node) -> None:
        start(node)
        found = index.by_namespaces(999, 2050)
        assert found
        assert found.id == A

    def test_those_of_the_host_are_nobodys(self, index: ContainerIndex, node: Node) -> None:
        node.process(50, *HOST, group(A))
        node.containerd(A, config(group(A), pid=None), 50)
        assert by_group(index, group(A)) == A
        assert index.by_namespaces(*HOST) is None

    def test_a_shared_pid_namespace_is_nobodys(self, index: ContainerIndex, node: Node) -> None:
        node.process(50, 1050, 2050, group(A))
        node.containerd(A, config(group(A), cri()), 50)
        node.process(60, 1060, 2050, group(B))
        node.containerd(B, config(group(B), cri("main"), pid="/proc/50/ns/pid"), 60)
        index.refresh()
        assert index.by_namespaces(999, 2050) is None
        found = index.by_namespaces(1060, 2050)
        assert found
        assert (found.id, found.shares_pids) == (B, True)

    def test_numbers_of_a_dead_container_are_nobodys(
        self, index: ContainerIndex, node: Node
    ) -> None:
        start(node)
        assert index.by_namespaces(1050, 2050)
        node.end(50)
        assert index.by_namespaces(1050, 2050) is None
        assert by_group(index, group(A)) == A

    def test_a_process_id_that_became_anothers(self, index: ContainerIndex, node: Node) -> None:
        node.process(50, 1050, 2050, "/system.slice/ssh.service")
        node.storage(A, config(f"/libpod_parent/libpod-{A}"), 50)
        index.refresh()
        assert [one.init_pid for one in index.all()] == [0]
        assert index.by_namespaces(1050, 2050) is None

    def test_a_restarted_container(self, index: ContainerIndex, node: Node) -> None:
        path = f"/libpod_parent/libpod-{A}"
        node.process(50, 1050, 2050, path)
        node.storage(A, config(path), 50)
        assert index.by_namespaces(1050, 0)
        node.end(50)
        node.process(60, 1060, 2060, path)
        node.storage(A, config(path), 60)
        index.refresh()
        assert index.by_namespaces(1050, 0) is None
        found = index.by_namespaces(1060, 0)
        assert found
        assert found.init_pid == 60

    def test_without_the_right_to_look_it_says_so(
        self, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start(node)

        def forbidden(*_: object) -> str:
            raise PermissionError(13, "no")

        monkeypatch.setattr(os, "readlink", forbidden)
        index = ContainerIndex(str(node.root))
        assert "CAP_SYS_PTRACE" in index.problems["processes"]
        assert by_group(index, group(A)) == A
        index.close()


class TestTheEnd:
    def test_a_container_is_found_for_the_grace_time(
        self, index: ContainerIndex, node: Node
    ) -> None:
        start(node)
        index.refresh()
        folder = node.root / TASKS / "k8s.io" / A
        folder.rename(folder.with_name(f".{A}"))
        shutil.rmtree(folder.with_name(f".{A}"))
        index.refresh()
        assert index.all() == []
        assert index.by_namespaces(1050, 2050) is None
        for now, found in ((100, A), (110, A), (110.1, None)):
            index.expire(now)
            assert by_group(index, group(A)) == found

    def test_one_that_comes_back_stays(self, index: ContainerIndex, node: Node) -> None:
        start(node)
        index.refresh()
        shutil.rmtree(node.root / TASKS)
        index.refresh()
        index.expire(0)
        start(node)
        index.refresh()
        index.expire(1000)
        assert [one.id for one in index.all()] == [A]

    def test_a_rescan_finds_what_was_missed(self, index: ContainerIndex, node: Node) -> None:
        start(node)
        index.rescan()
        assert [one.id for one in index.all()] == [A]
        shutil.rmtree(node.root / TASKS)
        start(node, B, 60)
        index.rescan()
        assert [one.id for one in index.all()] == [B]


class TestPods:
    def test_labels_probes_and_kinds(self, node: Node) -> None:
        pods = Pods()
        index = ContainerIndex(str(node.root), pods=pods)
        start(node, A, 50, "main")
        start(node, B, 60, "look")
        index.refresh()
        assert sorted(pods.wanted) == [("uid-1", "look"), ("uid-1", "main")]
        early = index.by_cgroup(group(A).encode())
        assert early
        assert early.pod
        assert not index.is_kind_certain(early)
        assert (early.pod.labels, early.probes) == (None, ())
        pods.facts["uid-1"] = PodFacts(
            {"app": "web"},
            {"main": (probe("liveness", "true"),)},
            {"main": "container", "look": "ephemeral"},
        )
        main, look = (index.by_cgroup(group(one).encode()) for one in (A, B))
        assert main
        assert look
        assert main.pod
        assert (main.pod.labels, main.probes) == ({"app": "web"}, (probe("liveness", "true"),))
        assert (main.kind, look.kind, look.probes) == ("container", "ephemeral", ())
        assert index.is_kind_certain(main)
        assert index.is_kind_certain(look)
        pods.facts["uid-1"] = PodFacts({"app": "new"})
        again = index.by_cgroup(group(A).encode())
        assert again
        assert again.pod
        assert again.pod.labels == {"app": "new"}
        index.close()

    def test_a_pod_that_is_deleted_by_force_outlives_what_is_said_of_it(self, node: Node) -> None:
        facts = PodFacts({"app": "web"}, {"main": (probe("preStop", "true"),)}, {"main": "init"})
        pods = Pods(**{"uid-1": facts, "uid-2": facts})
        index = ContainerIndex(str(node.root), pods=pods, grace=10)
        start(node)
        index.refresh()
        index.expire(0)
        pods.facts.clear()
        (found,) = index.all()
        assert found.pod
        assert (found.pod.labels, found.kind) == ({"app": "web"}, "init")
        assert found.probes == (probe("preStop", "true"),)
        assert index.is_kind_certain(found)
        shutil.rmtree(node.root / TASKS)
        index.refresh()
        for now in (1, 12):
            index.expire(now)
        start(node)
        index.refresh()
        (other,) = index.all()
        assert not index.is_kind_certain(other)
        index.close()

    @pytest.mark.parametrize(
        ("name", "kind"),
        [("debugger-x2k9z", "ephemeral"), ("debugger-aeiou", "container"), ("main", "container")],
    )
    def test_kubectls_own_name_for_a_debugger_is_a_guess(
        self, index: ContainerIndex, node: Node, name: str, kind: str
    ) -> None:
        start(node, A, 50, name)
        index.refresh()
        (found,) = index.all()
        assert found.kind == kind
        assert index.is_kind_certain(found)  # nobody will ever say

    def test_what_is_in_no_pod_has_no_other_kind(self, index: ContainerIndex, node: Node) -> None:
        node.containerd(A, config(group(A)))
        node.containerd(B, config(group(B), cri()))
        index.refresh()
        assert [index.is_kind_certain(one) for one in index.all()] == [True, True]

    def test_the_specification_outdoes_the_guess(self, node: Node) -> None:
        pods = Pods(**{"uid-1": PodFacts({}, {}, {"debugger-x2k9z": "container"})})
        index = ContainerIndex(str(node.root), pods=pods)
        start(node, A, 50, "debugger-x2k9z")
        index.refresh()
        assert [one.kind for one in index.all()] == ["container"]
        index.close()

    def test_the_problem_of_the_source_is_shown(self, node: Node) -> None:
        pods = Pods()
        pods.problem = "forbidden"
        index = ContainerIndex(str(node.root), pods=pods)
        assert index.problems == {"pods": "forbidden"}
        index.close()

    def test_crio_labels_come_from_the_sandbox(self, index: ContainerIndex, node: Node) -> None:
        path = CRIO_CONTAINER["linux"]["cgroupsPath"]
        node.storage(B, CRIO_SANDBOX)
        node.process(50, 1050, 2050, path)
        node.storage(path[-64:], CRIO_CONTAINER, 50)
        found = index.by_cgroup(f"{path}/inner".encode())
        assert found
        assert found.pod
        assert (found.runtime, found.name, found.init_pid) == ("cri-o", "seat", 50)
        assert found.pod.labels == {"app": "web"}


def test_podmans_names_come_from_the_storages_tables(index: ContainerIndex, node: Node) -> None:
    for identity, table in ((A, "containers.json"), (B, "volatile-containers.json")):
        node.write(f"var/lib/{STORAGE}/{table}", [{"id": identity, "names": [f"of {table}"]}])
        node.storage(identity, config())
    index.refresh()
    assert {one.id: one.name for one in index.all()} == {
        A: "of containers.json",
        B: "of volatile-containers.json",
    }


@pytest.mark.parametrize(
    ("words", "place", "seen"),
    [
        (["/usr/bin/crictl", "exec", "-it", A[:13], "sh"], "/user.slice", "crictl"),
        (["ctr", "-n", "k8s.io", "task", "exec", "--exec-id", "1", A, "sh"], "/", "ctr"),
        (["crictl", "exec", B[:13], "sh"], "/user.slice", ""),
        (["crictl", "logs", A], "/user.slice", ""),
        (["vi", "exec", A], "/user.slice", ""),
        (["crictl", "exec", "main", "sh"], "/user.slice", ""),
        (["crictl", "exec", A, "sh"], group(C), ""),
    ],
)
def test_who_is_at_work_by_a_client_of_the_runtime(
    index: ContainerIndex, node: Node, words: list[str], place: str, seen: str
) -> None:
    start(node)
    node.process(60, *HOST, place)
    node.write("proc/60/cmdline", "\0".join([*words, ""]))
    found = index.by_cgroup(group(A).encode())
    assert found
    assert index.client(found) == seen


def test_a_client_knows_a_container_of_no_pod_by_its_name(
    index: ContainerIndex, node: Node
) -> None:
    node.containerd(A, config(f"/docker/{A}", {"nerdctl/name": "web"}), namespace="default")
    node.process(60, *HOST, "/user.slice")
    node.write("proc/60/cmdline", "nerdctl\0exec\0web\0sh\0")
    index.refresh()
    assert [index.client(one) for one in index.all()] == ["nerdctl"]


def test_docker_layout_fixture(index: ContainerIndex, node: Node) -> None:
    node.write(f"var/lib/docker/containers/{A}/config.v2.json", {"Name": "/web", "Config": {}})
    node.containerd(A, config(f"/docker/{A}"), namespace="moby")
    index.refresh()
    (found,) = index.all()
    assert (found.runtime, found.name) == ("docker", "web")


class TestUsers:
    """Files that a user without privileges writes."""

    SLICE = "/user.slice/user-{}.slice/user@{}.service/user.slice/libpod-{}.scope"

    @pytest.fixture
    def uid(self, node: Node) -> int:
        (node.root / "home/eve").mkdir()
        return (node.root / "home/eve").stat().st_uid

    def claim(self, node: Node, uid: int, identity: str, pid: int, **more: str) -> None:
        node.write(
            f"home/eve/.local/share/{STORAGE}/{identity}/userdata/config.json",
            config(more.get("path", "user.slice:libpod:x"), CRIO_CONTAINER["annotations"]),
        )
        node.write(
            f"run/user/{uid}/containers/overlay-containers/{identity}/userdata/pidfile", str(pid)
        )

    def test_their_containers_are_known(self, index: ContainerIndex, node: Node, uid: int) -> None:
        path = self.SLICE.format(uid, uid, A)
        node.process(50, 1050, 2050, path + "/container")
        self.claim(node, uid, A, 50)
        found = index.by_cgroup(path.encode())
        assert found
        assert (found.runtime, found.pod, found.init_pid) == ("podman", None, 50)
        assert index.by_namespaces(1050, 2050) == found

    def test_they_claim_no_others_process_group_or_id(
        self, index: ContainerIndex, node: Node, uid: int
    ) -> None:
        start(node)
        node.process(60, 1060, 2060, "/system.slice/ssh.service")
        self.claim(node, uid, A, 50, path=group(A))
        self.claim(node, uid, B, 60, path="/system.slice")
        self.claim(node, uid, C, 50, path=group(A))
        index.refresh()
        found = index.by_cgroup(group(A).encode())
        assert found
        assert found.runtime == "containerd"
        assert index.by_namespaces(1050, 2050) == found
        assert index.by_namespaces(1060, 2060) is None
        assert by_group(index, "/system.slice/ssh.service") is None
        assert by_group(index, f"/kubepods/pod1/{B}") is None

    def test_links_in_their_folders_lead_nowhere(
        self, index: ContainerIndex, node: Node, uid: int
    ) -> None:
        self.claim(node, uid, A, 50)
        storage = node.root / "home/eve/.local/share" / STORAGE / A / "userdata"
        (storage / "config.json").rename(node.root / "var/secret")
        (storage / "config.json").symlink_to(node.root / "var/secret")
        index.refresh()
        assert "config.json" in index.problems["podman"]


class TestBadFiles:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[" * 100_000, "nested too deeply"),
            ("[]", "not a JSON object"),
            ("{", "config.json"),
            ('{"a": "' + "x" * (4 << 20) + '"}', "more than"),
        ],
        ids=["deep", "list", "cut", "big"],
    )
    def test_a_container_that_cannot_be_read_is_known_by_its_id(
        self, index: ContainerIndex, node: Node, content: str, message: str
    ) -> None:
        node.process(50, 1050, 2050, group(A))
        os.utime(node.containerd(A, content, 50) / "config.json", (0, 0))
        found = index.by_cgroup(group(A).encode())
        assert found
        assert (found.id, found.name, found.init_pid) == (A, A, 50)
        assert message in index.problems["containerd"]
        assert A in index.problems["containerd"]
        node.containerd(A, config(group(A), cri("main")), 50)
        index.refresh()
        assert index.problems == {}

    def test_a_pipe_does_not_stop_the_index(self, index: ContainerIndex, node: Node) -> None:
        folder = node.root / TASKS / "k8s.io" / A
        folder.mkdir(parents=True)
        os.mkfifo(folder / "config.json")
        os.mkfifo(folder / "init.pid")
        index.rescan()
        assert "not a regular file" in index.problems["containerd"]

    @pytest.mark.parametrize("part", ["", '{"annotations": {"a": "b"'])
    def test_a_file_that_is_being_written_is_no_problem_yet(
        self, index: ContainerIndex, node: Node, part: str
    ) -> None:
        node.containerd(A, part)
        index.refresh()
        assert index.problems == {}
        assert index.all() == []
        file = node.root / TASKS / "k8s.io" / A / "config.json"
        os.utime(file, (0, 0))
        index.refresh()
        assert "config.json" in index.problems["containerd"]

    def test_a_container_stays_known_while_it_is_written_anew(
        self, index: ContainerIndex, node: Node
    ) -> None:
        start(node)
        assert by_group(index, group(A)) == A
        node.containerd(A, "{")
        found = index.by_cgroup(group(A).encode())
        assert found
        assert (found.name, index.problems) == ("main", {})

    @pytest.mark.parametrize("text", ["", "x", "-1", "0", "9" * 30, "50\n", "1" * 100, "٣"])
    def test_strange_process_ids(self, index: ContainerIndex, node: Node, text: str) -> None:
        node.process(50, 1050, 2050, group(A))
        node.containerd(A, config(group(A)))
        node.write(f"{TASKS}/k8s.io/{A}/init.pid", text)
        index.refresh()
        assert [one.init_pid for one in index.all()] == [50 if text == "50\n" else 0]

    @given(st.binary(max_size=80), st.binary(max_size=20))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_bytes_in_any_file(
        self, index: ContainerIndex, node: Node, raw: bytes, pid: bytes
    ) -> None:
        folder = node.containerd(A, "{}")
        (folder / "config.json").write_bytes(raw)
        (folder / "init.pid").write_bytes(pid)
        userdata = node.storage(B, "{}")
        (userdata / "config.json").write_bytes(raw)
        node.write("var/lib/containers/storage/overlay-containers/containers.json", "")
        index.refresh()
        assert {one.id for one in index.all()} <= {A, B}
        index.by_cgroup(group(A).encode())
