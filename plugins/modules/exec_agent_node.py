#!/usr/bin/python
"""The agent's installation on one node: read, or waited for until it has proved that it sees.

Runs on standard input of whatever Python the node has (3.6 or later), with the request before it;
on one that is too old for the agent too, to say so.
"""

DOCUMENTATION = r"""
module: exec_agent_node
short_description: Read an installation of the agent, and decide what it needs
version_added: 0.1.0
author: Exectrail contributors
description:
  - Part of the role C(exectrail.audit.exec_agent). A play has no use for it by itself.
  - With O(do=build) finds the agent on the controller, or builds it. With O(do=look) reads the node
    in one call. With O(do=decide) says on the controller whether there is anything to do, and why.
    With O(do=await) waits on the node until the agent has proved that it sees.
attributes:
  check_mode:
    description: The same in check mode; nothing is changed on a node.
    support: full
  diff_mode:
    description: Nothing on a node changes.
    support: none
  platform:
    description: Any Linux with a Python 3.
    platforms: linux
    support: full
options:
  do:
    description: What to do.
    type: str
    required: true
    choices: [build, look, decide, await]
  file:
    description: Path on the controller of a built agent, empty to build one. For O(do=build).
    type: str
  checkout:
    description: The folder whose Makefile builds it. For O(do=build).
    type: path
  python:
    description: The Python on the node that is to run the agent. For O(do=look) and O(do=await).
    type: path
  kubeconfig:
    description: The kubelet's credentials on the node. For O(do=look).
    type: path
  log_folder:
    description: Folder of the log on the node. For O(do=look) and O(do=await).
    type: path
  node:
    description: What O(do=look) has found. For O(do=decide).
    type: dict
  wanted:
    description: What the node is to have. For O(do=decide).
    type: dict
  seconds:
    description: For how long to wait. For O(do=await).
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

import sys

sys.dont_write_bytecode = True

import base64
import ctypes
import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import stat
import subprocess
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
LOSS = "events were lost"
STALE = 30


def text(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


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
    command = ["systemctl", "show", SERVICE, "--property=" + ",".join(names)]
    try:
        said = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        said = ""
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


def digest():
    try:
        with open(PROGRAM, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return ""


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
    logs = {folder: "0700", os.path.join(folder, "advaudit.log"): "0600"}
    traces = (
        UNIT,
        "/etc/systemd/system/multi-user.target.wants/" + SERVICE,
        COMMAND,
        FOLDER,
        CONFIGURATION,
        RUNTIME,
        PINS,
    )
    return {
        "python": list(sys.version_info[:2]),
        "bpf": kernel >= [5, 8] and os.path.exists("/sys/kernel/btf/vmlinux"),
        "libbpf": has_libbpf(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "packages": next((name for name in ("apt-get", "dnf") if shutil.which(name)), ""),
        "api": api_addresses(request["kubeconfig"]),
        "sensor": said.get("sensor", "") if active == "active" else "",
        "current": os.readlink(FOLDER + "/current") if os.path.islink(FOLDER + "/current") else "",
        "digest": digest(),
        "configuration": text(CONFIGURATION),
        "unit": text(UNIT),
        "command": text(COMMAND),
        "modes": {
            "configuration": mode(CONFIGURATION),
            "unit": mode(UNIT),
            "command": mode(COMMAND),
        },
        "log_modes": {
            path: mode(path) for path, meant in logs.items() if mode(path) not in ("", meant)
        },
        "active": active,
        "enabled": enabled,
        "pid": pid,
        "process": letter,
        "age": age,
        "newer": newer() if active == "active" else [],
        "status": said,
        "silent": time.time() - said["written"] if said else 0.0,
        "traces": [path for path in traces if os.path.lexists(path)] + empty_folder(),
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
    reasons = [reason for reason in said["reasons"] if not reason.startswith(LOSS)]
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
        if not problem or time.monotonic() > deadline:
            return {"problem": problem}
        time.sleep(0.2)


def main(request):
    """Do what the request says, and print one line."""
    answer = {"look": look, "await": wait}[request["do"]](request)
    sys.stdout.write(json.dumps({"changed": False, "answer": answer}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if "REQUEST" in globals():
        main(json.loads(base64.b64decode(globals()["REQUEST"]).decode()))
    else:
        with open(sys.argv[1], encoding="utf-8") as arguments:
            main(json.load(arguments)["request"])
