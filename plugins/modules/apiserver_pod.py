#!/usr/bin/python
"""The API server's static pod on one master: read, changed in one transaction, watched.

One file on purpose: it is sent over ssh to the standard input of whatever Python the node has
(3.6 or later). A change is made by a process of its own on the node,
which also takes it back if the new server does not prove itself; so it ends well whatever becomes
of the controller. Everything it does is noted in a journal first, for the next run to go on from.
"""

DOCUMENTATION = r"""
module: apiserver_pod
short_description: Read and change the static pod of the Kubernetes API server
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of the role C(exectrail.audit.audit_policy), which decides on the controller what is to
    change. A play has no use for it by itself.
  - With O(do=read) reports manifest, policy file, log folder, the running server and its answers;
    nothing is written.
  - With O(do=begin) replaces policy and manifest and starts a process that waits for the new
    server, proves it and takes everything back if that fails. O(do=watch) reports how far it is;
    O(do=resume) goes on with what a power cut or a kill has interrupted.
attributes:
  check_mode:
    description: Can run in check_mode and predict what would be changed.
    support: partial
    details: The action plugin predicts; only O(do=read) reaches the node then.
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
    details: The action plugin shows the difference of manifest and policy.
  platform:
    description: Masters that run the API server as a static pod.
    platforms: linux
    support: full
  safe_file_operations:
    description: Uses safe operations to change files.
    support: full
options:
  do:
    description: What to do.
    type: str
    required: true
    choices: [read, begin, watch, resume, lock, unlock, persist, change, leave]
  run_dir:
    description: Folder of the run on the controller.
    type: path
    required: true
  host:
    description: Inventory name of the master, where it is reached by delegation.
    type: str
requirements:
  - Python 3.6 or later on the node
"""

EXAMPLES = r"""
- name: Read the masters
  exectrail.audit.apiserver_pod:
    do: read
    run_dir: reports/audit-policy
"""

RETURN = r"""
seconds_unavailable:
  description: How long the API server of this master gave no answer, as seen from the master.
  returned: when it was changed
  type: float
"""

import difflib
import errno
import glob
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

MANIFEST = "kube-apiserver.yaml"
POLICY = "audit-policy.yaml"
SERVER = "kube-apiserver"
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
LOGS = "/var/log/pods"
MAX_TEXT = 1024 * 1024
TAIL = 60
KEPT = 5
TICK = 0.3
# Seconds for the way back, which the limits of the way there must not cut short.
BACK = {"start": 180, "ready": 600, "stable": 5, "restarts": 100}
RESTARTS = 3
# How many times a server is asked what it is, half a second apart.
ASKED = 11


class Refused(Exception):
    """The request can't be met; nothing has been changed by it."""


class Failed(Exception):
    """A step of the change failed."""


# --- files ------------------------------------------------------------------------------------


def sha256(text):
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read_text(path):
    """The text of a regular file; None if there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise Refused("%s is no regular file" % path)
        raw = stream.read(MAX_TEXT + 1)
    if len(raw) > MAX_TEXT:
        raise Refused("%s is larger than %d bytes" % (path, MAX_TEXT))
    return raw.decode("utf-8", "surrogateescape")


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stage(path, text, like=None):
    """Write a new file completely, onto the disk; with mode, owner and label of `like`."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        if like is not None:
            before = os.stat(like)
            os.fchown(descriptor, before.st_uid, before.st_gid)
            shutil.copystat(like, path)
        stream.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
        os.fsync(descriptor)


def put(path, text, staged=None, like=None):
    """Replace a file in one step. The new one is staged beside it, hidden, or where told."""
    staged = staged or os.path.join(os.path.dirname(path), "." + os.path.basename(path) + ".new")
    stage(staged, text, like)
    os.rename(staged, path)
    sync_folder(os.path.dirname(path))


def put_back(saved, path, staged):
    """Restore a saved file, with owner and mode; also when the disk is full."""
    try:
        stage(staged, read_text(saved), like=saved)
    except OSError:
        if os.path.lexists(staged):
            os.unlink(staged)
        os.link(saved, staged)
    os.rename(staged, path)
    sync_folder(os.path.dirname(path))


def put_json(path, value):
    put(path, json.dumps(value, indent=1, sort_keys=True))


def get_json(path):
    text = read_text(path)
    return None if text is None else json.loads(text)


def existing(path):
    """The nearest folder upwards that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


# --- processes --------------------------------------------------------------------------------


def processes(name):
    """The processes of a name: pid, start in ticks since boot, arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % entry, "rb") as stream:
                head, _, fields = stream.read().decode("utf-8", "replace").rpartition(")")
            if head.partition("(")[2] != name[:15] or fields.split()[0] in "ZX":
                continue
            with open("/proc/%s/cmdline" % entry, "rb") as stream:
                arguments = stream.read().decode("utf-8", "replace").split("\0")[:-1]
        except (OSError, IndexError):
            continue
        if arguments:
            found.append({"pid": int(entry), "start": int(fields.split()[19]), "args": arguments})
    return found


def boot_id():
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def identity(process):
    return [process["pid"], process["start"], boot_id()] if process else None


def myself():
    with open("/proc/self/stat", "rb") as stream:
        fields = stream.read().decode("utf-8", "replace").rpartition(")")[2].split()
    return [os.getpid(), int(fields[19]), boot_id()]


def lives(who):
    """Whether the process of an identity is still there."""
    if not who or who[2] != boot_id():
        return False
    try:
        with open("/proc/%d/stat" % who[0], "rb") as stream:
            fields = stream.read().decode("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return False
    return int(fields[19]) == who[1] and fields[0] not in "ZX"


def flag(arguments, name, default=None):
    """The value of a flag as the server takes it: of several the last."""
    value, wanted = default, "--" + name
    for position, argument in enumerate(arguments):
        key, equals, text = argument.partition("=")
        if key.replace("_", "-") == wanted:
            following = arguments[position + 1 : position + 2]
            value = text if equals else (following[0] if following else "")
    return value


def server():
    """The running API server; None if there is none."""
    found = processes(SERVER)
    return max(found, key=lambda one: one["start"]) if found else None


def foreign_server():
    """Who else runs the API server of this machine, if it is no static pod; None if nobody."""
    for name, told in (
        ("k3s-server", "k3s"),
        ("k3s", "k3s"),
        ("rke2", "RKE2"),
        ("k0s", "k0s"),
        ("kubelite", "MicroK8s"),
    ):
        if processes(name):
            return told
    for process in processes(SERVER):
        try:
            groups = read_text("/proc/%d/cgroup" % process["pid"]) or ""
        except (OSError, Refused):
            continue
        unit = re.search(r"/([^/\s]*apiserver[^/\s]*\.service)$", groups, re.MULTILINE)
        if unit:
            return "the systemd unit " + unit.group(1)
    return None


def kubelet():
    """The static-pod directory, and whether the kubelet runs."""
    found = processes("kubelet")
    arguments = found[0]["args"] if found else []
    path = flag(arguments, "pod-manifest-path")
    if not path:
        try:
            text = read_text(flag(arguments, "config") or KUBELET_CONFIG) or ""
        except (OSError, Refused):
            text = ""
        told = re.search(r"^staticPodPath:[ \t]*(\S+)[ \t]*$", text, re.MULTILINE)
        path = told.group(1).strip("'\"") if told else "/etc/kubernetes/manifests"
    return {"running": bool(found), "static_pod_path": path.rstrip("/")}


# --- the API ----------------------------------------------------------------------------------


def access(arguments):
    """How to reach the server of these arguments from this machine as its own client."""
    bound = flag(arguments, "bind-address") or "0.0.0.0"  # noqa: S104 - read, not bound
    return {
        "address": "127.0.0.1" if bound in ("0.0.0.0", "::") else bound,  # noqa: S104
        "port": int(flag(arguments, "secure-port") or 6443),
        "ca": flag(arguments, "client-ca-file"),
        "certificate": flag(arguments, "kubelet-client-certificate"),
        "key": flag(arguments, "kubelet-client-key"),
    }


def ask(where, path, agent="exectrail", method="GET", body=None):
    """One authenticated request: status and text. Raises OSError."""
    context = ssl.create_default_context(cafile=where["ca"])
    context.load_cert_chain(where["certificate"], where["key"])
    plain = socket.create_connection((where["address"], where["port"]), timeout=5)
    # The certificate has this name whatever the machine's addresses are.
    with context.wrap_socket(plain, server_hostname="kubernetes.default.svc") as connection:
        client = http.client.HTTPConnection(where["address"])
        client.sock = connection
        headers = {"User-Agent": agent, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            client.request(method, path, body=body, headers=headers)
            answer = client.getresponse()
            return answer.status, answer.read(MAX_TEXT * 4).decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError("no HTTP: %r" % error) from error


def ready(where):
    """None if the server is ready, else what it said."""
    try:
        status, text = ask(where, "/readyz?verbose")
    except (OSError, ValueError) as error:
        return "no answer: %s" % error
    if status == http.client.OK:
        return None
    failing = [line for line in text.splitlines() if line.startswith("[-]")]
    return "/readyz says %d: %s" % (status, "; ".join(failing) or text[:300])


def get_object(where, path):
    status, text = ask(where, path)
    if status == http.client.NOT_FOUND:
        return None
    if status != http.client.OK:
        raise OSError("%s says %d: %s" % (path, status, text[:300]))
    return json.loads(text)


# --- reading ----------------------------------------------------------------------------------


def read(request):
    """Everything that the decision needs; nothing is written."""
    where = kubelet()
    pods, process = where["static_pod_path"], server()
    found = {
        "kubelet": where,
        "foreign": foreign_server(),
        "manifest": None,
        "policy": policy_state(request["policy_file"]),
        "log": log_state(request["log_path"]),
        "process": process,
        "server": None,
        "strays": strays(pods),
        "state_dir": state_dir_problem(request["state_dir"], pods),
        "applied": None,
        "original": None,
        "rollout": None,
        "lock": None,
    }
    path = os.path.join(pods, MANIFEST)
    if os.path.islink(path):
        raise Refused("%s is a symbolic link; put the file itself there" % path)
    text = read_text(path)
    if text is not None:
        found["manifest"] = {"path": path, "text": text}
    if process:
        process["started"] = time.time() - age(process)
    if process and text is not None:
        found["server"] = server_state(process)
    found.update(records(request["state_dir"]))
    return found


def server_state(process):
    where = access(process["args"])
    missing = [name for name in ("ca", "certificate", "key") if not where[name]]
    if missing:
        return {"problem": "its arguments name no %s to reach it with" % ", ".join(missing)}
    for left in reversed(range(ASKED)):
        try:
            return described(where, process)
        except (OSError, ValueError) as error:
            problem = str(error)
        if left:
            time.sleep(0.5)
    return {"problem": problem}


def described(where, process):
    problem = ready(where)
    if problem:
        raise OSError(problem)
    version = get_object(where, "/version")
    namespace = get_object(where, "/api/v1/namespaces/kube-system")
    kubeadm = get_object(where, "/api/v1/namespaces/kube-system/configmaps/kubeadm-config")
    pods = get_object(
        where, "/api/v1/namespaces/kube-system/pods?labelSelector=component%3D" + SERVER
    )
    mine = [
        pod
        for pod in (pods or {}).get("items", ())
        if pod.get("status", {}).get("hostIP") == flag(process["args"], "advertise-address")
    ]
    statuses = mine[0]["status"].get("containerStatuses", ()) if mine else ()
    return {
        "problem": None,
        "version": version["gitVersion"],
        "namespace_uid": namespace["metadata"]["uid"],
        "kubeadm": kubeadm,
        "restarts": sum(one.get("restartCount", 0) for one in statuses),
        "age": age(process),
    }


def age(process):
    """Seconds since a process has started."""
    return uptime() - process["start"] / os.sysconf("SC_CLK_TCK")


def uptime():
    # Ticks of a process count from the boot, time asleep included.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", 7))


def policy_state(path):
    try:
        status = os.lstat(path)
    except OSError as error:
        return {"kind": "absent" if error.errno == errno.ENOENT else str(error)}
    if stat.S_ISDIR(status.st_mode):
        # A container runtime makes an empty one of what is missing and is to be mounted.
        return {"kind": "a directory" if os.listdir(path) else "absent"}
    if not stat.S_ISREG(status.st_mode):
        return {"kind": "no regular file"}
    mode = "%04o" % stat.S_IMODE(status.st_mode)
    return {
        "kind": "file",
        "text": read_text(path),
        "mode": mode,
        "owner": [status.st_uid, status.st_gid],
        "written": status.st_mtime,
    }


def log_state(path):
    folder = os.path.dirname(path)
    held = 0
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(os.path.basename(path).rpartition(".")[0]):
            held += os.lstat(os.path.join(folder, name)).st_size
    nearest = existing(folder)
    room = os.statvfs(nearest)
    problem = None
    if os.path.lexists(folder) and not os.path.isdir(folder):
        problem = "%s is no folder" % folder
    elif os.path.isdir(path):
        problem = "%s is a folder" % path
    elif not os.access(nearest, os.W_OK):
        read_only = room.f_flag & os.ST_RDONLY
        problem = "%s is not writable%s" % (nearest, ": a read-only file system" * bool(read_only))
    mode = "%04o" % stat.S_IMODE(os.stat(folder).st_mode) if os.path.isdir(folder) else None
    return {"free": room.f_bavail * room.f_frsize, "held": held, "mode": mode, "problem": problem}


def strays(folder):
    """Other files of the static-pod directory that the kubelet would take for an API server."""
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.startswith(".") or name == MANIFEST:
            continue
        if name.startswith(SERVER):
            found.append(name)
            continue
        try:
            text = read_text(os.path.join(folder, name)) or ""
        except (OSError, Refused):
            continue
        if re.search(
            r"""^\s*(- )?["']?name["']?:\s*["']?kube-apiserver["']?,?\s*$""", text, re.MULTILINE
        ):
            found.append(name)
    return found


def state_dir_problem(path, pods):
    """Why the state folder can't be used; None if it can."""
    if os.path.realpath(path).startswith(os.path.realpath(pods) + "/") or path == pods:
        return "%s is in the static-pod directory" % path
    if os.path.isdir(pods) and os.stat(existing(path)).st_dev != os.stat(pods).st_dev:
        return (
            "%s and %s are on different file systems, so that the manifest can't be replaced in "
            "one step" % (path, pods)
        )
    return None


def under_way(path):
    """The journal, and whether its worker lives: one that has ended wrote its last words before."""
    journal = get_json(path)
    if not journal:
        return None
    if lives(journal["worker"]):
        return dict(journal, alive=True)
    return dict(get_json(path) or journal, alive=False)


def records(state_dir):
    """What earlier runs have left: the settings in force, the change under way, the lock."""
    journal = under_way(os.path.join(state_dir, "rollout.json"))
    lock = get_json(os.path.join(state_dir, "lock.json"))
    if lock and (lock["boot"] != boot_id() or lock["until"] <= uptime()):
        lock = None
    if lock:
        lock["seconds"] = round(lock["until"] - uptime())
    return {
        "rollout": journal,
        "lock": lock,
        "applied": get_json(os.path.join(state_dir, "applied.json")),
        "original": get_json(os.path.join(state_dir, "original.json")),
    }


# --- the lock ---------------------------------------------------------------------------------


def lock(request):
    """Take the lock of the cluster, which lies on one of its masters; Refused if it is held."""
    folder = request["state_dir"]
    os.makedirs(folder, 0o700, exist_ok=True)
    guard = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        import fcntl  # noqa: PLC0415 - needed here only

        fcntl.flock(guard, fcntl.LOCK_EX)
        held = records(folder)["lock"]
        if held and held["run"] not in (request["run"], request.get("replaces")):
            raise Refused(
                "another run is active: %s. If it is dead, its lock ends in %d s"
                % (held["holder"], held["seconds"])
            )
        until = uptime() + request["seconds"]
        put_json(
            os.path.join(folder, "lock.json"),
            {
                "run": request["run"],
                "holder": request["holder"],
                "boot": boot_id(),
                "until": until,
            },
        )
    finally:
        os.close(guard)
    return {}


def unlock(request):
    """Give the lock back, if it is this run's."""
    held = records(request["state_dir"])["lock"]
    if held and held["run"] == request["run"]:
        os.unlink(os.path.join(request["state_dir"], "lock.json"))
    return {}


def leave(request):
    """Remove what runs have noted, once nothing of ours is in force here."""
    folder = request["state_dir"]
    if not os.path.isdir(folder):
        return {"left": False}
    known = records(folder)
    busy = known["rollout"] and known["rollout"]["outcome"] not in ("done", "back")
    if known["applied"] or known["lock"] or busy:
        return {"left": False}
    shutil.rmtree(folder)
    return {"left": True}


# --- the change -------------------------------------------------------------------------------


class Journal:
    """How far a change is, on the disk."""

    def __init__(self, state_dir, folder):
        self.path = os.path.join(state_dir, "rollout.json")
        self.folder = folder
        self.data = {"folder": folder, "outcome": "running", "steps": [], "worker": None}

    def note(self, step, **more):
        """Write down a step before anything that follows it."""
        self.data["worker"] = myself()
        self.data["steps"].append([step, round(time.time(), 3)])
        self.data.update(more)
        put_json(self.path, self.data)

    def tell(self, step, **more):
        """Do the same where the step must be made even if it can't be written down."""
        try:
            self.note(step, **more)
        except OSError as error:
            self.data["unwritten"] = str(error)


def begin(request):
    """Save what is there, then start the process that makes the change."""
    state_dir = request["state_dir"]
    pods = kubelet()["static_pod_path"]
    path = os.path.join(pods, MANIFEST)
    known = records(state_dir)["rollout"]
    if known and known["outcome"] == "running":
        raise Refused("a change of this master is under way or was interrupted; run again")
    problem = state_dir_problem(state_dir, pods)
    if problem:
        raise Refused(problem)
    manifest = read_text(path)
    if manifest is None or sha256(manifest) != request["expected"]:
        raise Refused("%s was changed by somebody since it was read; run again" % path)
    os.makedirs(state_dir, 0o700, exist_ok=True)
    os.chmod(state_dir, 0o700)
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + request["run"][:8]
    folder = os.path.join(state_dir, "changes", name)
    os.makedirs(folder, 0o700)
    process = server()
    before = {
        "manifest": manifest,
        "policy": policy_state(request["policy_file"]),
        "log_mode": log_state(request["log_path"])["mode"],
        "process": process,
        "identity": identity(process),
        "logs": container_logs(),
    }
    stage(os.path.join(folder, MANIFEST), manifest, like=path)
    if before["policy"]["kind"] == "file":
        stage(os.path.join(folder, POLICY), before["policy"]["text"], like=request["policy_file"])
    put_json(os.path.join(folder, "before.json"), before)
    put_json(os.path.join(folder, "request.json"), dict(request, manifest_path=path))
    sync_folder(os.path.dirname(folder))
    if get_json(os.path.join(state_dir, "original.json")) is None:
        put_json(
            os.path.join(state_dir, "original.json"),
            {"policy": before["policy"].get("text"), "mode": before["policy"].get("mode")},
        )
    journal = Journal(state_dir, folder)
    journal.data["run"] = request["run"]
    detach(journal, "saved", resumed=False)
    return {"folder": folder}


def resume(request):
    """Go on with, or take back, a change whose process has died."""
    known = records(request["state_dir"])["rollout"]
    if not known or known["outcome"] != "running" or known["alive"]:
        return {}
    journal = Journal(request["state_dir"], known["folder"])
    journal.data = {key: value for key, value in known.items() if key != "alive"}
    detach(journal, "resumed", resumed=True)
    return {}


def detach(journal, step, resumed):
    """Start a worker that nothing of this connection can end; return when the journal names it."""
    sys.stdout.flush()
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.wait()
        os.read(reader, 1)
        os.close(reader)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    try:
        journal.note(step)
        os.close(writer)
        work(journal, resumed)
    finally:
        os._exit(0)


def work(journal, resumed):
    """Make the change, prove it, or take it back. Never raises."""
    request = get_json(os.path.join(journal.folder, "request.json"))
    before = get_json(os.path.join(journal.folder, "before.json"))
    change = Change(journal, request, before)
    try:
        if resumed:
            change.resume()
        else:
            change.forward()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the old settings come back
        cause = (
            str(error) if isinstance(error, Failed) else "%s: %s" % (type(error).__name__, error)
        )
        change.back(cause)


class Change:
    """One master's change, forward and back."""

    def __init__(self, journal, request, before):
        self.journal = journal
        self.request = request
        self.before = before
        self.manifest = request["manifest_path"]
        self.staged = os.path.join(request["state_dir"], "staged." + MANIFEST)
        self.swaps = request["manifest"] != before["manifest"]
        self.where = access((before["process"] or {"args": []})["args"])
        self.unavailable = 0.0

    def forward(self):
        request = self.request
        self.put_policy()
        self.journal.note("policy")
        self.make_log_folder()
        if self.swaps:
            stage(self.staged, request["manifest"], like=self.manifest)
            self.journal.note("staged")
            os.rename(self.staged, self.manifest)
            sync_folder(os.path.dirname(self.manifest))
            self.journal.note("swapped")
        elif request["restart"]:
            # The manifest is right, so the kubelet has no reason to: it starts an ended one anew.
            os.kill(self.before["process"]["pid"], signal.SIGTERM)
            self.journal.note("restarted")
        else:
            self.finish()
            return
        self.prove()

    def resume(self):
        text = read_text(self.manifest)
        if text not in (self.request["manifest"], self.before["manifest"]):
            self.journal.note("abandoned", outcome="abandoned")
        elif self.swaps and text == self.before["manifest"]:
            raise Failed("it was interrupted before the manifest was replaced")
        elif self.swaps or server_differs(self.before["identity"]):
            self.prove()
        else:
            raise Failed("it was interrupted before the API server was restarted")

    def prove(self):
        """Wait for the new server, and see that it does what it was told."""
        limits = self.request["timeouts"]
        self.await_server(self.request["wanted"], limits, self.before["identity"])
        probe = self.request["probe"]
        if probe:
            line = self.find_line(probe, limits["probe"])
            self.journal.note("proven", line=line)
        self.finish()

    def finish(self):
        """Make it the state that later runs compare with."""
        self.clean()
        put_json(
            os.path.join(self.request["state_dir"], "applied.json"),
            {
                "run": self.request["run"],
                "manifest": self.request["manifest"],
                "policy_sha256": self.request["policy_sha256"],
            },
        )
        if self.request["absent"]:
            self.forget()
        self.journal.note("done", outcome="done", unavailable=round(self.unavailable, 1))
        self.prune()

    def await_server(self, wanted, limits, old):
        """Wait for a server with the wanted flags that is not `old`, ready and lasting."""
        wait = Wait(self.journal, self.where, wanted, old)
        try:
            wait.until(limits)
        finally:
            self.where = wait.where
            self.unavailable += wait.unavailable
        self.journal.note("stable", lasting=wait.current)

    def find_line(self, probe, seconds):
        """Make a request that nobody else makes, and find its line in the log."""
        path, deadline = self.request["log_path"], time.monotonic() + seconds
        position = os.path.getsize(path) if os.path.exists(path) else 0
        asked = "the request was not answered"
        while time.monotonic() < deadline:
            try:
                status, _ = ask(self.where, probe["path"], agent=probe["agent"])
                asked = "the request was answered with %d" % status
            except OSError as error:
                asked = "the request was not answered: %s" % error
            line = search(path, position, probe["agent"])
            if line:
                level = json.loads(line).get("level")
                if level != probe["level"]:
                    raise Failed(
                        "the API server has recorded a request of ours at level %s, where the "
                        "policy says %s: another policy is in force" % (level, probe["level"])
                    )
                return line
            time.sleep(1)
        raise Failed(
            "the API server has written no audit line for a request of ours to %s within %d s "
            "(audit_policy_probe_timeout); %s" % (path, seconds, asked)
        )

    def back(self, cause):
        """Put everything back, and wait until the old server serves."""
        tell = self.journal.tell
        tell("failed", cause=cause)
        try:
            tell("collected", evidence=self.collect(cause))
            running = server()
            former = identity(running)
            self.restore_policy()
            if read_text(self.manifest) != self.before["manifest"]:
                put_back(os.path.join(self.journal.folder, MANIFEST), self.manifest, self.staged)
            elif running and self.has_read_policy(running):
                os.kill(running["pid"], signal.SIGTERM)
            else:
                former = None
            tell("restored")
            self.restore_log_folder()
            self.clean()
            self.await_old(former)
            self.remove_policy()
        except BaseException as error:  # noqa: BLE001 - the journal is all that is left to tell
            tell("lost", outcome="lost", problem="%s: %s" % (type(error).__name__, error))
            return
        tell("back", outcome="back", unavailable=round(self.unavailable, 1))

    def has_read_policy(self, running):
        """Whether that server may have read the policy that is taken back: it has started since."""
        path = flag(running["args"], "audit-policy-file")
        return identity(running) != self.before["identity"] and path == self.request["policy_file"]

    def await_old(self, running):
        """Wait for the server of the restored manifest, which may never have been ended."""
        arguments = self.before["process"]["args"]
        wanted = {name: flag(arguments, name) for name in self.request["wanted"]}
        self.await_server(wanted, BACK, None if running == self.before["identity"] else running)

    def put_policy(self):
        request, path = self.request, self.request["policy_file"]
        if request["policy"] is None:
            return
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        # One that is right keeps its time, by which the server is known to have read it.
        if policy_state(path).get("text") != request["policy"]:
            if os.path.isdir(path):
                os.rmdir(path)
            put(path, request["policy"])
        os.chown(path, 0, 0)
        os.chmod(path, self.policy_mode())

    def policy_mode(self):
        """Ours is for root alone; somebody else's gets back the one that it had."""
        known = get_json(os.path.join(self.request["state_dir"], "original.json")) or {}
        return int(known.get("mode") or "0600", 8) if self.request["absent"] else 0o600

    def restore_policy(self):
        path = self.request["policy_file"]
        if self.request["policy"] is None:
            return
        if self.before["policy"]["kind"] == "file":
            put_back(os.path.join(self.journal.folder, POLICY), path, path + ".exectrail")

    def remove_policy(self):
        """Where there was none: not before nobody mounts it any more."""
        path = self.request["policy_file"]
        if self.request["policy"] is None or self.before["policy"]["kind"] == "file":
            return
        if os.path.isfile(path):
            os.unlink(path)
        elif os.path.isdir(path) and not os.listdir(path):
            os.rmdir(path)

    def make_log_folder(self):
        if self.request["absent"]:
            return
        folder = os.path.dirname(self.request["log_path"])
        os.makedirs(folder, 0o700, exist_ok=True)
        os.chmod(folder, 0o700)

    def restore_log_folder(self):
        folder, mode = os.path.dirname(self.request["log_path"]), self.before["log_mode"]
        if mode and os.path.isdir(folder):
            try:
                os.chmod(folder, int(mode, 8))
            except OSError as error:
                # Read-only perhaps, which may be why it failed: no reason to give up.
                self.journal.data["unwritten"] = str(error)

    def clean(self):
        if os.path.lexists(self.staged):
            os.unlink(self.staged)

    def forget(self):
        """After the settings are out: no policy, no log if told so, no record."""
        request = self.request
        if request["policy"] is None and os.path.isfile(request["policy_file"]):
            os.unlink(request["policy_file"])
        folder, name = os.path.split(request["log_path"])
        if request["remove_logs"] and os.path.isdir(folder):
            stem, dot, suffix = name.rpartition(".")
            rotated = re.compile(
                re.escape(stem or suffix) + r"-[0-9TZ.:-]+" + re.escape(dot and dot + suffix)
            )
            for entry in os.listdir(folder):
                if entry == name or rotated.match(entry):
                    os.unlink(os.path.join(folder, entry))
            if not os.listdir(folder):
                os.rmdir(folder)
        for record in ("applied.json", "original.json"):
            path = os.path.join(request["state_dir"], record)
            if os.path.exists(path):
                os.unlink(path)

    def prune(self):
        changes = os.path.dirname(self.journal.folder)
        for name in sorted(os.listdir(changes))[:-KEPT]:
            shutil.rmtree(os.path.join(changes, name), ignore_errors=True)

    def collect(self, cause):
        """Keep what tells why it failed, before it is swept away by the way back."""
        now, then = read_text(self.manifest) or "", self.before["manifest"]
        diff = difflib.unified_diff(
            then.splitlines(keepends=True), now.splitlines(keepends=True), "before", "after"
        )
        return {
            "cause.txt": cause + "\n",
            "manifest.diff": "".join(diff),
            "kube-apiserver.log": container_log(self.before.get("logs", {})),
            "kubelet.log": kubelet_log(self.journal.data["steps"][0][1]),
        }


class Wait:
    """Waiting for an API server: which one runs, since when it is ready, how long none was."""

    def __init__(self, journal, where, wanted, old):
        self.journal = journal
        self.where = where
        self.wanted = wanted
        self.old = old
        self.seen = []
        self.current = None
        self.since = None
        self.problem = "it was not asked yet"
        self.unavailable = 0.0
        self.started = self.looked = time.monotonic()

    def until(self, limits):
        """Return when it has been ready for as long as it must; Failed if it does not get there."""
        while True:
            self.look()
            now = time.monotonic()
            if self.since is not None and now - self.since >= limits["stable"]:
                return
            if len(self.seen) > limits.get("restarts", RESTARTS):
                raise Failed(
                    "the new API server ends as soon as it has started: %d starts" % len(self.seen)
                )
            if now - self.started > limits["ready" if self.current else "start"]:
                raise Failed(self.late(limits))
            time.sleep(TICK)

    def look(self):
        process = server()
        who = identity(process)
        if who and who != self.old:
            if who not in self.seen:
                self.seen.append(who)
            if who != self.current and obeys(process["args"], self.wanted):
                if self.current is None:
                    self.journal.tell("started")
                    self.started = time.monotonic()
                self.current, self.since = who, None
                self.where = access(process["args"])
        self.problem = ready(self.where)
        now = time.monotonic()
        if self.problem:
            self.unavailable += now - self.looked
        if self.problem or who != self.current:
            self.since = None
        elif self.current and self.since is None:
            self.since = now
            self.journal.tell("ready")
        self.looked = now

    def late(self, limits):
        if self.current:
            return (
                "the new API server was not ready for %d s in a row within %d s "
                "(audit_policy_ready_timeout): %s"
                % (limits["stable"], limits["ready"], self.problem or "it kept restarting")
            )
        why = "" if kubelet()["running"] else "; the kubelet does not run"
        return (
            "no API server with the new settings has started within %d s "
            "(audit_policy_start_timeout)%s" % (limits["start"], why)
        )


def server_differs(who):
    """Whether another server runs than that one."""
    return identity(server()) not in (who, None)


def obeys(arguments, wanted):
    return all(flag(arguments, name) == value for name, value in wanted.items())


def search(path, position, mark):
    """The line after `position` that has the mark; None if there is none."""
    try:
        with open(path, "rb") as stream:
            # A file that has become shorter is another one.
            stream.seek(position if os.fstat(stream.fileno()).st_size >= position else 0)
            for line in stream:
                if mark.encode() in line and line.endswith(b"\n"):
                    return line.decode("utf-8", "replace")[:MAX_TEXT]
    except OSError:
        pass
    return None


def container_logs():
    """The logs that API server containers have written, with how they begin.

    A pod that has been there before writes its logs under the same names again.
    """
    found = {}
    for path in glob.glob(os.path.join(LOGS, "kube-system_%s*" % SERVER, SERVER, "*")):
        try:
            with open(path, "rb") as stream:
                found[path] = stream.read(200).decode("utf-8", "replace")
        except OSError:
            continue  # The kubelet removes those of containers that it has replaced.
    return found


def container_log(former):
    """The last words of the newest API server container; `former` are logs of older ones."""
    found = container_logs()
    new = [path for path in found if found[path] != former.get(path)]
    # A container that has just been made, and has no words yet, comes after one that had its last.
    spoken = [path for path in new if found[path]]
    for path in sorted(spoken or new or found, key=modified, reverse=True):
        remark = "" if new else "# FORMER: no container has written a log since the change began\n"
        try:
            return "%s# %s\n%s" % (remark, path, tail(path))
        except OSError:
            continue
    return "# there is no log of a kube-apiserver container\n"


def modified(path):
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def tail(path):
    with open(path, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - 64 * 1024))
        lines = stream.read().decode("utf-8", "replace").splitlines()[-TAIL:]
    return "\n".join(lines) + "\n"


def kubelet_log(since):
    command = ["journalctl", "--no-pager", "--unit=kubelet", "--since=@%d" % since]
    try:
        told = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=20,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return "the kubelet's journal can't be read: %s\n" % error
    return "\n".join(told.decode("utf-8", "replace").splitlines()[-TAIL:]) + "\n"


def watch(request):
    """How far the change is; returns at once, or when something is new, after two seconds."""
    deadline = time.monotonic() + 2
    while True:
        journal = records(request["state_dir"])["rollout"]
        if (
            journal is None
            or journal["outcome"] != "running"
            or not journal["alive"]
            or len(journal["steps"]) > request["known"]
            or time.monotonic() > deadline
        ):
            return {"rollout": journal}
        time.sleep(0.1)


# --- kubeadm's configuration ------------------------------------------------------------------


def persist(request):
    """Replace the ClusterConfiguration, if nobody has changed it since it was read."""
    where = access(server()["args"])
    path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
    known = get_object(where, path)
    if known["data"].get("ClusterConfiguration") != request["expected"]:
        raise Refused("kubeadm's ClusterConfiguration was changed since it was read; run again")
    known["data"]["ClusterConfiguration"] = request["configuration"]
    status, text = ask(where, path, method="PUT", body=json.dumps(known))
    if status != http.client.OK:
        raise Refused("kubeadm's ClusterConfiguration was not taken: %d: %s" % (status, text[:300]))
    return {}


DOES = {
    "read": read,
    "lock": lock,
    "unlock": unlock,
    "leave": leave,
    "begin": begin,
    "resume": resume,
    "watch": watch,
    "persist": persist,
}


def main(request):
    """Do what the request says."""
    return DOES[request["do"]](request)
