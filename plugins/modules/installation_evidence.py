#!/usr/bin/python
"""Evidence about what is installed on one node.

It is sent to the node behind node_evidence.py, on which it stands. Here too what could not be read
is ``{"unreadable": "why"}``, and nothing is written. To learn what is true now it asks the agent
for its self-test, and on a master makes five harmless requests that the API server's audit has to
tell of. docs/reference/evidence.md lists every item.
"""

DOCUMENTATION = r"""
module: installation_evidence
short_description: Collect what shows that the agent and the audit policy work on a node
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of M(exectrail.audit.node_evidence), which sends it to the node with O(installation=true).
    A play has no use for it by itself.
  - Reads the agent's unit, process, program, status and log, and on a master the API server's audit
    settings and log.
  - The agent is sent the signal that makes it test itself, and the API server of the node gets five
    requests for objects that do not exist. It judges nothing.
  - The whole run takes at most twelve seconds.
options: {}
requirements:
  - Python 3.6 or later on the node
notes:
  - Needs root. Without it, the items that need root are unreadable and say so.
seealso:
  - name: Evidence reference
    description: Every item, where it comes from and its unit.
    link: https://github.com/exectrail/exectrail/blob/main/docs/reference/evidence.md
"""

import calendar
import configparser
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import threading
import time

import node_evidence
from node_evidence import (
    MAX_FILE,
    MAX_ROWS,
    MAX_TEXT,
    Absent,
    Unreadable,
    ask_systemd,
    clean,
    document,
    parse_flags,
    probe,
    problem,
    processes,
    systemd_runs,
    tell,
    unreadable,
)

# --- limits, in seconds and bytes ---------------------------------------------------------------

TOTAL_SECONDS = 11.0
SELF_TEST_SECONDS = 6.0
CANARY_SECONDS = 5.0
PROBE_SECONDS = 5.0
SETTLED_SECONDS = 0.5
REQUEST_SECONDS = 3.0
POLL_SECONDS = 0.05
DAY = 86400
MAX_PROGRAM = 16 * 1024 * 1024
MAX_TAIL = 32 * 1024 * 1024
MAX_ANSWER = 16 * 1024 * 1024
MAX_NODES = 5000
MAX_OUTPUT = 2 * 1024 * 1024

# --- where things are -----------------------------------------------------------------------------

AGENT = "exectrail-agent.service"
KUBELET = "kubelet.service"
FOLDER = "/usr/lib/exectrail-agent"
CONFIG = "/etc/exectrail/agent.conf"
LOG = "advaudit.log"
APPLIED = "/etc/kubernetes/exectrail/applied.json"
SERVER = "kube-apiserver"
PROBED = ("pods", "configmaps", "services", "secrets", "")


class Node(node_evidence.Node):
    """The machine as seen below `root`, by several threads, and what was asked of it."""

    def __init__(self, request, root="/"):
        super().__init__(root)
        self.request = request
        self.mark = str(request.get("mark") or os.urandom(8).hex())
        self.deadline = time.monotonic() + TOTAL_SECONDS
        self.guards = {}

    def once(self, function):
        with self.guards.setdefault(function, threading.Lock()):
            return super().once(function)

    def info(self, path):
        """What is at `path` itself; Absent if nothing is."""
        found = self.lstat(path)
        if found is None:
            raise Absent(path)
        return found

    def json(self, path):
        try:
            found = json.loads(self.text(path))
        except ValueError as error:
            raise Unreadable("%s: not JSON (%s)" % (path, error)) from error
        if not isinstance(found, dict):
            raise Unreadable("%s: not a JSON object" % path)
        return found

    def wait(self, condition, seconds, pause=POLL_SECONDS):
        """What `condition()` gives as soon as that is something, else its last answer."""
        until = min(time.monotonic() + seconds, self.deadline - 0.5)
        while True:
            found = condition()
            if found or time.monotonic() >= until:
                return found
            time.sleep(pause)


# --- systemd and processes ------------------------------------------------------------------------


def units(node):
    """The two units by name; None where systemd does not run."""
    if not systemd_runs(node):
        return None
    names = (AGENT, KUBELET)
    blocks = ask_systemd(
        node,
        names,
        "LoadState",
        "UnitFileState",
        "ActiveState",
        "SubState",
        "MainPID",
        "NRestarts",
    )
    return {
        name: {
            "load": block["LoadState"],
            "enabled": block.get("UnitFileState", ""),
            "active": block.get("ActiveState", ""),
            "sub": block.get("SubState", ""),
            "pid": whole(block.get("MainPID")),
            "restarts": whole(block.get("NRestarts")),
        }
        for name, block in zip(names, blocks)
    }


def whole(text):
    return int(text) if re.match(r"[0-9]{1,18}$", text or "") else 0


def unit(node, name):
    known = node.once(units)
    return known and known[name]


def agent_unit(node):
    return unit(node, AGENT)


def kubelet_unit(node):
    return unit(node, KUBELET)


def process_state(node, pid):
    """State letter, and seconds since its start; Absent when there is no such process."""
    fields = node.text("/proc/%d/stat" % pid).rpartition(")")[2].split()
    # Ticks of a process count from the boot, time asleep included.
    up = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", 7))
    return fields[0], round(up - int(fields[19]) / os.sysconf("SC_CLK_TCK"), 2)


def agent_process(node):
    known = agent_unit(node)
    if not known or not known["pid"]:
        return None
    try:
        state, age = process_state(node, known["pid"])
    except Absent:
        return None
    return {"pid": known["pid"], "state": state, "age": age}


# --- the agent's files ----------------------------------------------------------------------------


def agent_config(node):
    """The options that say where and how much the agent writes, with the agent's defaults."""
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    try:
        parser.read_string(node.text(CONFIG))
    except Absent:
        pass
    except configparser.Error as error:
        raise Unreadable("%s: %s" % (CONFIG, " ".join(str(error).split()))) from error
    return {
        "folder": parser.get("log", "folder", fallback="/var/log/exectrail").strip(),
        "max_size_mb": whole(parser.get("log", "max_size_mb", fallback="100").strip()),
        "max_files": whole(parser.get("log", "max_files", fallback="10").strip()),
        "runtime": parser.get("paths", "runtime", fallback="/run/exectrail-agent").strip(),
    }


def agent_program(node):
    """The program that `current` leads to; `written` is the last time that link or program were."""
    link = FOLDER + "/current"
    try:
        target = node.readlink(link)
    except Absent:
        return None
    path = "%s/%s/exectrail-agent.pyz" % (FOLDER, os.path.basename(target.rstrip("/")))
    written = node.info(link).st_mtime
    return {
        "folder": os.path.basename(target.rstrip("/")),
        "path": path,
        "sha256": hashlib.sha256(node.read(path, MAX_PROGRAM)).hexdigest(),
        "written": max(written, node.info(path).st_mtime),
    }


def agent_status(node):
    """What the agent says of itself; read once the self-test that was asked for has ended."""
    try:
        return node.json(node.once(agent_config)["runtime"] + "/status.json")
    except Absent:
        return None


# --- the agent's self-test ------------------------------------------------------------------------


def agent_self_test(node):
    """Ask the agent for its self-test and wait until it has come back, and is in the log.

    `asked` and `seen` are moments of the node's clock; what is null has not come in time.
    """
    process = node.once(agent_process)
    if process is None or process["state"] not in "RSDI":
        return None
    path = node.once(agent_config)["folder"] + "/" + LOG
    place = end_of(node, path)
    asked = time.time()
    if not node.wait(lambda: takes_signal(node, process["pid"]), SELF_TEST_SECONDS):
        return {"asked": asked, "seen": None, "recorded": None, "problem": "it does not listen"}
    try:
        os.kill(process["pid"], signal.SIGUSR1)
    except OSError as error:
        raise problem("kill %d" % process["pid"], error) from error

    def seen():
        canary = (agent_status(node) or {}).get("canary")
        return canary if isinstance(canary, (int, float)) and canary >= asked else None

    def recorded():
        lines = lines_since(node, path, place, b'"health.cause":"canary"')
        return any(each.get("kind") == "Health" for each in lines)

    came = node.wait(seen, SELF_TEST_SECONDS)
    answer = {"asked": asked, "seen": came, "recorded": None, "problem": ""}
    if came is not None:
        try:
            answer["recorded"] = node.wait(recorded, 1.5)
        except Absent:
            answer["recorded"] = False
    return answer


def takes_signal(node, pid):
    """Whether a process has a handler for SIGUSR1: one that has none would be ended by it."""
    found = re.search(r"(?m)^SigCgt:\s*([0-9a-f]+)$", node.text("/proc/%d/status" % pid))
    return bool(found and int(found.group(1), 16) >> (signal.SIGUSR1 - 1) & 1)


# --- logs -----------------------------------------------------------------------------------------


def end_of(node, path):
    """Which file it is, and how long: what is found beyond is newer."""
    try:
        with node.open(path) as stream:
            found = os.fstat(stream.fileno())
    except Absent:
        return None, 0
    return found.st_ino, found.st_size


def lines_since(node, path, place, mark):
    """Records that have the mark and were written after `place`, also when the log was rotated."""
    inode, size = place
    with node.open(path) as stream:
        if os.fstat(stream.fileno()).st_ino == inode:
            return list(records(read_from(stream, size), mark))
        found = list(records(read_from(stream, 0), mark))
    try:
        with node.open(path + ".1") as stream:
            if os.fstat(stream.fileno()).st_ino == inode:
                found = list(records(read_from(stream, size), mark)) + found
    except Absent:
        pass
    return found


def read_from(stream, position):
    size = os.fstat(stream.fileno()).st_size
    stream.seek(max(position, size - MAX_TAIL))
    return stream.read(MAX_TAIL)


def records(data, mark):
    """The records among whole lines of JSON that have the mark, oldest first."""
    at = data.find(mark)
    while at >= 0:
        end = data.find(b"\n", at)
        if end < 0:
            return
        try:
            found = json.loads(data[data.rfind(b"\n", 0, at) + 1 : end].decode("utf-8", "replace"))
        except ValueError:
            found = None
        if isinstance(found, dict):
            yield found
        at = data.find(mark, end)


def agent_log(node):
    """Owners and modes of the log's folder and files, and what the files hold together."""
    folder = node.once(agent_config)["folder"]
    if node.kind(folder) is None:
        return None
    rows = [
        dict(owned(node.info(folder + "/" + name)), name=name)
        for name in node.names(folder)
        if re.match(re.escape(LOG) + r"(\.[0-9]+)?$", name)
    ]
    return {
        "path": folder,
        "folder": owned(node.info(folder)),
        "held": sum(row["size"] for row in rows),
        "files": rows[:MAX_ROWS],
    }


def owned(info):
    return {
        "mode": "%04o" % stat.S_IMODE(info.st_mode),
        "owner": [info.st_uid, info.st_gid],
        "size": info.st_size,
    }


def agent_losses(node):
    """The losses of the last day, as far back as the ends of the two newest files go."""
    path = node.once(agent_config)["folder"] + "/" + LOG
    causes, newest, now, left, oldest = {}, None, time.time(), MAX_TAIL, None
    for name in (path, path + ".1"):
        try:
            with node.open(name) as stream:
                size = os.fstat(stream.fileno()).st_size
                stream.seek(max(0, size - left))
                data = stream.read(left)
        except Absent:
            continue
        for record in records(data, b'"kind":"Loss"'):
            when, count = moment(record.get("time")), record.get("loss.count")
            if record.get("kind") != "Loss" or when is None or now - when > DAY:
                continue
            cause = str(record.get("loss.cause"))[:MAX_TEXT]
            causes[cause] = causes.get(cause, 0) + (count if isinstance(count, int) else 0)
            newest = max(newest or when, when)
        first = next(records(data, b'"time":"'), {})
        oldest = moment(first.get("time")) or oldest
        left -= len(data)
    return {"causes": causes, "newest": newest, "oldest": oldest}


def moment(text):
    """Epoch seconds of an RFC 3339 time in UTC; None for anything else."""
    found = re.match(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})(\.[0-9]+)?Z$", str(text))
    if not found:
        return None
    try:
        whole_seconds = calendar.timegm(time.strptime(found.group(1), "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None
    return whole_seconds + float(found.group(2) or 0)


def agent_canary(node):
    """What the agent has recorded of the canary pod's exec; null when nothing, or not asked for."""
    wanted = (node.request.get("canary") or {}).get("mark")
    if not wanted:
        return None
    path = node.once(agent_config)["folder"] + "/" + LOG
    mark = str(wanted).encode()

    def look():
        ends = []
        for name in (path + ".1", path):
            try:
                with node.open(name) as stream:
                    ends.append(read_from(stream, 0))
            except Absent:
                continue
        data = b"".join(ends)
        command = next((each for each in records(data, mark) if runs(each, str(wanted))), None)
        if command is None:
            return None
        trace = str(command.get("traceId"))
        for record in records(data, trace.encode()):
            if record.get("kind") == "Kubernetes" and record.get("traceId") == trace:
                return command, record
        return None

    # Not often: each look reads the ends of the files anew.
    found = node.wait(look, CANARY_SECONDS, 0.25)
    if not found:
        return None
    command, entry = found
    return {
        "namespace": str(command.get("k8s.pod.namespace", ""))[:MAX_TEXT],
        "pod": str(command.get("k8s.pod.name", ""))[:MAX_TEXT],
        "container": str(command.get("k8s.container.name", ""))[:MAX_TEXT],
        "command": str(command.get("process.cmdline", ""))[:MAX_TEXT],
        "entry": str(entry.get("entry.type", ""))[:MAX_TEXT],
    }


def runs(record, mark):
    """Whether it is the record of a command that has the mark among its arguments."""
    arguments = record.get("process.args")
    said = isinstance(arguments, list) and any(mark in str(each) for each in arguments)
    return record.get("kind") == "Command" and said


# --- the API server -------------------------------------------------------------------------------


def server(node):
    """The youngest running API server: pid, age in seconds, flags; None if there is none."""
    found = []
    for pid in node.once(processes).get(SERVER[:15], []):
        try:
            state, age = process_state(node, pid)
            arguments = node.read("/proc/%d/cmdline" % pid).decode("utf-8", "replace").split("\0")
        except (Absent, IndexError, ValueError):
            continue
        if arguments[0] and state not in "ZX":
            found.append({"pid": pid, "age": age, "flags": parse_flags(arguments[:-1])})
    return min(found, key=lambda one: one["age"]) if found else None


def api_server(node):
    """The running server and its audit flags; the others are nobody's business here."""
    running = node.once(server)
    if running is None:
        return None
    audit = sorted(name for name in running["flags"] if name.startswith("audit-"))
    return {
        "pid": running["pid"],
        "started": time.time() - running["age"],
        "flags": {name: running["flags"][name] for name in audit[:MAX_ROWS]},
    }


def of_server(node, name):
    running = node.once(server)
    return running["flags"].get(name) if running else None


def audit_applied(node):
    """What the last roll-out has left of itself, and when."""
    try:
        found = node.json(APPLIED)
        written = node.info(APPLIED).st_mtime
    except Absent:
        return None
    return {
        "manifest": found.get("manifest"),
        "policy_sha256": found.get("policy_sha256"),
        "written": written,
    }


def audit_policy(node):
    """The policy file that the running server was told to read."""
    path = of_server(node, "audit-policy-file")
    if not path:
        return None
    try:
        data = node.read(path)
        written = node.resolve(path)[1].st_mtime
    except Absent:
        return None
    return {
        "path": path,
        "text": data.decode("utf-8", "backslashreplace"),
        "sha256": hashlib.sha256(data).hexdigest(),
        "written": written,
    }


def audit_log(node):
    """The log of the running server, and what it holds with the files that it has set aside."""
    path = of_server(node, "audit-log-path")
    if not path or path == "-":
        return None
    folder, name = os.path.split(path)
    stem, dot, suffix = name.rpartition(".")
    begins, ends = re.escape(stem or suffix), re.escape(dot and dot + suffix)
    aside = re.compile(begins + r"-[0-9][0-9TZ.:-]*" + ends + r"(\.gz)?$")
    try:
        where = owned(node.info(folder))
    except Absent:
        return {"path": path, "folder": None, "file": None, "held": 0}
    files = {
        each: owned(node.info(folder + "/" + each))
        for each in node.names(folder)
        if each == name or aside.match(each)
    }
    held = sum(each["size"] for each in files.values())
    return {"path": path, "folder": where, "file": files.get(name), "held": held}


class Api:
    """The API server of this machine, asked by the client that it is itself to kubelets."""

    def __init__(self, node):
        flags = node.once(server)["flags"]
        bound = flags.get("bind-address") or "0.0.0.0"  # noqa: S104 - read, not bound
        self.address = "127.0.0.1" if bound in ("0.0.0.0", "::") else bound  # noqa: S104
        self.port = int(flags.get("secure-port") or 6443)
        files = {}
        for name in ("client-ca-file", "kubelet-client-certificate", "kubelet-client-key"):
            path = flags.get(name)
            if not path:
                raise Unreadable("%s has no --%s to reach it with" % (SERVER, name))
            files[name] = node.host(path)
            with node.open(path):
                pass
        try:
            self.context = ssl.create_default_context(cafile=files["client-ca-file"])
            self.context.load_cert_chain(
                files["kubelet-client-certificate"], files["kubelet-client-key"]
            )
        except OSError as error:
            raise Unreadable("the API server's own certificates: %s" % error) from error

    def ask(self, path, agent, accept="application/json"):
        """One authenticated request: status and text."""
        where = "%s:%d" % (self.address, self.port)
        try:
            plain = socket.create_connection((self.address, self.port), timeout=REQUEST_SECONDS)
            # The certificate has this name whatever the machine's addresses are.
            with self.context.wrap_socket(
                plain, server_hostname="kubernetes.default.svc"
            ) as connection:
                client = http.client.HTTPConnection(self.address)
                client.sock = connection
                client.request("GET", path, headers={"User-Agent": agent, "Accept": accept})
                answer = client.getresponse()
                return answer.status, answer.read(MAX_ANSWER).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreadable("the API server at %s does not answer: %s" % (where, error)) from error


def api(node):
    return Api(node)


def audit_probes(node):
    """Requests that nobody else makes, and at which level the log tells of each."""
    if node.once(server) is None:
        return None
    path = of_server(node, "audit-log-path")
    place = end_of(node, path) if path and path != "-" else (None, 0)
    connection = node.once(api)
    rows = []
    for resource in PROBED:
        agent = "exectrail/%s-%s" % (node.mark, resource or "path")
        name = "exectrail-probe-" + node.mark
        below = "api/v1/namespaces/kube-system/%s/" % resource if resource else ""
        status, _ = connection.ask("/%s%s" % (below, name), agent)
        rows.append({"resource": resource, "name": name, "status": status, "level": None})
        rows[-1]["agent"] = agent
    user, grown, since = None, 0, time.monotonic()
    until = min(since + PROBE_SECONDS, node.deadline - 0.5)
    while path and path != "-":
        try:
            lines = lines_since(node, path, place, b"exectrail/" + node.mark.encode())
        except Absent:
            lines = []
        said = {
            line.get("userAgent"): line for line in lines if line.get("stage") == "ResponseComplete"
        }
        for row in rows:
            if row["agent"] in said:
                row["level"] = str(said[row["agent"]].get("level"))[:MAX_TEXT]
                user = said[row["agent"]].get("user") or user
        now = time.monotonic()
        if len(said) > grown:
            grown, since = len(said), now
        if grown == len(rows) or now > until or (grown and now - since > SETTLED_SECONDS):
            break
        time.sleep(POLL_SECONDS)
    known = user if isinstance(user, dict) else {}
    return {
        "user": str(known.get("username", ""))[:MAX_TEXT],
        "groups": [str(each)[:MAX_TEXT] for each in known.get("groups") or []][:MAX_ROWS],
        "requests": rows,
    }


def api_nodes(node):
    """Names and addresses of the cluster's nodes, as the table that kubectl shows."""
    if node.once(server) is None:
        return None
    status, text = node.once(api).ask(
        "/api/v1/nodes?includeObject=None",
        "exectrail/" + node.mark,
        "application/json;as=Table;v=v1;g=meta.k8s.io",
    )
    if status != http.client.OK:
        raise Unreadable("the API server says %d to the list of nodes: %s" % (status, text[:200]))
    try:
        table = json.loads(text)
        columns = [each["name"].lower() for each in table["columnDefinitions"]]
        places = [columns.index(each) for each in ("internal-ip", "external-ip")]
        rows = [
            {
                "name": row["cells"][columns.index("name")],
                "addresses": [row["cells"][at] for at in places if row["cells"][at] != "<none>"],
            }
            for row in table["rows"]
        ]
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise Unreadable("the list of nodes is not understood: %r" % error) from error
    return rows[:MAX_NODES]


# --- the run --------------------------------------------------------------------------------------

# What waits for something has a thread of its own; the others are read one after the other.
LANES = (
    (
        ("agent.unit", agent_unit),
        ("kubelet.unit", kubelet_unit),
        ("agent.process", lambda node: node.once(agent_process)),
        ("agent.self_test", lambda node: node.once(agent_self_test)),
        ("agent.status", agent_status),
        ("agent.log", agent_log),
    ),
    (
        ("agent.config", lambda node: node.once(agent_config)),
        ("agent.program", agent_program),
        ("agent.losses", agent_losses),
    ),
    (("agent.canary", agent_canary),),
    (
        ("api.server", api_server),
        ("audit.applied", audit_applied),
        ("audit.policy", audit_policy),
        ("audit.probes", audit_probes),
        ("audit.log", audit_log),
        ("api.nodes", api_nodes),
    ),
)


def plain(value):
    """`value` as JSON can tell it: what a file says may be no number there."""
    json.dumps(value, allow_nan=False)
    return clean(value, MAX_FILE)


def collect(node, lanes=LANES, seconds=TOTAL_SECONDS):
    """Every item by name."""
    until = time.monotonic() + seconds
    found = {"clock.now": time.time()}

    def fill(lane):
        for name, function in lane:
            found[name] = probe(node, function, plain)

    workers = [threading.Thread(target=fill, args=(lane,), daemon=True) for lane in lanes]
    for worker in workers:
        try:
            worker.start()
        except RuntimeError:
            continue  # No thread is to be had: its items are missed below.
    for worker in workers:
        if worker.ident is not None:
            worker.join(max(0.0, until - time.monotonic()))
    # A copy: what is late may still come.
    known = dict(found)
    late = unreadable("not finished within %g s" % seconds)
    return {
        name: known.get(name, late)
        for name in ["clock.now"] + [name for lane in lanes for name, _ in lane]
    }


def main(request):
    """Every item of this machine."""
    return document(collect(Node(request)), MAX_OUTPUT)


if __name__ == "__main__":
    tell(main({}))
