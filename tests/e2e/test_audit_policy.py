"""The audit policy on a cluster of three masters, as its users see it: playbook, API and log.

The tests are steps of one story and need the order in which they stand.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from exectrail.audit_policy import profiles
from exectrail.audit_policy.lint import load
from exectrail.audit_policy.policy import Decision, Policy, Request, decide
from lab.cluster.kubeadm import PATCHES, kubectl, kubectl_command
from lab.cluster.layout import API_PORT, Cluster, Node
from lab.cluster.lifecycle import cluster
from lab.images import recipes
from tests.e2e.rollout import (
    MANIFEST,
    MANIFESTS,
    POLICY,
    ROOT,
    await_ready,
    on,
    ready,
    replace,
    restart,
    server,
    wait,
)

LOG = "var/log/kubernetes/kubernetes.audit"
ANNOTATION = "exectrail.audit/policy-sha256"
SOMEBODYS_POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None}]\n"
VERBS = {"POST": "create", "PUT": "update", "DELETE": "delete"}


# --- the cluster and what it looks like ----------------------------------------------------------


@dataclass
class Trio:
    """The cluster, and how it was before the first roll-out."""

    cluster: Cluster
    folder: Path
    manifests: dict[str, str] = field(default_factory=dict)
    configuration: Any = None

    @property
    def masters(self) -> list[Node]:
        return self.cluster.masters

    def file(self, node: Node, path: str) -> Path:
        return self.cluster.root(node) / path

    def play(self, *options: str, hosts: list[Node] | None = None, **variables: Any) -> Ran:
        """Run the playbook as a user does; `hosts` are the inventory's masters."""
        inventory = self.folder / "hosts.yml"
        known: Any = self.cluster.inventory()
        if hosts is not None:
            found = {node.name: {"ansible_host": node.address} for node in hosts}
            known["all"]["children"]["masters"]["hosts"] = found
        inventory.write_text(yaml.safe_dump(known))
        settings = {
            "audit_policy_report_dir": str(self.folder / "run"),
            "audit_policy_stable_seconds": 1,
            **{f"audit_policy_{name}": value for name, value in variables.items()},
        }
        done = subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                *("playbooks/audit_policy.yml", "-i", str(inventory)),
                *("-e", json.dumps(settings), *options),
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout + done.stderr)

    def kubeadm(self) -> Any:
        found = json.loads(
            kubectl(self.cluster, "-n=kube-system", "get", "cm", "kubeadm-config", "-o=json")
        )
        return yaml.safe_load(found["data"]["ClusterConfiguration"])


@dataclass(frozen=True)
class Ran:
    code: int
    said: str

    @property
    def changed(self) -> dict[str, int]:
        """How many changes the recap counts, by host."""
        counts = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", self.said, re.MULTILINE)
        return {host: int(count) for host, count in counts}

    def good(self) -> Ran:
        assert self.code == 0, self.said
        return self


def arguments(node: Node) -> list[str]:
    found = server(node)
    return [word for word in found[1] if word.startswith("--audit-")] if found else []


def somebodys(text: str) -> str:
    """Add audit settings of somebody else: at our policy's path, but with other values."""
    flags = (
        "    - --audit-log-maxage=7\n"
        "    - --audit-log-path=-\n"
        "    - --audit-policy-file=/etc/kubernetes/audit-policy.yaml\n"
    )
    mount = (
        "    - mountPath: /etc/kubernetes/audit-policy.yaml\n"
        "      name: policy-of-somebody\n"
        "      readOnly: true\n"
    )
    volume = (
        "  - hostPath:\n"
        "      path: /etc/kubernetes/audit-policy.yaml\n"
        "      type: File\n"
        "    name: policy-of-somebody\n"
    )
    text = text.replace("    - --authorization-mode", f"{flags}    - --authorization-mode", 1)
    text = text.replace("    volumeMounts:\n", f"    volumeMounts:\n{mount}", 1)
    return text.replace("  volumes:\n", f"  volumes:\n{volume}", 1)


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Three masters, the second with audit settings of somebody else; a worker with a pod."""
    with cluster("test-audit", masters=3) as made:
        found = Trio(made, tmp_path_factory.mktemp("audit"))
        policy = found.file(found.masters[1], POLICY)
        policy.write_text(SOMEBODYS_POLICY)
        policy.chmod(0o640)
        for position, node in enumerate(found.masters):
            text = found.file(node, MANIFEST).read_text()
            found.manifests[node.name] = somebodys(text) if position == 1 else text
        second = found.masters[1]
        restart(made, second, found.manifests[second.name])
        wait(lambda: "--audit-log-maxage=7" in arguments(second), 90, second.name)
        wait(lambda: ready(made, second), 90, second.name)
        kubectl(made, "run", "seen", f"--image={recipes.BUSYBOX}")
        found.configuration = found.kubeadm()
        yield found


def tree(trio: Trio, node: Node) -> dict[str, tuple[int, int, int]]:
    """All that a roll-out could have touched: mode, size, time of change."""
    root = trio.cluster.root(node)
    found = {}
    for top in ("etc", "home", "opt", "root", "tmp", "usr/local", "var/log/kubernetes", "var/tmp"):
        for path in [root / top, *(root / top).rglob("*")]:
            if os.path.lexists(path):
                seen = path.lstat()
                found[str(path.relative_to(root))] = (seen.st_mode, seen.st_size, seen.st_mtime_ns)
    return found


def state(trio: Trio, node: Node) -> tuple[str, str, int | None]:
    """What a run without changes leaves as it is: manifest, policy, process."""
    found = server(node)
    return (
        trio.file(node, MANIFEST).read_text(),
        trio.file(node, POLICY).read_text(),
        found[0] if found else None,
    )


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):04o}"


# --- people and the log --------------------------------------------------------------------------


class People:
    """Clients of one master, with certificates of the cluster's own authority."""

    def __init__(self, trio: Trio, node: Node) -> None:
        self.trio = trio
        self.node = node
        pki = trio.file(self.node, "etc/kubernetes/pki")
        self.authority = pki / "ca.crt"
        self._signer = x509.load_pem_x509_certificate(self.authority.read_bytes())
        self._key: Any = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
        self._known: dict[tuple[str, tuple[str, ...]], Path] = {}

    def credentials(self, user: str, groups: tuple[str, ...] = ()) -> Path:
        """Give the file with certificate and key, made at the first call."""
        known = (user, groups)
        if known not in self._known:
            path = self.trio.folder / f"client-{len(self._known)}.pem"
            path.touch(mode=0o600)
            path.write_bytes(self._issue(user, groups))
            self._known[known] = path
        return self._known[known]

    def _issue(self, user: str, groups: tuple[str, ...]) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        now = dt.datetime.now(dt.UTC)
        signed = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(self._signer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=2))
            .add_extension(x509.ExtendedKeyUsage([x509.OID_CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return signed.public_bytes(serialization.Encoding.PEM) + private

    def ask(self, asked: Asked, agent: str) -> int:
        """Make the request and give the status of the answer."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.credentials(asked.user, asked.groups))
        client = http.client.HTTPSConnection(
            self.node.address, API_PORT, context=context, timeout=20
        )
        headers = {"User-Agent": agent, "Content-Type": "application/json"}
        body = None if asked.body is None else json.dumps(asked.body)
        try:
            client.request(asked.method, asked.path, body=body, headers=headers)
            answer = client.getresponse()
            answer.read()
            return answer.status
        finally:
            client.close()

    def kubectl(self, user: str, *words: str) -> str:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {
                        "server": f"https://{self.node.address}:{API_PORT}",
                        "certificate-authority": str(self.authority),
                    },
                }
            ],
            "users": [
                {
                    "name": "u",
                    "user": {
                        "client-certificate": str(self.credentials(user)),
                        "client-key": str(self.credentials(user)),
                    },
                }
            ],
        }
        path = self.trio.folder / f"{user}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        argv = kubectl_command(self.trio.cluster, f"--kubeconfig={path}", *words)
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    def lines(self) -> list[dict[str, Any]]:
        """All of the log, after a request that marks its end has come into it."""
        mark = f"exectrail-test-end-{time.monotonic_ns()}"
        assert self.ask(get("alice", "/api/v1/namespaces/default/secrets/none"), mark)
        path = self.trio.file(self.node, LOG)
        wait(lambda: mark in path.read_text(), 10, "the log has the last request")
        return [json.loads(line) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Asked:
    """A request, as HTTP has it and as the API server understands it."""

    user: str
    method: str
    path: str
    seen: Mapping[str, str]
    """Verb and attributes, as `policy.Request` names them."""
    groups: tuple[str, ...] = ()
    body: Any = None

    @property
    def request(self) -> Request:
        return Request(self.user, groups=(*self.groups, "system:authenticated"), **self.seen)

    @property
    def title(self) -> str:
        return f"{self.user} {self.seen['verb']} {self.path}"


_API = re.compile(
    r"/(api/v1|apis/(?P<group>[^/?]+)/[^/?]+)"
    r"(/namespaces/(?P<namespace>[^/?]+)(?=/))?"
    r"/(?P<resource>[^/?]+)(/(?P<name>[^/?]+))?(\?.*)?"
)


def asked(user: str, method: str, path: str, groups: tuple[str, ...] = (), body: Any = None) -> Any:
    found = _API.fullmatch(path)
    if not found:
        return Asked(user, method, path, {"verb": method.lower(), "path": path}, groups, body)
    parts = {key: value or "" for key, value in found.groupdict().items()}
    if parts["resource"] == "namespaces":
        parts["namespace"] = parts["name"]
    verb = VERBS.get(method) or ("get" if parts["name"] else "list")
    seen = {
        "verb": "watch" if "watch=1" in path else verb,
        "api_group": parts["group"],
        "resource": parts["resource"],
        "namespace": parts["namespace"],
        "name": parts["name"],
    }
    return Asked(user, method, path, seen, groups, body)


def get(user: str, path: str, *groups: str) -> Asked:
    made: Asked = asked(user, "GET", path, groups)
    return made


def post(user: str, path: str, body: Any) -> Asked:
    made: Asked = asked(user, "POST", path, (), body)
    return made


KNOWN_GROUPS = {
    "": ("v1", "pods"),
    "admissionregistration.k8s.io": ("v1", "validatingwebhookconfigurations"),
    "apps": ("v1", "deployments"),
    "authentication.k8s.io": ("v1", "selfsubjectreviews"),
    "authorization.k8s.io": ("v1", "subjectaccessreviews"),
    "autoscaling": ("v2", "horizontalpodautoscalers"),
    "batch": ("v1", "jobs"),
    "certificates.k8s.io": ("v1", "certificatesigningrequests"),
    "extensions": ("v1beta1", "ingresses"),
    "networking.k8s.io": ("v1", "networkpolicies"),
    "policy": ("v1", "poddisruptionbudgets"),
    "rbac.authorization.k8s.io": ("v1", "clusterroles"),
    "settings.k8s.io": ("v1alpha1", "podpresets"),
    "storage.k8s.io": ("v1", "storageclasses"),
}
"""The groups that the profile names, and one resource of each; some are long gone from servers."""
SYSTEM = "/api/v1/namespaces/kube-system"
DEFAULT = "/api/v1/namespaces/default"
MANAGER, SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"
ENDPOINTS = "system:serviceaccount:kube-system:endpoint-controller"
SECRET = "a-secret-that-no-log-may-have"  # noqa: S105 - that is what the test is about
POD = {"metadata": {"name": "never"}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
EVENT = {
    "metadata": {"name": "seen"},
    "involvedObject": {"kind": "Pod", "namespace": "default", "name": "seen"},
}


def group_path(group: str) -> str:
    version, resource = KNOWN_GROUPS[group]
    return f"/apis/{group}/{version}/{resource}" if group else f"/api/v1/{resource}"


REQUESTS: tuple[Asked, ...] = (
    # Each rule that drops something, then what nearly matches it.
    get("system:kube-proxy", "/api/v1/services?watch=1&timeoutSeconds=1"),
    get("system:kube-proxy", "/api/v1/endpoints?watch=1&timeoutSeconds=1"),
    get("system:kube-proxy", "/api/v1/services"),
    get("system:kube-proxy", "/api/v1/nodes?watch=1&timeoutSeconds=1"),
    get("alice", "/api/v1/services?watch=1&timeoutSeconds=1"),
    get("system:unsecured", f"{SYSTEM}/configmaps/kubeadm-config"),
    get("system:unsecured", f"{SYSTEM}/configmaps"),
    get("system:unsecured", f"{DEFAULT}/configmaps/kube-root-ca.crt"),
    get("kubelet", "/api/v1/nodes/test-audit-worker-1"),
    get("kubelet", "/api/v1/nodes"),
    get("system:node:test-audit-worker-1", "/api/v1/nodes/test-audit-worker-1", "system:nodes"),
    get("system:node:test-audit-worker-1", "/api/v1/services", "system:nodes"),
    *(get(user, f"{SYSTEM}/endpoints/none") for user in (MANAGER, SCHEDULER, ENDPOINTS)),
    *(
        asked(user, "PUT", f"{SYSTEM}/endpoints/none", (), {"metadata": {"name": "none"}})
        for user in (MANAGER, SCHEDULER, ENDPOINTS)
    ),
    get(MANAGER, f"{SYSTEM}/endpoints"),
    get(SCHEDULER, f"{DEFAULT}/endpoints/kubernetes"),
    asked(ENDPOINTS, "DELETE", f"{SYSTEM}/endpoints/none"),
    get("alice", f"{SYSTEM}/endpoints/none"),
    get("system:apiserver", "/api/v1/namespaces/default"),
    get("system:apiserver", "/api/v1/namespaces"),
    get("alice", "/api/v1/namespaces/default"),
    *(get("alice", path) for path in ("/healthz", "/healthz/ping", "/version", "/swagger.json")),
    # The vendor's rule knows /healthz only; kubelet and load balancers ask these today.
    *(get("alice", path) for path in ("/readyz", "/livez", "/metrics", "/openapi/v2")),
    get("alice", f"{DEFAULT}/events"),
    post("alice", f"{DEFAULT}/events", EVENT),
    get("alice", "/apis/events.k8s.io/v1/events"),
    # No bodies.
    post("alice", f"{DEFAULT}/secrets", {"metadata": {"name": "s"}, "stringData": {"s": SECRET}}),
    get("alice", f"{DEFAULT}/secrets/s"),
    get("alice", f"{DEFAULT}/secrets"),
    post("alice", f"{DEFAULT}/configmaps", {"metadata": {"name": "c"}, "data": {"c": SECRET}}),
    get("alice", f"{DEFAULT}/configmaps/c"),
    post(
        "alice",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": SECRET},
        },
    ),
    # Reads and changes of each known group.
    *(get("alice", group_path(group)) for group in KNOWN_GROUPS),
    *(get("alice", f"{group_path(group)}/none") for group in KNOWN_GROUPS),
    *(
        get("alice", f"{group_path(group)}?watch=1&timeoutSeconds=1")
        for group in ("", "apps", "storage.k8s.io")
    ),
    *(post("alice", group_path(group), {}) for group in KNOWN_GROUPS),
    post("alice", f"{DEFAULT}/pods?dryRun=All", POD),
    asked("alice", "DELETE", f"{DEFAULT}/pods/none"),
    # Everything else.
    get("alice", "/apis/coordination.k8s.io/v1/leases"),
    asked("alice", "DELETE", "/apis/coordination.k8s.io/v1/namespaces/default/leases/none"),
    get("alice", "/apis/discovery.k8s.io/v1/endpointslices"),
    get("alice", "/apis"),
)


@dataclass
class Seen:
    """What was asked under the profile `registered`, and the whole log after it."""

    policy: Policy
    log: list[dict[str, Any]]

    def decision(self, one: Asked) -> Decision:
        return decide(self.policy, one.request)

    def lines(self, one: Asked) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("userAgent") == agent(one)]


def agent(one: Asked) -> str:
    return f"exectrail-test-{REQUESTS.index(one)}"


def registered(folder: Path) -> Policy:
    path = folder / "registered.yaml"
    path.write_text(profiles.render("registered", "v1.35.4"))
    return load(path, profiles.kubernetes_version("v1.35.4")).policy


@pytest.fixture(scope="module")
def people(trio: Trio) -> People:
    """Everybody of the requests may do everything; who may exec has a role for it."""
    allowed = {one.user for one in REQUESTS} - {"alice", "bob"}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    look = [{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get", "create"]}]

    def binding(name: str, role: str, users: set[str]) -> dict[str, Any]:
        kind = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        subjects = [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
            for user in sorted(users)
        ]
        return _rbac("ClusterRoleBinding", name, roleRef=kind, subjects=subjects)

    objects = [
        _rbac("ClusterRole", "everything", rules=rules),
        _rbac("ClusterRole", "look-into-pods", rules=look),
        binding("everything", "everything", allowed | {"alice"}),
        binding("look-into-pods", "look-into-pods", {"bob"}),
    ]
    kubectl(trio.cluster, "apply", "-f=-", stdin=yaml.safe_dump_all(objects).encode())
    return People(trio, trio.masters[0])


def _rbac(kind: str, name: str, **more: Any) -> dict[str, Any]:
    version = "rbac.authorization.k8s.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


@pytest.fixture(scope="module")
def seen(trio: Trio, people: People) -> Seen:
    watches = [one for one in REQUESTS if one.seen["verb"] == "watch"]
    for one in watches:
        people.credentials(one.user, one.groups)
    with ThreadPoolExecutor(len(watches)) as pool:
        answers = list(pool.map(lambda one: people.ask(one, agent(one)), watches))
    answers += [people.ask(one, agent(one)) for one in REQUESTS if one not in watches]
    assert http.client.UNAUTHORIZED not in answers
    return Seen(registered(trio.folder), people.lines())


# --- not applicable ------------------------------------------------------------------------------


def test_a_host_without_an_api_server_is_not_applicable(trio: Trio) -> None:
    (worker,) = trio.cluster.workers
    before = tree(trio, worker)
    ran = trio.play(hosts=[worker]).good()
    assert f"Not applicable: {worker.name}: no API server runs here" in ran.said
    assert ran.changed == {worker.name: 0}
    assert tree(trio, worker) == before


def test_a_process_that_is_named_like_k3s_is_not_applicable(trio: Trio) -> None:
    (worker,) = trio.cluster.workers
    # The name of a process is its program's.
    program = trio.file(worker, "opt/k3s-server")
    shutil.copy(trio.file(worker, "bin/sleep"), program)
    command = trio.cluster.ssh_command(worker, ["/opt/k3s-server", "60"])
    fake = subprocess.Popen(command)
    try:
        wait(lambda: _named("k3s-server"), 20, "the process runs")
        ran = trio.play(hosts=[worker]).good()
        assert f"Not applicable: {worker.name}: its API server is run by k3s" in ran.said
        assert ran.changed == {worker.name: 0}
    finally:
        _end("k3s-server")
        fake.wait(10)
        program.unlink()


def _named(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes().startswith(f"/opt/{name}\0".encode()):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def _end(name: str) -> None:
    for pid in _named(name):
        os.kill(pid, 15)


# --- the way in ----------------------------------------------------------------------------------


def test_somebody_elses_settings_are_not_replaced_unasked(trio: Trio) -> None:
    before = [tree(trio, node) for node in trio.masters]
    ran = trio.play()
    assert ran.code != 0
    second = trio.masters[1].name
    assert "No master was touched" in ran.said
    assert re.search(rf"{second}: kube-apiserver\.yaml: .*somebody else has set", ran.said)
    assert "--audit-log-maxage" in ran.said
    assert "audit_policy_take_over" in ran.said
    assert [tree(trio, node) for node in trio.masters] == before


def test_check_mode_shows_all_changes_and_makes_none(trio: Trio) -> None:
    before = [tree(trio, node) for node in trio.masters]
    pids = [server(node) for node in trio.masters]
    ran = trio.play("--check", "--diff", take_over=True).good()
    assert ran.said.count("+    - --audit-policy-file=/etc/kubernetes/audit-policy.yaml") == 2
    assert ran.said.count("-    - --audit-log-maxage=7") == 1
    assert ran.said.count("+    - --audit-log-maxage=30") == 3
    assert ran.said.count("+++ after: /etc/kubernetes/audit-policy.yaml") == 3
    assert ran.said.count('+    users: ["system:kube-proxy"]') == 3
    assert "+++ after: kubeadm ClusterConfiguration" in ran.said
    assert ran.changed[trio.masters[1].name] == 1
    assert [tree(trio, node) for node in trio.masters] == before
    assert [server(node) for node in trio.masters] == pids
    assert trio.kubeadm() == trio.configuration


def test_a_limit_changes_one_master_and_tells_of_the_others(trio: Trio) -> None:
    first, second, third = trio.masters
    before = [tree(trio, node) for node in (second, third)]
    ran = trio.play("--limit", first.name, take_over=True).good()
    assert ran.changed == {first.name: 1}
    left = f"Left out by the limit, and different from these settings: {second.name}, {third.name}"
    assert left in ran.said
    assert f"--audit-policy-file=/{POLICY}" in arguments(first)
    assert [tree(trio, node) for node in (second, third)] == before
    # An upgrade would give settings to masters that were never to have them.
    assert trio.kubeadm() == trio.configuration


def test_the_others_follow_one_at_a_time(trio: Trio) -> None:
    first, second, third = trio.masters
    before = state(trio, first)
    ran = trio.play(take_over=True).good()
    assert [ran.changed[node.name] for node in (second, third)] == [1, 1]
    assert ran.said.index(f"{second.name}: done") < ran.said.index(f"{third.name}: manifest and")
    assert state(trio, first) == before
    wanted = {
        "--audit-log-maxage=30",
        "--audit-log-maxbackup=10",
        "--audit-log-maxsize=100",
        f"--audit-log-path=/{LOG}",
        f"--audit-policy-file=/{POLICY}",
    }
    assert all(set(arguments(node)) == wanted for node in trio.masters)
    kept = {each["name"] for each in trio.kubeadm()["apiServer"]["extraArgs"]}
    assert kept == {word.removeprefix("--").partition("=")[0] for word in wanted}


def test_modes_are_narrow_and_nothing_stray_is_left(trio: Trio) -> None:
    names = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    for node in trio.masters:
        policy, log = trio.file(node, POLICY), trio.file(node, LOG)
        assert mode(policy) == "0600"
        assert (policy.stat().st_uid, policy.stat().st_gid) == (0, 0)
        assert mode(log.parent) == "0700"
        assert mode(log) == "0600"
        pods = {entry.name for entry in trio.file(node, MANIFESTS).iterdir()}
        assert pods == {f"{name}.yaml" for name in names}
        assert not [entry for entry in policy.parent.iterdir() if entry.name.startswith(".")]
        state_dir = trio.file(node, "etc/kubernetes/exectrail")
        assert mode(state_dir) == "0700"
        assert not list(state_dir.glob("staged*"))


def test_nodes_need_no_package_of_ours(trio: Trio) -> None:
    for node in trio.masters:
        tried = subprocess.run(
            trio.cluster.ssh_command(node, ["python3", "-c", "'import exectrail'"]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "No module named 'exectrail'" in tried.stderr


def test_a_second_run_changes_nothing(trio: Trio) -> None:
    before = [(state(trio, node), tree(trio, node)) for node in trio.masters]
    ran = trio.play().good()
    assert ran.changed == {node.name: 0 for node in trio.masters}
    assert "Every master has the settings, and its API server obeys them." in ran.said
    logs = f"{Path(LOG).parent}"
    for node, (known, files) in zip(trio.masters, before, strict=True):
        assert state(trio, node) == known
        now = tree(trio, node)
        assert now.keys() == files.keys()
        assert not [path for path in now if now[path] != files[path] and not path.startswith(logs)]


# --- what is in the log --------------------------------------------------------------------------


def test_every_rule_is_exercised(seen: Seen) -> None:
    decided = {seen.decision(one).rule for one in REQUESTS}
    assert decided == set(range(len(seen.policy.rules)))
    named = {item.group for rule in seen.policy.rules[9:11] for item in rule.resources}
    assert named == set(KNOWN_GROUPS)


@pytest.mark.parametrize("one", REQUESTS, ids=lambda one: one.title)
def test_a_request_is_recorded_as_the_policy_says(one: Asked, seen: Seen) -> None:
    decision, lines = seen.decision(one), seen.lines(one)
    if decision.level == "None":
        assert lines == []
        return
    assert {line["level"] for line in lines} == {decision.level}
    stages = [line["stage"] for line in lines]
    assert stages[-1] == "ResponseComplete"
    assert set(stages) <= set(decision.stages)
    expected = one.request
    for line in lines:
        assert (line["user"]["username"], line["verb"]) == (expected.user, expected.verb)
        found = line.get("objectRef", {})
        assert found.get("apiGroup", "") == expected.api_group
        assert found.get("resource", "") == expected.resource
        assert found.get("namespace", "") == expected.namespace
        # Of what is made, the server adds the name that the body has.
        assert not expected.name or found.get("name") == expected.name
        assert "responseObject" not in line or decision.level == "RequestResponse"
        assert "requestObject" not in line or decision.level in {"Request", "RequestResponse"}


def test_changes_have_both_bodies(seen: Seen) -> None:
    (one,) = (one for one in REQUESTS if one.body is POD)
    (line,) = seen.lines(one)
    assert line["requestObject"]["spec"]["containers"][0]["name"] == "c"
    assert line["responseObject"]["metadata"]["name"] == "never"


def test_secrets_and_tokens_are_in_no_line(trio: Trio, seen: Seen) -> None:
    assert seen.log
    text = trio.file(trio.masters[0], LOG).read_text()
    assert SECRET not in text
    assert base64.b64encode(SECRET.encode()).decode() not in text
    written = [line for line in seen.log if line.get("objectRef", {}).get("resource") == "secrets"]
    assert {line["level"] for line in written} == {"Metadata"}


def test_the_clusters_own_noise_is_not_there(seen: Seen) -> None:
    for line in seen.log:
        resource = line.get("objectRef", {})
        assert (resource.get("resource"), resource.get("apiGroup")) != ("events", None)
        assert not line["requestURI"].startswith(("/healthz", "/version", "/swagger"))
        user, verb = line["user"].get("username"), line["verb"]
        watched = resource.get("resource") in {"services", "endpoints"} and verb == "watch"
        assert not (user == "system:kube-proxy" and watched)
        assert line["stage"] != "RequestReceived"


def test_an_exec_of_each_user_is_recorded(trio: Trio, people: People) -> None:
    kubectl(trio.cluster, "wait", "--for=condition=Ready", "pod/seen", "--timeout=60s")
    for user in ("alice", "bob"):
        assert user in people.kubectl(user, "exec", "seen", "--", "echo", f"I am {user}")
    found = {
        line["user"]["username"]: line
        for line in people.lines()
        if line.get("objectRef", {}).get("subresource") == "exec"
        and line["stage"] == "ResponseComplete"
    }
    assert set(found) == {"alice", "bob"}
    for user, role in (("alice", "everything"), ("bob", "look-into-pods")):
        line = found[user]
        assert line["verb"] == "get"
        assert line["level"] == "Request"
        target = line["objectRef"]
        assert (target["resource"], target["namespace"], target["name"]) == (
            *("pods", "default", "seen"),
        )
        asked_for = parse_qs(urlsplit(line["requestURI"]).query)
        assert asked_for["command"] == ["echo", f"I am {user}"]
        assert line["annotations"]["authorization.k8s.io/decision"] == "allow"
        assert f'ClusterRole "{role}"' in line["annotations"]["authorization.k8s.io/reason"]


# --- changed later -------------------------------------------------------------------------------


SERVICES = f"{DEFAULT}/services"
OWN_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
  - level: None
    nonResourceURLs: [/readyz*, /livez*]
  - level: Metadata
"""
GROUP = "autoscaling.alibabacloud.com"
CRD = f"cronhorizontalpodautoscalers.{GROUP}"
NIGHTLY = {
    "apiVersion": f"{GROUP}/v1beta1",
    "kind": "CronHorizontalPodAutoscaler",
    "metadata": {"name": "nightly"},
}
CUSTOM = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": CRD},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "cronhorizontalpodautoscalers", "kind": "CronHorizontalPodAutoscaler"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


def levels(people: People, mark: str, requests: Sequence[Asked]) -> list[set[str]]:
    """Make requests and give the levels of the lines that each leaves."""
    for position, one in enumerate(requests):
        people.ask(one, f"{mark}-{position}")
    log = people.lines()
    return [
        {line["level"] for line in log if line.get("userAgent") == f"{mark}-{position}"}
        for position in range(len(requests))
    ]


def test_an_upgrade_by_kubeadm_keeps_the_settings(trio: Trio) -> None:
    first, _, third = trio.masters
    # Its checks wait for a job whose image is not here.
    options = ["--yes", "--force", "--etcd-upgrade=false", "--skip-phases=preflight"]
    command = ["kubeadm", "upgrade", "apply", trio.cluster.version, *options]
    old = server(first)
    with subprocess.Popen(
        trio.cluster.ssh_command(first, [*command, f"--patches=/{PATCHES}"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as upgrade:
        try:
            wait(lambda: server(first) not in (old, None), 120, "kubeadm has changed the manifest")
            wait(lambda: ready(trio.cluster, first), 90, "the API server is ready")
            # kubeadm waits for what the kubelet tells of the pod, and a kubelet takes up to two
            # minutes to turn to an API server that was away. Started anew, it does at once.
            on(trio.cluster, first, "systemctl", "restart", "kubelet")
            said, _ = upgrade.communicate(timeout=300)
        finally:
            upgrade.kill()
    assert upgrade.returncode == 0, said
    assert ANNOTATION not in trio.file(first, MANIFEST).read_text()
    # As on a master that nobody has upgraded.
    assert set(arguments(first)) == set(arguments(third))


def test_the_next_run_adopts_them_with_another_profile_and_rules_of_the_users_own(
    trio: Trio, people: People
) -> None:
    first = trio.masters[0]
    kubectl(trio.cluster, "apply", "-f=-", stdin=json.dumps(CUSTOM).encode())
    kubectl(trio.cluster, "wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")
    path = f"/apis/{GROUP}/v1beta1/namespaces/default/cronhorizontalpodautoscalers"
    requests = (get("alice", path), post("alice", path, NIGHTLY), get("alice", SERVICES))
    assert levels(people, "before", requests) == [{"Metadata"}, {"Metadata"}, {"Request"}]
    kubectl(trio.cluster, "-n=default", "delete", CRD, "nightly")
    old = server(first)
    services = [{"group": "", "resources": ["services"]}]
    own = [{"level": "None", "users": ["alice"], "resources": services}]
    ran = trio.play("--diff", "--limit", first.name, profile="ack", rules_first=own).good()
    drift = f"{first.name}: drift: kube-apiserver.yaml was rendered anew by kubeadm"
    assert drift in ran.said
    assert ran.changed == {first.name: 1}
    assert f"+      - group: {GROUP}" in ran.said
    assert ANNOTATION in trio.file(first, MANIFEST).read_text()
    assert server(first) != old
    # The profile names the group with the changes only, and that rule takes the reads as well.
    found = levels(people, "after", requests)
    assert found == [{"RequestResponse"}, {"RequestResponse"}, set()]


def test_changes_by_hand_are_told_and_repaired_with_a_policy_of_the_users_own(trio: Trio) -> None:
    second = trio.masters[1]
    manifest, policy, log = (trio.file(second, path) for path in (MANIFEST, POLICY, LOG))
    right = manifest.read_text()
    replace(manifest, right.replace("maxage=30", "maxage=99"))
    policy.write_text(policy.read_text().replace("RequestResponse", "Metadata"))
    policy.chmod(0o644)
    log.parent.chmod(0o755)
    wait(lambda: "--audit-log-maxage=99" in arguments(second), 90, "the kubelet has noticed")
    wait(lambda: ready(trio.cluster, second), 90, "the API server is ready")
    own = trio.folder / "own.yaml"
    own.write_text(OWN_POLICY)
    ran = trio.play("--limit", second.name, file=str(own)).good()
    told = [
        f"{second.name}: drift: kube-apiserver.yaml was changed by hand since the last run",
        f"{second.name}: drift: the policy file was changed by hand since the last run",
        "the policy file has mode 0644",
        "the log folder has mode 0755",
    ]
    assert [words for words in told if words not in ran.said] == []
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert manifest.read_text() == re.sub(rf'({ANNOTATION}: ")\w+', rf"\g<1>{digest}", right)
    assert policy.read_bytes() == own.read_bytes()
    assert (mode(policy), mode(log.parent)) == ("0600", "0700")
    assert "--audit-log-maxage=30" in arguments(second)
    people = People(trio, second)
    assert levels(people, "own", (get("alice", "/readyz"), get("alice", SERVICES))) == [
        set(),
        {"Metadata"},
    ]


# --- the way out ---------------------------------------------------------------------------------


def test_one_master_is_freed_with_its_logs(trio: Trio) -> None:
    first, second, third = trio.masters
    ran = trio.play("--limit", third.name, state="absent", remove_logs=True).good()
    assert f"different from these settings: {first.name}, {second.name}" in ran.said
    assert trio.file(third, MANIFEST).read_text() == trio.manifests[third.name]
    assert not trio.file(third, POLICY).exists()
    assert not trio.file(third, LOG).parent.exists()
    assert arguments(third) == []
    assert arguments(first) != []


def test_absent_restores_what_was_there_and_keeps_the_logs(trio: Trio) -> None:
    first, second, third = trio.masters
    before = server(third)
    ran = trio.play(state="absent").good()
    assert ran.changed[third.name] == 0
    for node in trio.masters:
        assert trio.file(node, MANIFEST).read_text() == trio.manifests[node.name]
        await_ready(trio.cluster, node)
    assert server(third) == before
    assert arguments(first) == []
    assert not trio.file(first, POLICY).exists()
    # Somebody else's settings are in force again.
    assert "--audit-log-maxage=7" in arguments(second)
    assert "--audit-log-path=-" in arguments(second)
    assert trio.file(second, POLICY).read_text() == SOMEBODYS_POLICY
    assert mode(trio.file(second, POLICY)) == "0640"
    for node in (first, second):
        assert trio.file(node, LOG).stat().st_size > 0
    assert trio.kubeadm() == trio.configuration


def test_absent_again_changes_nothing(trio: Trio) -> None:
    before = [(server(node), tree(trio, node)) for node in trio.masters]
    ran = trio.play(state="absent").good()
    assert ran.changed == {node.name: 0 for node in trio.masters}
    assert [(server(node), tree(trio, node)) for node in trio.masters] == before
