from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exectrail_agent.containers import cgroups
from tests.unit.agent.containers.tree import A, B
from tests.unit.agent.corpus import damaged, kept

REAL = kept("*/cgroup*")
"""/proc/PID/cgroup of processes in containers, where there are hierarchies of both versions."""
IDS = {
    "podman": "820e59805db25e25c7512795f44ec2c630f7c633c7fa88fb9a053ae5abc2f3c2",
    "node": "383eefd1418b356373396c8ae6d8924f466aae3b30f42014e655ff0aff56c192",
    "pod": "9903088b31f5676c172afea53cf8339652b7d71f72d3a94fe60807383925cfc2",
}

POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"


def named(path: str) -> list[str]:
    return [name for _, name in cgroups.ancestors(path.encode()) if name]


@pytest.mark.parametrize(
    "path",
    [
        f"{POD}/cri-containerd-{A}.scope",
        f"{POD}/crio-{A}.scope",
        f"{POD}/crio-{A}.scope/container",
        f"/kubepods/burstable/pod1-2/{A}",
        f"/kubepods/burstable/pod1-2/crio-{A}",
        f"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{A}",
        f"/docker/{A}",
        f"/system.slice/docker-{A}.scope/init.scope",
        f"/default/nerdctl-{A}.scope",
        f"/machine.slice/libpod-{A}.scope/container",
        f"/libpod_parent/libpod-{A}",
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope/container",
        f"/system.slice/web.service/libpod-payload-{A}",
        f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
    ],
)
def test_paths_that_name_a_container(path: str) -> None:
    assert named(path) == [A]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/system.slice/ssh.service",
        f"{POD}/crio-conmon-{A}.scope",
        f"/machine.slice/libpod-conmon-{A}.scope",
        f"/machine.slice/machine-libpod_pod_{A}.slice",
        f"/system.slice/{A}-71a5b4c3.service",
        f"/system.slice/{A}.service",
        f"/system.slice/var-lib-docker-overlay2-{A}-merged.mount",
        f"/docker/{A[:12]}",
        f"/docker/{A}a",
        f"/docker/{A.upper()}",
        f"/x{A}",
        f"{POD}/cri-containerd-{A}.scope\n",
    ],
)
def test_paths_that_name_none(path: str) -> None:
    assert named(path) == []


def test_nested_containers_come_from_the_outside_in() -> None:
    path = f"/kubepods/pod1/{A}/libpod_parent/libpod-{B}"
    assert named(path) == [A, B]
    assert list(cgroups.ancestors(b"//a//b/")) == [(b"//a", ""), (b"//a//b", "")]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/kubepods/pod1/x", "/kubepods/pod1/x"),
        ("default/web", "/default/web"),
        ("//a//b/", "/a/b"),
        ("kubepods-burstable-pod1_2.slice:cri-containerd:x", f"{POD}/cri-containerd-x.scope"),
        ("system.slice:docker:x", "/system.slice/docker-x.scope"),
        (":docker:x", "/system.slice/docker-x.scope"),
        ("machine.slice::x", "/machine.slice/x.scope"),
        ("a.slice:p:b.slice", "/a.slice/b.slice"),
        ("-.slice:p:x", "/p-x.scope"),
        ("", ""),
        ("/", ""),
        ("/../..", ""),
        ("/a/../b", ""),
        ("/a/./b", ""),
    ],
)
def test_configured_paths(text: str, path: str) -> None:
    assert cgroups.configured(text) == path.encode()


def test_processes_groups_are_each_listed_once_and_the_unified_one_first() -> None:
    text = b"9:name=systemd:/a\n4:memory:/b:c\n1:cpu:/a\n2:net_cls:/\nrubbish\n0::/u\n"
    assert cgroups.of_process(text) == [b"/u", b"/a", b"/b:c"]


def test_the_base_is_the_group_that_names_the_container_or_the_expected_one() -> None:
    assert cgroups.base(f"/x/docker/{A}/init.scope".encode(), A, b"") == f"/x/docker/{A}".encode()
    assert cgroups.base(b"/default/web/sub", "web", b"/default/web") == b"/default/web"
    assert cgroups.base(b"/default/webber", "web", b"/default/web") == b""
    assert cgroups.base(b"/user.slice", A, b"") == b""


@pytest.mark.parametrize(
    ("name", "containers"),
    [
        ("podman-4.3/cgroup", ["podman"]),
        ("podman-4.3/cgroup-nested", ["node", "pod"]),
        ("containerd-1.6/cgroup", ["pod"]),
    ],
)
def test_real_processes_are_in_their_containers(name: str, containers: list[str]) -> None:
    ids = [IDS[container] for container in containers]
    (path,) = cgroups.of_process(REAL[name])
    assert [found for _, found in cgroups.ancestors(path) if found] == ids
    ends = [cgroups.base(path, identity, b"") for identity in ids]
    assert [end.rpartition(b"/")[2].decode()[-64:] for end in ends] == ids
    assert ends[-1] == path


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"/", b":", b"-", A.encode()])).map(b"".join)
)
@example(b"")
@example(b"/" * 300)
@example(b"/../../" + A.encode())
@example(b"/kubepods/x-" + A.encode() + b"\n")
@example(b"/libpod-conmon-" + A.encode() + b".scope")
@example(b"/" + A.encode().upper() + b"/" + A.encode() * 2)
@example(b"0::/a\n1:name=:x:/b:c\n::::\n0:/")
@example(b"/\xff\xfe-" + A.encode())
def test_no_path_is_too_strange(path: bytes) -> None:
    found = list(cgroups.ancestors(path))
    assert all(path.startswith(ancestor) for ancestor, _ in found)
    assert all(len(name) in (0, 64) for _, name in found)
    cgroups.of_process(path)


@given(st.text(alphabet=st.characters() | st.sampled_from("/:.-"), max_size=60))
@example("a-b.slice:docker:..")
@example("../../../sys:x:y")
@example("-.slice::")
@example("::")
@example("-----.slice:a:b.slice")
@example("/./..//x")
@example("a\0b:\ud800:c")
def test_no_configured_path_leads_out_or_is_the_root(text: str) -> None:
    path = cgroups.configured(text)
    assert path == b"" or (path.startswith(b"/") and len(path) > 1)
    assert b".." not in path.split(b"/")


PATHS = damaged([line.split(b":", 2)[2] for text in REAL.values() for line in text.splitlines()])


@given(damaged(list(REAL.values())))
def test_damaged_real_processes_are_somewhere_or_nowhere(text: bytes) -> None:
    paths = cgroups.of_process(text)
    assert len(set(paths)) == len(paths)
    assert all(path.startswith(b"/") and path != b"/" for path in paths)


@given(PATHS | st.binary(max_size=300), st.sampled_from([*IDS.values(), A]), PATHS | st.just(b""))
@example(b"/" + A.encode() + b"/" + A.encode(), A, b"")
@example(b"//", A, b"/")
@example(b"/a/" + A.encode(), B, b"/a/")
@example(b"/ab", A, b"/a")
@example(b"/a/" + A.encode(), A, b"/a")
def test_a_base_is_the_outermost_group_that_is_named_or_expected(
    path: bytes, container: str, expected: bytes
) -> None:
    found = cgroups.base(path, container, expected)
    around = [group for group, _ in cgroups.ancestors(path)]
    if found:
        assert found in around
        assert found == expected or container.encode() in found.rpartition(b"/")[2]
        around = around[: around.index(found)]
    assert expected not in around
    assert container not in map(named_last, around)


def named_last(group: bytes) -> str:
    return list(cgroups.ancestors(group))[-1][1]
