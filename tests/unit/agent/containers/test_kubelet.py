"""Asking for pods, of a real TLS server on this machine."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from exectrail_agent.containers import kubelet
from exectrail_agent.containers.fetch import Endpoint, FetchError, get
from exectrail_agent.containers.kubelet import KubeletPods, api_server

LIST = json.dumps({"items": [{"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c"}]}}]})


def answer(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.0 {status}\r\nContent-Type: application/json\r\n\r\n{body}".encode()


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "system:node:n1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("pem") / "both.pem"
    file.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file


class Server:
    """Answers each request with `parts`, `pause` seconds apart."""

    def __init__(self, pem: Path) -> None:
        self.parts = [answer(LIST)]
        self.pause = 0.0
        self.requests: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._context.load_verify_locations(pem)
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as secure:
                    subject = (secure.getpeercert() or {}).get("subject", "")
                    self.requests.append(secure.recv(4096).decode() + str(subject))
                    for part in self.parts:
                        secure.sendall(part)
                        time.sleep(self.pause)
                    secure.unwrap()
            except OSError:
                plain.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def server(pem: Path) -> Iterator[Server]:
    made = Server(pem)
    yield made
    made.close()


@pytest.fixture
def endpoint(server: Server, pem: Path) -> Endpoint:
    return Endpoint(f"https://127.0.0.1:{server.port}/pods?a=b", str(pem), cert_file=str(pem))


def fetch(endpoint: Endpoint, *, seconds: float = 60.0) -> bytes:
    return get(endpoint, seconds=seconds, limit=10_000)


def test_the_node_shows_its_certificate(server: Server, endpoint: Endpoint) -> None:
    assert fetch(endpoint).decode() == LIST
    assert server.requests[0].startswith("GET /pods?a=b HTTP/1.0\r\n")
    assert "system:node:n1" in server.requests[0]
    assert "Authorization" not in server.requests[0]


def test_a_token_is_read_anew_each_time(server: Server, endpoint: Endpoint, tmp_path: Path) -> None:
    token = tmp_path / "token"
    asking = replace(endpoint, cert_file="", token_file=str(token))
    for text in ("one\n", "two"):
        token.write_text(text)
        fetch(asking)
    found = [request.partition("Bearer ")[2].splitlines()[0] for request in server.requests]
    assert found == ["one", "two"]


def test_a_server_that_proves_nothing_is_not_asked(server: Server, endpoint: Endpoint) -> None:
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(replace(endpoint, ca_file=""))
    with pytest.raises(FetchError, match="Hostname mismatch"):
        fetch(replace(endpoint, server_name="other"))
    assert server.requests == []


def test_the_whole_answer_has_one_deadline(server: Server, endpoint: Endpoint) -> None:
    server.parts, server.pause = [b"H", *[b"x"] * 600], 0.1
    began = time.monotonic()
    with pytest.raises(FetchError, match="time"):
        fetch(endpoint, seconds=0.3)
    assert time.monotonic() - began < 30


def test_a_server_that_does_not_speak_has_it_too(endpoint: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"https://127.0.0.1:{mute.getsockname()[1]}/"
        with pytest.raises(FetchError, match="timed out"):
            fetch(replace(endpoint, url=url), seconds=0.2)


def test_a_resolver_that_does_not_answer_has_it_too(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(60) or [])
    began = time.monotonic()
    with pytest.raises(FetchError, match="no address"):
        fetch(replace(endpoint, url="https://api.example/"), seconds=0.1)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "part",
    [b"", b"rubbish\r\n\r\n", answer("x" * 20_000), answer("", "403 Forbidden"), b"HTTP/1.0 200"],
)
def test_bad_answers_are_errors(server: Server, endpoint: Endpoint, part: bytes) -> None:
    server.parts = [part]
    try:
        body = fetch(endpoint)
    except FetchError:
        return
    assert body == b""


@pytest.mark.parametrize("missing", ["ca_file", "cert_file", "token_file"])
def test_missing_files_are_errors(endpoint: Endpoint, missing: str) -> None:
    with pytest.raises(FetchError, match="No such file"):
        fetch(replace(endpoint, **{missing: "/nonexistent"}))


class TestWhenItAsks:
    @pytest.fixture
    def pods(self, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> KubeletPods:
        monkeypatch.setattr(kubelet, "_SECONDS", 60.0)
        return KubeletPods(endpoint)

    def test_at_once_and_then_every_five_minutes(self, pods: KubeletPods, server: Server) -> None:
        assert pods.pod("u") is None
        assert pods.wait(7) == 0
        pods.poll(7)
        facts = pods.pod("u")
        assert facts
        assert facts.kinds == {"c": "container"}
        assert (pods.problem, pods.wait(7)) == ("", 300)
        pods.poll(306)
        assert len(server.requests) == 1
        pods.poll(307)
        assert len(server.requests) == 2

    def test_soon_for_a_container_it_does_not_know_but_not_for_ever(
        self, pods: KubeletPods, server: Server
    ) -> None:
        pods.poll(0)
        pods.want("u", "c")
        assert pods.wait(0) == 300
        pods.want("u", "new")
        now, waits = 0.0, []
        while pods.wait(now) < 300:
            waits.append(pods.wait(now))
            now += waits[-1]
            pods.poll(now)
        assert waits == [0, 0.25, 0.5, 1, 2]
        assert len(server.requests) == 6

    def test_a_crowd_of_new_containers_does_not_become_a_crowd_of_questions(
        self, pods: KubeletPods, server: Server
    ) -> None:
        for number in range(50):
            pods.want("u", f"new-{number}")
            pods.poll(number / 100)
        assert len(server.requests) == 10
        assert pods.wait(0.5) == 4.5

    def test_rarely_after_failures(self, pods: KubeletPods, server: Server) -> None:
        server.parts = [answer("{}", "403 Forbidden")]
        now, waits = 0.0, []
        for _ in range(10):
            pods.poll(now)
            waits.append(pods.wait(now))
            now += waits[-1]
        assert waits == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        assert "HTTP 403" in pods.problem
        assert "nodes/proxy" in pods.problem
        server.parts = [answer(LIST)]
        pods.poll(now)
        assert (pods.problem, pods.wait(now)) == ("", 300)

    def test_one_late_answer_is_no_problem_yet(
        self, pods: KubeletPods, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = answer(LIST)
        server.parts, server.pause = [whole[:1], whole[1:]], 0.6
        monkeypatch.setattr(kubelet, "_SECONDS", 0.2)
        pods.poll(0)
        assert (pods.problem, pods.wait(0)) == ("", 0.5)
        pods.poll(0.5)
        assert "labels and probes are not known" in pods.problem
        server.pause = 0.0
        monkeypatch.setattr(kubelet, "_SECONDS", 60.0)
        pods.poll(1.5)
        assert pods.problem == ""
        assert pods.pod("u")

    def test_an_old_answer_is_better_than_none(self, pods: KubeletPods, server: Server) -> None:
        pods.poll(0)
        server.parts = [answer("<html>")]
        pods.poll(300)
        assert "labels and probes are not known" in pods.problem
        assert pods.pod("u")

    def test_what_is_wanted_is_bounded(
        self, pods: KubeletPods, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kubelet, "_MAX_WANTED", 2)
        for number in range(5):
            pods.want("u", str(number))
        assert len(pods._wanted) == 2


class TestTheNodesCredentials:
    CONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {ca}
    server: https://10.0.0.1:6443
  name: default-cluster
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
"""

    def write(self, tmp_path: Path, text: str) -> str:
        file = tmp_path / "kubelet.conf"
        file.write_text(text)
        return str(file)

    def test_kubeadms_file(self, tmp_path: Path) -> None:
        ca = base64.b64encode(b"-----BEGIN").decode()
        found = api_server("n1", self.write(tmp_path, self.CONFIG.format(ca=ca)))
        pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
        assert found == Endpoint(
            "https://10.0.0.1:6443/api/v1/pods?fieldSelector=spec.nodeName%3Dn1&resourceVersion=0",
            ca_text="-----BEGIN",
            cert_file=pem,
            key_file=pem,
        )

    def test_json_and_relative_paths(self, tmp_path: Path) -> None:
        text = json.dumps(
            {
                "clusters": [{"cluster": {"server": "https://k/", "certificate-authority": "ca"}}],
                "users": [{"user": {"tokenFile": "/token"}}],
            },
            indent=1,
        )
        found = api_server("n1", self.write(tmp_path, text))
        assert (found.ca_file, found.token_file) == (str(tmp_path / "ca"), "/token")
        assert found.url.startswith("https://k/api/v1/pods?")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace("https://", "http://"), "no server with https"),
            (lambda text: text + "    server: https://other\n", "more than one server"),
            (lambda text: text.replace("client-certificate", "client-x"), "client certificate"),
            (lambda text: text.replace("certificate-authority-data", "x"), "authority"),
            (lambda _: "", "no server"),
        ],
    )
    def test_files_that_do_not_say_it(
        self, tmp_path: Path, change: Callable[[str], str], message: str
    ) -> None:
        with pytest.raises(ValueError, match=message):
            api_server("n1", self.write(tmp_path, change(self.CONFIG.format(ca="eA=="))))
