#!/usr/bin/python
"""The agent's installation on one node: read, changed in one transaction, or removed.

Runs on standard input of whatever Python the node has (3.6 or later); on one that is too old for
the agent too, to say so.
"""

DOCUMENTATION = r"""
module: exec_agent_node
short_description: Read an installation of the agent, decide what it needs, and change it
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of the role C(exectrail.audit.exec_agent). A play has no use for it by itself.
  - With O(do=build) finds the agent on the controller, or builds it. With O(do=look) reads the node
    in one call. With O(do=decide) says on the controller whether there is anything to do, and why.
    With O(do=change) does it in one call, which lasts until the agent has proved that it sees.
    Where it does not, what was there before comes back. A node ends by itself what it has begun.
attributes:
  check_mode:
    description: Can run in check_mode and predict what would be changed.
    support: full
  diff_mode:
    description: Returns details on what has changed when in diff mode.
    support: full
  platform:
    description: Any Linux with a Python 3.
    platforms: linux
    support: full
options:
  do:
    description: What to do.
    type: str
    required: true
    choices: [build, look, decide, change]
  file:
    description: Path on the controller of a built agent, for O(do=build) empty to build one. For
      O(do=build) and O(do=change).
    type: str
  checkout:
    description: The folder whose Makefile builds it. For O(do=build).
    type: path
  python:
    description: The Python on the node that is to run the agent. For O(do=look) and O(do=change).
    type: path
  kubeconfig:
    description: The kubelet's credentials on the node. For O(do=look).
    type: path
  log_folder:
    description: Folder of the log on the node. For O(do=look) and O(do=change).
    type: path
  node:
    description: What O(do=look) has found. For O(do=decide) and O(do=change).
    type: dict
  wanted:
    description: What the node is to have. For O(do=decide) and O(do=change).
    type: dict
  seconds:
    description: For how long to wait until the agent sees. For O(do=change).
    type: int
requirements:
  - Python 3.6 or later on the node
"""

EXAMPLES = r"""
- name: Read what is there
  exectrail.audit.exec_agent_node:
    do: look
    kubeconfig: /etc/kubernetes/kubelet.conf
    log_folder: /var/log/exectrail
"""

RETURN = r"""
node:
  description: What was found, for O(do=look).
  returned: success
  type: dict
work:
  description: Whether anything must be done, for O(do=decide).
  returned: success
  type: bool
reasons:
  description: Why, for O(do=decide).
  returned: success
  type: list
  elements: str
refusals:
  description: Why it can't or may not be done, for O(do=decide).
  returned: success
  type: list
  elements: str
"""

import base64
import ctypes
import fcntl
import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time

FOLDER = "/usr/lib/exectrail-agent"
PROGRAM = FOLDER + "/current/exectrail-agent.pyz"
CONFIGURATION = "/etc/exectrail/agent.conf"
UNIT = "/etc/systemd/system/exectrail-agent.service"
COMMAND = "/usr/sbin/exectrail-agent"
RUNTIME = "/run/exectrail-agent"
STATE = "/var/lib/exectrail-agent"
PINS = "/sys/fs/bpf/exectrail"
SERVICE = "exectrail-agent.service"
FILES = {
    "configuration": (CONFIGURATION, "0600"),
    "unit": (UNIT, "0644"),
    "command": (COMMAND, "0755"),
}
TRACES = (
    UNIT,
    "/etc/systemd/system/multi-user.target.wants/" + SERVICE,
    COMMAND,
    FOLDER,
    CONFIGURATION,
    RUNTIME,
    PINS,
)
PAST = "in the last ten minutes "
STALE = 30
# systemd gives the service 90 s to start and 20 s to stop.
COMMAND_SECONDS = 150


class Failed(Exception):
    """A step has failed."""


def run(*command, **more):
    """What a command says on its standard output; Failed with all that it says if it fails."""
    try:
        done = subprocess.run(
            command,
            input=more.get("stdin", "").encode("utf-8"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Failed(str(error)) from error
    out, complaint = (each.decode("utf-8", "replace") for each in (done.stdout, done.stderr))
    if done.returncode:
        said = (complaint + out).strip() or "exit code %d" % done.returncode
        raise Failed("%s: %s" % (" ".join(command), said))
    return out


def words(*command):
    """The same; "" if it fails."""
    try:
        return run(*command)
    except Failed:
        return ""


def content(path):
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def text(path):
    return content(path).decode("utf-8", "replace")


def mode(path):
    """Permissions of what is at a path, with the owner unless that is root; "" if nothing is."""
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    said = "%04o" % stat.S_IMODE(found.st_mode)
    return said if (found.st_uid, found.st_gid) == (0, 0) else said + " of another owner"


def service():
    """What systemd says of the service."""
    names = ("ActiveState", "UnitFileState", "MainPID")
    said = words("systemctl", "show", SERVICE, "--property=" + ",".join(names))
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    active, enabled, pid = (found.get(name, "") for name in names)
    return active, enabled, int(pid) if pid.isdigit() else 0


def process(pid):
    """The state letter of a process, and its age in seconds."""
    fields = text("/proc/%d/stat" % pid).rpartition(")")[2].split()
    if not pid or not fields:
        return "", 0.0
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0], time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", 7)) - started


def status():
    """The agent's own view; only what has the form that it should."""
    try:
        found = json.loads(text(RUNTIME + "/status.json"))
        return {
            "pid": int(found["pid"]),
            "written": float(found["written"]),
            "started": float(found["started"]),
            "canary": float(found["canary"]),
            "sensor": str(found["sensor"]),
            "reasons": [str(reason) for reason in found["reasons"]],
        }
    except (ValueError, TypeError, LookupError):
        return {}


def newer():
    """What was written after the agent has noted its start."""
    try:
        started = os.stat(RUNTIME + "/starts").st_mtime_ns
    except OSError:
        return []
    found = []
    for path in (FOLDER + "/current", PROGRAM, CONFIGURATION, UNIT):
        try:
            if os.lstat(path).st_mtime_ns > started:
                found.append(path)
        except OSError:
            continue
    return found


def has_libbpf():
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return False
    return True


def api_addresses(kubeconfig):
    """Where a kubeconfig's API server answers; with the resolvers, if it goes by a name."""
    found = re.search(r"""server["']?:\s*["']?https://(\[[^\]]+\]|[^:/\s"']+)""", text(kubeconfig))
    if not found:
        return []
    host = found.group(1).strip("[]")
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        answers = {answer[4][0] for answer in socket.getaddrinfo(host, None)}
    except OSError:
        return []
    resolvers = re.findall(r"(?m)^nameserver\s+([0-9a-fA-F.:]+)", text("/etc/resolv.conf"))
    return sorted(answers.union(resolvers))


def current():
    """The version that is used; "" if none is."""
    return os.readlink(FOLDER + "/current") if os.path.islink(FOLDER + "/current") else ""


def open_logs(folder):
    """{path: (mode, mode that is meant)} of what it has recorded, where they differ."""
    meant = {folder: "0700", os.path.join(folder, "advaudit.log"): "0600"}
    return {
        path: (mode(path), meant[path]) for path in meant if mode(path) not in ("", meant[path])
    }


def empty_folder():
    """The folder of the configuration, if a removal was interrupted before it."""
    folder = os.path.dirname(CONFIGURATION)
    return [folder] if os.path.isdir(folder) and not os.listdir(folder) else []


def look(request):
    """Everything that the decision needs; nothing is written."""
    active, enabled, pid = service()
    letter, age = process(pid)
    said = status()
    kernel = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
    folder = request["log_folder"]
    return {
        "python": list(sys.version_info[:2]),
        "bpf": kernel >= [5, 8] and os.path.exists("/sys/kernel/btf/vmlinux"),
        "libbpf": has_libbpf(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "packages": next((name for name in ("apt-get", "dnf") if shutil.which(name)), ""),
        "api": api_addresses(request["kubeconfig"]),
        "sensor": said.get("sensor", "") if active == "active" else "",
        "current": current(),
        "digest": hashlib.sha256(content(PROGRAM)).hexdigest() if os.path.exists(PROGRAM) else "",
        "files": {name: text(path) for name, (path, _) in FILES.items()},
        "modes": {name: mode(path) for name, (path, _) in FILES.items()},
        "log_modes": {path: found for path, (found, _) in open_logs(folder).items()},
        "active": active,
        "enabled": enabled,
        "pid": pid,
        "process": letter,
        "age": age,
        "newer": newer() if active == "active" else [],
        "status": said,
        "silent": time.time() - said["written"] if said else 0.0,
        "traces": [path for path in TRACES if os.path.lexists(path)] + empty_folder(),
        "held": [path for path in (folder, STATE) if os.path.lexists(path)],
    }


def obstacle(folder):
    """What the service that runs still lacks; "" if it sees."""
    active, _, pid = service()
    if active != "active":
        return "its service is " + (active or "not there")
    said = status()
    if said.get("pid") != pid or time.time() - said["written"] > STALE:
        return "it says nothing of itself"
    reasons = [reason for reason in said["reasons"] if not reason.startswith(PAST)]
    if reasons:
        return "; ".join(reasons)
    if not said["canary"]:
        return "its self-test has not passed"
    since = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(said["started"]))
    if last_proof(folder) < since:
        return "its self-test is not in %s/advaudit.log" % folder
    return ""


def last_proof(folder):
    """The time of the newest record of a passed self-test; "" if there is none."""
    for name in ("advaudit.log", "advaudit.log.1"):
        try:
            with open(os.path.join(folder, name), "rb") as stream:
                lines = [line for line in stream if b'"health.cause":"canary"' in line]
        except OSError:
            continue
        if lines:
            try:
                return str(json.loads(lines[-1].decode("utf-8", "replace"))["time"])
            except (ValueError, LookupError):
                return ""
    return ""


def wait(request):
    """Wait until the agent sees."""
    deadline = time.monotonic() + request["seconds"]
    while True:
        problem = obstacle(request["log_folder"])
        if not problem:
            return
        if time.monotonic() > deadline:
            raise Failed("The agent is not healthy after %d s: %s" % (request["seconds"], problem))
        time.sleep(0.2)


def make_folder(path):
    os.makedirs(path, exist_ok=True)
    os.chown(path, 0, 0)
    os.chmod(path, 0o755)  # noqa: S103 - a folder of programs


def put(path, wanted, permissions):
    """Whether a file had to be replaced, which happens in one step."""
    if mode(path) == permissions and content(path) == wanted:
        return False
    staged = os.path.join(os.path.dirname(path), ".%s.new" % os.path.basename(path))
    with open(staged, "wb") as stream:
        os.fchown(stream.fileno(), 0, 0)
        os.fchmod(stream.fileno(), int(permissions, 8))
        stream.write(wanted)
    os.replace(staged, path)
    return True


def point(release):
    """Whether the link to the version that is used had to be replaced."""
    if current() == release:
        return False
    staged = FOLDER + "/.current.new"
    remove(staged)
    os.symlink(release, staged)
    os.replace(staged, FOLDER + "/current")
    return True


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def find_sensor(request, program):
    """The sensor that works by a self-test, beside the agent that runs; else the one expected."""
    trial, expected = request["trial"], request["sensor"]
    command = (request["python"], "-I", program, "self-test", "--config", "/dev/stdin")
    try:
        if trial:
            return run(*command, stdin="[agent]\nsensor = " + trial).partition(":")[0]
    except Failed:
        # It was about a better one than that in use.
        if trial in ("auto", expected):
            raise
    return expected


def start(verb):
    # This makes systemd read its files again too.
    run("systemctl", "enable", SERVICE)
    run("systemctl", verb, SERVICE)


def install(request):
    """Put a version beside the others, change to it and see that it sees, or go back."""
    release = FOLDER + "/" + request["release"]
    program = release + "/exectrail-agent.pyz"
    make_folder(FOLDER)
    make_folder(release)
    copied = put(program, base64.b64decode(request["program"]), "0755")
    sensor = find_sensor(request, program)
    files = request["files"][sensor]
    before = {name: content(path) for name, (path, _) in FILES.items()}
    old, was = current(), service()[:2]
    done = []
    try:
        if before["configuration"] != files["configuration"].encode("utf-8"):
            check = (request["python"], "-I", program, "config-check", "--config", "/dev/stdin")
            run(*check, stdin=files["configuration"])
        make_folder(os.path.dirname(CONFIGURATION))
        for name, (path, permissions) in FILES.items():
            if put(path, files[name].encode("utf-8"), permissions):
                done.append(name)
        if point(request["release"]):
            done.append("current")
        logs = open_logs(request["log_folder"])
        for path, (_, meant) in logs.items():
            os.chown(path, 0, 0)
            os.chmod(path, int(meant, 8))
        again = request["restart"] or copied or any(name != "command" for name in done)
        start("restart" if again else "start")
        if sensor == "audit" and os.path.lexists(PINS):
            run(COMMAND, "unpin")
        wait(request)
    except (Failed, OSError) as error:
        said = words("journalctl", "--unit=" + SERVICE, "--lines=20", "--output=cat", "--no-pager")
        outcome = go_back(before, old) if done else "Nothing was changed."
        raise Failed("%s\n%s\nThe agent's last words:\n%s" % (error, outcome, said)) from error
    if old != request["release"]:
        forget(request["release"], old)
    changed = again or done or logs or was != ("active", "enabled")
    return {"changed": bool(changed), "sensor": sensor}


def go_back(before, old):
    """Put the version back that was there, or stop one that has never worked here; say it."""
    try:
        if not (old and before["unit"]):
            run("systemctl", "disable", "--now", SERVICE)
            run(COMMAND, "unpin")
            return "The agent is stopped."
        # Else systemd counts the starts of the one that has failed against the one that comes back.
        run("systemctl", "stop", SERVICE)
        for name, (path, permissions) in FILES.items():
            put(path, before[name], permissions)
        point(old)
        start("start")
    except (Failed, OSError) as error:
        return "What was there before could not be put back: %s" % error
    return "Version %s is back." % old


def forget(*but):
    """Remove all versions but these."""
    for name in os.listdir(FOLDER):
        path = os.path.join(FOLDER, name)
        if name not in but and not os.path.islink(path):
            remove(path)


def uninstall(request):
    """Remove the agent; what it has recorded only if that is said."""
    active, enabled, _ = service()
    if enabled.startswith("enabled"):
        run("systemctl", "disable", SERVICE)
    if os.path.lexists(UNIT) or active == "active":
        run("systemctl", "stop", SERVICE)
    # Before the files, so that an interrupted removal can be finished; whatever somebody has made
    # of its configuration.
    if os.path.exists(PROGRAM):
        run(request["python"], "-I", PROGRAM, "unpin", "--config=/dev/null")
    for path in TRACES:
        remove(path)
    for path in empty_folder() + ([request["log_folder"], STATE] if request["remove_logs"] else []):
        remove(path)
    run("systemctl", "daemon-reload")
    return {"changed": True, "sensor": ""}


def main(request):
    """Do what the request says."""
    if request["do"] == "look":
        return look(request)
    # One whose controller has gone away goes on, and the next one waits for its end.
    lock = os.open(os.path.dirname(FOLDER), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return {"install": install, "uninstall": uninstall}[request["do"]](request)
