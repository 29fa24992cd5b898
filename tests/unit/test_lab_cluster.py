"""What the lab's clusters are planned and configured to be, without making one."""

from __future__ import annotations

import json
import subprocess
import tarfile
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml

from lab.cluster import balancer, host, kubeadm, layout
from lab.cluster.layout import Cluster
from lab.errors import LabError
from lab.images import dockerarchive, recipes
from lab.kubernetes import binaries
from lab.kubernetes.binaries import Binaries

SUBNET = IPv4Network("10.89.4.0/24")
BINARIES = Binaries(Path("/nowhere"), "v1.35.4", "3.6.6")
KNOWN = kubeadm.Secrets("abcdef.0123456789abcdef", "00" * 32)


def planned(masters: int, workers: int) -> Cluster:
    return Cluster("lab", "v1.35.4", layout.plan("lab", masters, workers, SUBNET))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXECTRAIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("masters", "workers", "balancers", "endpoint"),
    [(1, 0, 0, "10.89.4.11:6443"), (1, 2, 0, "10.89.4.11:6443"), (3, 1, 1, "10.89.4.10:6443")],
)
def test_every_node_has_a_place(masters: int, workers: int, balancers: int, endpoint: str) -> None:
    made = planned(masters, workers)
    assert (len(made.masters), len(made.workers)) == (masters, workers)
    assert len(made.nodes) == masters + workers + balancers
    assert len({node.address for node in made.nodes}) == len(made.nodes)
    assert len({node.number for node in made.nodes}) == len(made.nodes)
    assert made.endpoint == endpoint


@pytest.mark.parametrize(
    ("name", "masters", "workers", "problem"),
    [
        ("Lab", 1, 1, "can't begin host names"),
        ("", 1, 1, "can't begin host names"),
        ("-a", 1, 1, "can't begin host names"),
        ("../x", 1, 1, "can't begin host names"),
        ("a" * 31, 1, 1, "can't begin host names"),
        ("lab", 2, 1, "2 masters"),
        ("lab", 1, -1, "-1 workers"),
        ("lab", 1, 21, "21 workers"),
    ],
)
def test_impossible_clusters_are_refused(
    name: str, masters: int, workers: int, problem: str
) -> None:
    with pytest.raises(LabError, match=problem):
        layout.check(name, masters, workers)


def test_the_largest_cluster_is_possible() -> None:
    layout.check("a" * 30, 3, layout.MOST_WORKERS)
    assert all(node.number < 256 for node in planned(3, layout.MOST_WORKERS).nodes)


def test_a_cluster_is_found_again_by_its_record(own_cache: Path) -> None:
    made = planned(3, 1)
    assert layout.load("lab") is None
    made.folder.mkdir(parents=True)
    assert layout.loaded() == []
    made.save()
    assert layout.load("lab") == made
    assert layout.loaded() == [made]
    assert own_cache in made.folder.parents


def test_what_is_left_is_found_by_folder_or_label() -> None:
    (layout.clusters_folder() / "folder").mkdir(parents=True)
    labels = [layout.identity("labelled"), "exectrail-0123456789ab-somebody-elses"]
    assert layout.names(labels) == ["folder", "labelled"]


def test_the_inventory_has_masters_and_workers_and_pins_keys() -> None:
    made = planned(3, 1)
    told = yaml.safe_load(yaml.safe_dump(made.inventory()))["all"]
    hosts = {group: list(content["hosts"]) for group, content in told["children"].items()}
    assert hosts == {
        "masters": ["lab-master-1", "lab-master-2", "lab-master-3"],
        "workers": ["lab-worker-1"],
    }
    assert told["children"]["workers"]["hosts"]["lab-worker-1"] == {"ansible_host": "10.89.4.21"}
    assert "StrictHostKeyChecking=yes" in told["vars"]["ansible_ssh_common_args"]


@pytest.mark.parametrize(
    ("mounts", "mode"),
    [
        ([("/sys/fs/cgroup", "cgroup2")], "v2"),
        ([("/sys/fs/cgroup", "tmpfs"), ("/sys/fs/cgroup/memory", "cgroup")], "v1"),
        (
            [
                ("/sys/fs/cgroup", "tmpfs"),
                ("/sys/fs/cgroup/memory", "cgroup"),
                ("/sys/fs/cgroup/unified", "cgroup2"),
            ],
            "hybrid",
        ),
    ],
)
def test_cgroup_modes_are_told_apart(mounts: list[tuple[str, str]], mode: str) -> None:
    lines = ["22 1 8:1 / / rw shared:1 - ext4 /dev/sda rw"]
    lines += [f"30 22 0:26 / {at} rw,nosuid shared:9 - {kind} {kind} rw" for at, kind in mounts]
    assert host.cgroup_mode("\n".join(lines)) == mode


def test_a_host_without_cgroups_is_refused() -> None:
    with pytest.raises(LabError, match="no control groups"):
        host.cgroup_mode("22 1 8:1 / / rw - ext4 /dev/sda rw")


def test_limits_are_within_this_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
    assert host.limits() == ["--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096"]
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, -1))
    assert host.limits() == ["--ulimit=nofile=20000:20000", "--ulimit=nproc=32768:32768"]


@pytest.mark.parametrize("systemd", [True, False])
def test_init_fits_the_hosts_cgroups(*, systemd: bool) -> None:
    documents = kubeadm.init_documents(planned(1, 1), BINARIES, KNOWN, systemd_cgroups=systemd)
    kinds = {document["kind"]: document for document in documents}
    driver = kinds["KubeletConfiguration"]["cgroupDriver"]
    assert driver == ("systemd" if systemd else "cgroupfs")
    assert kinds["ClusterConfiguration"]["kubernetesVersion"] == "v1.35.4"
    assert kinds["ClusterConfiguration"]["etcd"]["local"]["imageTag"] == "3.6.6-0"


@pytest.mark.parametrize(("workers", "schedulable"), [(0, True), (1, False)])
def test_masters_run_pods_only_when_nothing_else_can(workers: int, *, schedulable: bool) -> None:
    init = kubeadm.init_documents(planned(1, workers), BINARIES, KNOWN, systemd_cgroups=True)[0]
    assert (init["nodeRegistration"].get("taints") == []) == schedulable


def test_only_masters_join_with_the_key_to_the_certificates() -> None:
    made = planned(3, 1)
    master, worker = (
        kubeadm.join_document(made, node, KNOWN) for node in (made.masters[1], made.workers[0])
    )
    assert master["controlPlane"]["localAPIEndpoint"]["advertiseAddress"] == "10.89.4.12"
    assert "controlPlane" not in worker
    assert (master["patches"], worker.get("patches")) == (
        {"directory": f"/{kubeadm.PATCHES}"},
        None,
    )
    assert KNOWN.certificate_key not in json.dumps(worker)


def test_discovery_tells_nothing_of_the_administrator() -> None:
    config = {
        "clusters": [{"name": "lab", "cluster": {"server": "https://x", "certificate": "CA"}}],
        "users": [{"name": "admin", "user": {"client-key-data": "SECRET"}}],
        "contexts": [{"name": "c", "context": {"cluster": "lab", "user": "admin"}}],
    }
    told = kubeadm.discovery(yaml.safe_dump(config))
    assert "https://x" in told
    assert "SECRET" not in told
    assert "admin" not in told


def test_the_balancer_knows_every_master() -> None:
    text = balancer.configuration(planned(3, 2))
    servers = [line.split()[2] for line in text.splitlines() if line.startswith("    server ")]
    assert servers == ["10.89.4.11:6443", "10.89.4.12:6443", "10.89.4.13:6443"]


def test_versions_are_those_of_the_go_module() -> None:
    text = (Path(binaries.__file__).parent / "go.mod").read_text()
    kubernetes = binaries.required(text, "k8s.io/kubernetes")
    assert kubernetes.startswith("v1.35.")
    assert f"=> k8s.io/apiserver v0.{kubernetes.removeprefix('v1.')}" in text
    with pytest.raises(LabError, match="requires no example"):
        binaries.required(text, "example.org/x")


def program(path: Path, says: str) -> None:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


def test_ready_binaries_are_used_with_the_versions_they_tell(tmp_path: Path) -> None:
    for name in binaries.COMMANDS:
        program(tmp_path / name, "v1.34.1")
    program(tmp_path / "etcd", "etcd Version: 3.6.4")
    found = binaries.ready(tmp_path)
    assert (found.kubernetes, found.etcd) == ("v1.34.1", "3.6.4")
    before = found.key
    program(tmp_path / "kubelet", "v1.34.1 rebuilt")
    assert found.key != before


def test_incomplete_ready_binaries_are_named(tmp_path: Path) -> None:
    for name in binaries.COMMANDS:
        program(tmp_path / name, "v1.34.1")
    (tmp_path / "kubelet").chmod(0o644)
    with pytest.raises(LabError, match="lacks the executables kubelet, etcd"):
        binaries.ready(tmp_path)


def test_ready_binaries_without_a_version_are_refused(tmp_path: Path) -> None:
    for name in (*binaries.COMMANDS, "etcd"):
        program(tmp_path / name, "hello")
    with pytest.raises(LabError, match="no version"):
        binaries.ready(tmp_path)


def test_an_image_holds_what_its_recipe_says(tmp_path: Path) -> None:
    program(tmp_path / "tool", "hello")
    image = dockerarchive.Image(
        "exectrail.lab/x:1",
        ["/bin/tool"],
        files={"bin/tool": tmp_path / "tool"},
        links={"bin/alias": "/bin/tool"},
        texts={"etc/passwd": "root\n"},
        folders=["tmp"],
    )
    dockerarchive.write(image, tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest["Config"]))
        layer = archive.extractfile(manifest["Layers"][0]).read()
    (tmp_path / "layer.tar").write_bytes(layer)
    assert manifest["RepoTags"] == ["exectrail.lab/x:1"]
    assert config["config"]["Cmd"] == ["/bin/tool"]
    digest = subprocess.check_output(["sha256sum", tmp_path / "layer.tar"], text=True).split()[0]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    with tarfile.open(tmp_path / "layer.tar") as layer:
        assert sorted(layer.getnames()) == ["bin/alias", "bin/tool", "etc/passwd", "tmp"]
        assert layer.getmember("bin/tool").mode == 0o755
        assert layer.getmember("bin/alias").linkname == "/bin/tool"
        assert layer.getmember("tmp").mode == 0o1777
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == ".layer") == []


def test_control_plane_images_have_the_names_that_kubeadm_asks_for() -> None:
    assert [image.name for image in recipes.control_plane(BINARIES)] == [
        "exectrail.lab/kube-apiserver:v1.35.4",
        "exectrail.lab/kube-controller-manager:v1.35.4",
        "exectrail.lab/kube-scheduler:v1.35.4",
        "exectrail.lab/etcd:3.6.6-0",
    ]
