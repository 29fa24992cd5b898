"""The script that looks at what is installed, on small trees that stand for a node."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.unit.scripts import MODULES, interpreters, load

SCRIPT = MODULES / "installation_evidence.py"
REFERENCE = MODULES.parents[1] / "docs" / "reference" / "evidence.md"
LOG = "var/log/exectrail/advaudit.log"

# What stands for the agent: on SIGUSR1 it writes a record and its status, as far as told.
AGENT = """
import json, os, signal, sys, time
root, does = sys.argv[1:]
log = root + "/var/log/exectrail/advaudit.log"
def test(*_):
    if "rotates" in does:
        os.rename(log, log + ".1")
    if "records" in does:
        with open(log + (".1" if "before" in does else ""), "a") as stream:
            stream.write('{"seq":9,"kind":"Health","health.cause":"canary"}\\n')
        open(log, "a").close()
    if "sees" in does:
        with open(root + "/run/exectrail-agent/.status", "w") as status:
            json.dump({"canary": time.time(), "pid": os.getpid()}, status)
        os.rename(root + "/run/exectrail-agent/.status", root + "/run/exectrail-agent/status.json")
if "listens" in does:
    signal.signal(signal.SIGUSR1, test)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def module() -> ModuleType:
    load("node_evidence")
    return load("installation_evidence")


def put(root: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def systemctl(root: Path, text: str, code: int = 0) -> None:
    (root / "run/systemd/system").mkdir(parents=True)
    put(root, {"answer": text})
    put(root, {"usr/bin/systemctl": f"#!/bin/sh\ncat '{root}/answer'\nexit {code}\n"})
    (root / "usr/bin/systemctl").chmod(0o755)


def shown(pid: int = 0, agent: str = "loaded") -> str:
    return (
        f"Id=exectrail-agent.service\nLoadState={agent}\nUnitFileState=enabled\n"
        f"ActiveState=active\nSubState=running\nMainPID={pid}\nNRestarts=2\n\n"
        "Id=kubelet.service\nLoadState=not-found\nActiveState=inactive\nSubState=dead\nMainPID=0\n"
    )


Item = Callable[..., Any]


@pytest.fixture
def item(module: ModuleType, tmp_path: Path) -> Item:
    """Collect one item from the tree in tmp_path, with a request."""
    functions = {name: function for lane in module.LANES for name, function in lane}

    def collect(name: str, **request: Any) -> Any:
        return module.probe(module.Node(request, str(tmp_path)), functions[name], module.plain)

    return collect


# --- units and processes ---


def test_both_units_are_asked_for_at_once(item: Item, tmp_path: Path) -> None:
    systemctl(tmp_path, shown(7))
    assert item("agent.unit") == {
        "load": "loaded",
        "enabled": "enabled",
        "active": "active",
        "sub": "running",
        "pid": 7,
        "restarts": 2,
    }
    assert item("kubelet.unit")["load"] == "not-found"


def test_without_systemd_there_are_no_units(item: Item) -> None:
    assert item("agent.unit") is None
    assert item("kubelet.unit") is None
    assert item("agent.process") is None
    assert item("agent.self_test") is None


def test_a_systemctl_that_fails_is_no_answer(item: Item, tmp_path: Path) -> None:
    systemctl(tmp_path, shown(), code=1)
    assert item("agent.unit")["unreadable"].startswith("systemctl: exit code 1")
    (tmp_path / "answer").write_text("Id=other.service\n")
    (tmp_path / "usr/bin/systemctl").write_text(f"#!/bin/sh\ncat '{tmp_path}/answer'\n")
    assert "not the answer that was expected" in item("agent.unit")["unreadable"]
    (tmp_path / "usr/bin/systemctl").unlink()
    assert "there is no systemctl" in item("agent.unit")["unreadable"]


def test_a_systemctl_that_hangs_is_given_up(
    item: Item, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.node_evidence, "CHILD_SECONDS", 0.2)
    systemctl(tmp_path, "")
    (tmp_path / "usr/bin/systemctl").write_text("#!/bin/sh\nexec sleep 60\n")
    assert item("agent.unit") == {"unreadable": "systemctl: no answer in time"}


def test_a_main_process_that_is_gone_is_none(item: Item, tmp_path: Path) -> None:
    systemctl(tmp_path, shown(7))
    assert item("agent.process") is None
    put(tmp_path, {"proc/7/stat": "7 (a) b) T " + "0 " * 18 + "100 0\n"})
    found = item("agent.process")
    assert (found["pid"], found["state"]) == (7, "T")
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert found["age"] == pytest.approx(boot - 100 / os.sysconf("SC_CLK_TCK"), abs=15)


# --- the self-test ---


def look(root: Path, pid: int) -> None:
    """Take over what the kernel shows of a process now."""
    real = Path(f"/proc/{pid}")
    put(root, {f"proc/{pid}/{name}": (real / name).read_bytes() for name in ("stat", "status")})


@pytest.fixture
def agent(tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Start what stands for the agent; ends it."""
    started: list[subprocess.Popen[str]] = []

    def start(does: str) -> subprocess.Popen[str]:
        put(tmp_path, {LOG: '{"seq":1,"kind":"Health","health.cause":"canary"}\n'})
        (tmp_path / "run/exectrail-agent").mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(tmp_path), does], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        systemctl(tmp_path, shown(process.pid))
        look(tmp_path, process.pid)
        monkeypatch.setattr(module, "SELF_TEST_SECONDS", 60 if "sees" in does else 0.3)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("does", "recorded"),
    [
        ("listens sees records", True),
        ("listens sees rotates records", True),
        ("listens sees rotates records before", True),
        ("listens sees", False),
    ],
)
def test_the_agent_is_asked_for_its_self_test(
    item: Item, agent: Any, tmp_path: Path, does: str, *, recorded: bool
) -> None:
    before = time.time()
    agent(does)
    found = item("agent.self_test")
    assert before <= found["asked"] <= found["seen"] <= time.time()
    assert (bool(found["recorded"]), found["problem"]) == (recorded, "")
    assert item("agent.status")["canary"] >= found["seen"]
    assert (tmp_path / LOG).exists()


def test_a_blind_agent_is_not_waited_for_for_ever(item: Item, agent: Any) -> None:
    agent("listens")
    found = item("agent.self_test")
    assert (found["seen"], found["recorded"], found["problem"]) == (None, None, "")


def test_an_agent_without_a_handler_is_not_ended_by_the_signal(item: Item, agent: Any) -> None:
    process = agent("")
    assert item("agent.self_test")["problem"] == "it does not listen"
    process.terminate()
    assert process.wait() == -signal.SIGTERM


def test_a_stopped_agent_is_not_asked(item: Item, agent: Any, tmp_path: Path) -> None:
    pid = agent("listens sees records").pid
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    look(tmp_path, pid)
    assert item("agent.process")["state"] == "T"
    assert item("agent.self_test") is None
    assert item("agent.status") is None


# --- the agent's files ---


def test_the_configuration_has_the_agents_defaults(item: Item, tmp_path: Path) -> None:
    assert item("agent.config") == {
        "folder": "/var/log/exectrail",
        "max_size_mb": 100,
        "max_files": 10,
        "runtime": "/run/exectrail-agent",
    }
    put(tmp_path, {"etc/exectrail/agent.conf": "[log]\nfolder = /srv/%x\nmax_files = 3\n"})
    assert item("agent.config")["folder"] == "/srv/%x"
    assert item("agent.config")["max_files"] == 3
    put(tmp_path, {"etc/exectrail/agent.conf": "folder = /x\n"})
    assert "no section headers" in item("agent.config")["unreadable"]


def test_the_defaults_are_those_of_the_agent(item: Item) -> None:
    from exectrail_agent.config import parse  # noqa: PLC0415

    meant = parse("")
    found = item("agent.config")
    assert found["folder"] == str(meant.get("log", "folder"))
    assert found["max_size_mb"] == meant.get("log", "max_size_mb")
    assert found["max_files"] == meant.get("log", "max_files")
    assert found["runtime"] == str(meant.get("paths", "runtime"))


def test_the_program_is_what_the_link_leads_to(item: Item, tmp_path: Path) -> None:
    assert item("agent.program") is None
    folder = "usr/lib/exectrail-agent"
    put(tmp_path, {f"{folder}/1-abc/exectrail-agent.pyz": "x"})
    (tmp_path / folder / "current").symlink_to("1-abc")
    os.utime(tmp_path / folder / "1-abc/exectrail-agent.pyz", (5, 5))
    os.utime(tmp_path / folder / "current", (9, 9), follow_symlinks=False)
    found = item("agent.program")
    assert found == {
        "folder": "1-abc",
        "path": f"/{folder}/1-abc/exectrail-agent.pyz",
        "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "written": 9,
    }
    os.utime(tmp_path / folder / "1-abc/exectrail-agent.pyz", (10, 10))
    assert item("agent.program")["written"] == 10
    (tmp_path / folder / "1-abc/exectrail-agent.pyz").unlink()
    assert item("agent.program")["unreadable"].endswith("no such file")


def test_a_status_that_is_none_is_unreadable(item: Item, tmp_path: Path) -> None:
    assert item("agent.status") is None
    for text, why in (("[]", "not a JSON object"), ("{", "not JSON"), ('{"a": 1e999}', "JSON")):
        put(tmp_path, {"run/exectrail-agent/status.json": text})
        assert why in item("agent.status")["unreadable"]


def test_the_log_is_described_by_its_files(item: Item, tmp_path: Path) -> None:
    assert item("agent.log") is None
    put(tmp_path, {LOG: "12345", f"{LOG}.1": "123", f"{LOG}.shipped": "1234567", f"{LOG}.lock": ""})
    (tmp_path / LOG).chmod(0o640)
    (tmp_path / LOG).parent.chmod(0o700)
    found = item("agent.log")
    assert [each["name"] for each in found["files"]] == ["advaudit.log", "advaudit.log.1"]
    assert (found["files"][0]["mode"], found["folder"]["mode"]) == ("0640", "0700")
    assert found["files"][0]["owner"] == [os.getuid(), os.getgid()]
    assert (found["held"], found["path"]) == (8, "/var/log/exectrail")


def moment(ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - ago)) + ".500000000Z"


def loss(ago: float, cause: str, count: object = 1) -> str:
    record = {"kind": "Loss", "time": moment(ago), "loss.cause": cause, "loss.count": count}
    return json.dumps(record, separators=(",", ":")) + "\n"


def test_losses_of_the_last_day_are_counted_by_cause(item: Item, tmp_path: Path) -> None:
    assert item("agent.losses") == {"causes": {}, "newest": None, "oldest": None}
    argument = json.dumps(
        {"kind": "Command", "process.args": ['"kind":"Loss"', loss(1, "forged")]},
        separators=(",", ":"),
    )
    put(
        tmp_path,
        {
            f"{LOG}.1": loss(90_000, "old", 9) + loss(80_000, "ring-full", 2),
            LOG: f'torn"kind":"Loss"\n{argument}\n'
            + (loss(50, "ring-full", 3) + loss(70, "disk-full", "x"))
            + loss(1, "unfinished").rstrip("\n"),
        },
    )
    found = item("agent.losses")
    assert found["causes"] == {"ring-full": 5, "disk-full": 0}
    assert found["newest"] == pytest.approx(time.time() - 50, abs=15)
    assert found["oldest"] == pytest.approx(time.time() - 90_000, abs=15)


def test_of_a_large_log_only_the_end_is_read(
    item: Item, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, {LOG: loss(9, "first") * 50 + loss(5, "last"), f"{LOG}.1": loss(9, "older")})
    monkeypatch.setattr(module, "MAX_TAIL", 2 * len(loss(5, "last")))
    assert item("agent.losses")["causes"] == {"last": 1}


@pytest.mark.parametrize("text", ["", "2026", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+01:00"])
def test_what_is_no_time_is_none(module: ModuleType, text: str) -> None:
    assert module.moment(text) is None
    assert module.moment(None) is None


def test_a_time_is_seconds_since_the_epoch(module: ModuleType) -> None:
    assert module.moment("1970-01-02T00:00:01.250000000Z") == 86401.25
    assert module.moment("1970-01-01T00:00:00Z") == 0


# --- the canary pod ---


def command(mark: str = "mark-1", **more: Any) -> str:
    record = {
        "kind": "Command",
        "traceId": "t1",
        "k8s.pod.namespace": "default",
        "k8s.pod.name": "p",
        "k8s.container.name": "c",
        "process.args": ["sh", "-c", f"true {mark}"],
        "process.cmdline": f"sh -c true {mark}",
        **more,
    }
    return json.dumps(record, separators=(",", ":")) + "\n"


ENTRY = '{"kind":"Kubernetes","traceId":"t1","entry.type":"exec"}\n'
ASKED = {"canary": {"mark": "mark-1"}}


@pytest.mark.parametrize(
    "files",
    [
        {LOG: ENTRY + command()},
        {f"{LOG}.1": ENTRY, LOG: command()},
        {f"{LOG}.1": command(), LOG: ENTRY},
        {LOG: ENTRY + command("other") + command() + command(traceId="t2")},
    ],
)
def test_the_canarys_exec_is_found(item: Item, tmp_path: Path, files: dict[str, Any]) -> None:
    put(tmp_path, files)
    assert item("agent.canary", **ASKED) == {
        "namespace": "default",
        "pod": "p",
        "container": "c",
        "command": "sh -c true mark-1",
        "entry": "exec",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        ENTRY,
        command(),
        ENTRY + command("other"),
        '{"kind":"Health","health.detail":"mark-1"}\n' + ENTRY,
        ENTRY + command(**{"process.args": ["sh"], "process.cwd": "/mark-1"}),
        ENTRY.replace("t1", "t2") + command(),
    ],
)
def test_another_exec_is_not_the_canarys(
    item: Item, module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(module, "CANARY_SECONDS", 0)
    put(tmp_path, {LOG: text})
    assert item("agent.canary", **ASKED) is None


def test_nobody_looks_for_a_canary_that_is_not_asked_for(item: Item, tmp_path: Path) -> None:
    put(tmp_path, {LOG: ENTRY + command()})
    assert item("agent.canary") is None
    assert item("agent.canary", canary=None) is None


# --- the API server ---

ARGUMENTS = (
    "kube-apiserver",
    "--audit-log-path=/var/log/k/k.audit",
    "--audit_policy_file",
    "/p.yaml",
)


def serve(root: Path, *arguments: str, pid: int = 5, state: str = "S", start: int = 100) -> None:
    put(
        root,
        {
            "proc/1/comm": "init\n",
            f"proc/{pid}/stat": f"{pid} (kube-apiserver) {state} " + "0 " * 18 + f"{start} 0\n",
            f"proc/{pid}/comm": "kube-apiserver\n",
            f"proc/{pid}/cmdline": "\0".join(arguments or ARGUMENTS) + "\0",
        },
    )


def test_the_youngest_server_is_the_one(item: Item, tmp_path: Path) -> None:
    put(tmp_path, {"proc/1/comm": "init\n", "proc/self/comm": "x\n"})
    assert item("api.server") is None
    serve(tmp_path, pid=3, start=50)
    serve(tmp_path, pid=4, start=900, state="Z")
    serve(tmp_path, "kube-apiserver", "--token=secret", "--audit-log-path", "/a", pid=5, start=90)
    put(tmp_path, {"proc/6/comm": "kube-apiserver\n", "proc/7/comm": "kubelet\n"})
    found = item("api.server")
    assert (found["pid"], found["flags"]) == (5, {"audit-log-path": "/a"})
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert found["started"] == pytest.approx(booted + 90 / os.sysconf("SC_CLK_TCK"), abs=15)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--audit-log-path=/a"], "/a"),
        (["--audit-log-path", "/a"], "/a"),
        (["--audit_log_path=/a", "--audit-log-path=/b"], "/b"),
        (["--audit-log-path"], ""),
        (["--audit-log-path=a=b"], "a=b"),
        ([], None),
    ],
)
def test_flags_are_read_as_the_server_does(
    module: ModuleType, arguments: list[str], value: str | None
) -> None:
    assert module.parse_flags(arguments).get("audit-log-path") == value


def test_what_the_roll_out_has_left(item: Item, tmp_path: Path) -> None:
    path = "etc/kubernetes/exectrail/applied.json"
    assert item("audit.applied") is None
    put(tmp_path, {path: '{"manifest": "m", "policy_sha256": "s", "run": "r"}'})
    os.utime(tmp_path / path, (7, 7))
    assert item("audit.applied") == {"manifest": "m", "policy_sha256": "s", "written": 7}
    put(tmp_path, {path: "no"})
    assert "not JSON" in item("audit.applied")["unreadable"]


def test_the_policy_is_the_one_that_the_server_was_told_of(
    item: Item, module: ModuleType, tmp_path: Path
) -> None:
    put(tmp_path, {"proc/1/comm": "init\n"})
    assert item("audit.policy") is None
    serve(tmp_path)
    assert item("audit.policy") is None
    put(tmp_path, {"p.yaml": b"\xff"})
    os.utime(tmp_path / "p.yaml", (7, 7))
    assert item("audit.policy") == {
        "path": "/p.yaml",
        "text": "\\xff",
        "sha256": "a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89",
        "written": 7,
    }
    put(tmp_path, {"p.yaml": b"x" * (module.MAX_FILE + 1)})
    assert "too large" in item("audit.policy")["unreadable"]
    (tmp_path / "p.yaml").unlink()
    os.mkfifo(tmp_path / "p.yaml")
    assert item("audit.policy") == {"unreadable": "/p.yaml: not a regular file but a fifo"}


def test_the_audit_log_is_held_with_what_was_set_aside(item: Item, tmp_path: Path) -> None:
    serve(tmp_path)
    assert item("audit.log")["folder"] is None
    put(
        tmp_path,
        {
            "var/log/k/k.audit": "1",
            "var/log/k/k-2026-11-21T08-00-00.000.audit": "12",
            "var/log/k/k-2026-11-20T08-00-00.000.audit.gz": "123",
            "var/log/k/k-notes.audit": "1234",
            "var/log/k/kube.audit": "12345",
        },
    )
    (tmp_path / "var/log/k").chmod(0o750)
    found = item("audit.log")
    assert (found["held"], found["folder"]["mode"], found["file"]["size"]) == (6, "0750", 1)
    (tmp_path / "var/log/k/k.audit").unlink()
    assert item("audit.log")["file"] is None


@pytest.mark.parametrize("arguments", [("kube-apiserver",), ("x", "--audit-log-path=-")])
def test_a_server_that_writes_no_file_has_no_log(
    item: Item, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    serve(tmp_path, *arguments)
    assert item("audit.log") is None


class Fake:
    """Answers as an API server does that writes audit lines for some requests."""

    def __init__(self, log: Path, level: str = "Metadata", recorded: str = "pods path") -> None:
        self.log, self.level, self.recorded, self.asked = log, level, recorded, [""]

    def ask(self, path: str, agent: str, accept: str = "") -> tuple[int, str]:
        self.asked.append(path)
        del accept
        if agent.rpartition("-")[2] in self.recorded.split():
            for stage in ("RequestReceived", "ResponseComplete"):
                line = {
                    "level": self.level if stage == "ResponseComplete" else "None",
                    "stage": stage,
                    "userAgent": agent,
                    "user": {"username": "u", "groups": ["g"]},
                }
                with self.log.open("a") as stream:
                    stream.write(json.dumps(line, separators=(",", ":")) + "\n")
        return 404, ""


@pytest.fixture
def fake(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    serve(tmp_path)
    put(tmp_path, {"var/log/k/k.audit": '{"userAgent":"exectrail/m-secrets","level":"Old"}\n'})
    made = Fake(tmp_path / "var/log/k/k.audit")
    monkeypatch.setattr(module, "Api", lambda _: made)
    monkeypatch.setattr(module, "SETTLED_SECONDS", 0.1)
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.3)
    return made


def test_each_probe_has_the_level_of_its_last_line(item: Item, fake: Fake) -> None:
    found = item("audit.probes", mark="m")
    assert (found["user"], found["groups"]) == ("u", ["g"])
    assert {each["resource"]: each["level"] for each in found["requests"]} == {
        "pods": "Metadata",
        "configmaps": None,
        "services": None,
        "secrets": None,
        "": "Metadata",
    }
    assert fake.asked[1:3] == [
        "/api/v1/namespaces/kube-system/pods/exectrail-probe-m",
        "/api/v1/namespaces/kube-system/configmaps/exectrail-probe-m",
    ]
    assert fake.asked[-1] == "/exectrail-probe-m"


def test_probes_are_the_roll_outs_own(module: ModuleType) -> None:
    from exectrail.audit_policy.rollout import probe  # noqa: PLC0415

    assert probe.RESOURCES == module.PROBED


def test_all_lines_end_the_wait(item: Item, fake: Fake, module: ModuleType) -> None:
    module.PROBE_SECONDS = module.SETTLED_SECONDS = 60
    fake.recorded = "pods configmaps services secrets path"
    started = time.monotonic()
    assert [each["level"] for each in item("audit.probes")["requests"]] == ["Metadata"] * 5
    assert time.monotonic() - started < 30


def test_no_line_at_all_is_waited_for_and_told(item: Item, fake: Fake) -> None:
    fake.recorded = ""
    found = item("audit.probes")
    assert (found["user"], {each["level"] for each in found["requests"]}) == ("", {None})


def test_without_a_server_nobody_is_asked(item: Item, tmp_path: Path) -> None:
    put(tmp_path, {"proc/1/comm": "init\n"})
    assert item("audit.probes") is None
    assert item("api.nodes") is None


def test_a_server_that_can_not_be_asked_is_unreadable(item: Item, tmp_path: Path) -> None:
    serve(tmp_path)
    for name in ("audit.probes", "api.nodes"):
        assert "has no --client-ca-file" in item(name)["unreadable"]


def table(*rows: list[str]) -> str:
    columns = ["Name", "Status", "Internal-IP", "External-IP"]
    return json.dumps(
        {
            "columnDefinitions": [{"name": name} for name in columns],
            "rows": [{"cells": row} for row in rows],
        }
    )


def test_nodes_are_read_from_the_table(
    item: Item, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = table(["a", "Ready", "10.0.0.1", "<none>"], ["b", "Ready", "10.0.0.2", "1.2.3.4"])
    monkeypatch.setattr(fake, "ask", lambda *_: (200, text))
    assert item("api.nodes") == [
        {"name": "a", "addresses": ["10.0.0.1"]},
        {"name": "b", "addresses": ["10.0.0.2", "1.2.3.4"]},
    ]


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (403, "no", "says 403"),
        (200, "{}", "not understood"),
        (200, "[]", "not understood"),
        (200, "x", "not understood"),
        (200, table(["a"]), "not understood"),
    ],
)
def test_an_answer_that_is_no_table_is_unreadable(  # noqa: PLR0913, PLR0917
    item: Item, fake: Fake, monkeypatch: pytest.MonkeyPatch, status: int, text: str, says: str
) -> None:
    monkeypatch.setattr(fake, "ask", lambda *_: (status, text))
    assert says in item("api.nodes")["unreadable"]


# --- the whole run ---


def names(module: ModuleType) -> set[str]:
    return {"clock.now"} | {name for lane in module.LANES for name, _ in lane}


def test_an_empty_node_and_a_hostile_one_answer_every_item(
    module: ModuleType, tmp_path: Path
) -> None:
    empty = module.collect(module.Node({}, str(tmp_path)))
    assert set(empty) == names(module)
    for path in ("etc/exectrail/agent.conf", LOG, "etc/kubernetes/exectrail/applied.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / path)
    put(tmp_path, {"run/exectrail-agent": "x", "proc/1/comm": "kube-apiserver\n"})
    systemctl_folder = tmp_path / "usr/bin/systemctl"
    systemctl_folder.mkdir(parents=True)
    (tmp_path / "usr/lib/exectrail-agent/current").mkdir(parents=True)
    hostile = module.collect(module.Node({"canary": {"mark": 7}}, str(tmp_path)))
    assert set(hostile) == names(module)
    assert not [value for value in hostile.values() if "unexpected" in str(value)]


def test_what_hangs_costs_no_other_lane(module: ModuleType, tmp_path: Path) -> None:
    lanes = ((("slow", lambda _: time.sleep(60)), ("after", lambda _: 1)), (("fast", lambda _: 1),))
    started = time.monotonic()
    found = module.collect(module.Node({}, str(tmp_path)), lanes, 1)
    assert time.monotonic() - started < 30
    late = {"unreadable": "not finished within 1 s"}
    assert (found["slow"], found["after"], found["fast"]) == (late, late, 1)


def test_one_failing_item_costs_no_other(module: ModuleType, tmp_path: Path) -> None:
    def broken(_: Any) -> None:
        raise KeyError("x")

    found = module.collect(
        module.Node({}, str(tmp_path)), ((("a", broken), ("b", lambda _: 1)),), 5
    )
    assert (found["a"], found["b"]) == ({"unreadable": "unexpected: KeyError: 'x'"}, 1)


def test_what_is_too_large_gives_way(module: ModuleType) -> None:
    items = module.document({"big": "x" * 3_000_000, "small": 1}, module.MAX_OUTPUT)["items"]
    assert items["small"] == 1
    assert items["big"]["unreadable"].startswith("too large: ")


def test_a_thing_is_looked_at_once_also_when_it_failed(module: ModuleType) -> None:
    calls = []

    def fails(_: Any) -> None:
        calls.append(1)
        raise module.Unreadable("x")

    node = module.Node({}, "/nowhere")
    for _ in range(2):
        with pytest.raises(module.Unreadable):
            node.once(fails)
    assert calls == [1]


@pytest.mark.parametrize("python", interpreters())
def test_a_real_run(python: str, module: ModuleType) -> None:
    done = subprocess.run([python, "-B", SCRIPT], capture_output=True, check=True)
    assert done.stderr == b""
    items = json.loads(done.stdout)["evidence"]["items"]
    assert set(items) == names(module)
    assert not [value for value in items.values() if "unexpected" in str(value)]
    assert items["clock.now"] == pytest.approx(time.time(), abs=60)


def test_every_item_is_documented_and_nothing_else(module: ModuleType) -> None:
    section = REFERENCE.read_text().partition("\n## What is installed\n")[2]
    assert set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE)) == names(module)


def test_the_documentation_is_yaml(module: ModuleType) -> None:
    documentation = yaml.safe_load(module.DOCUMENTATION)
    assert documentation["module"] == "installation_evidence"
