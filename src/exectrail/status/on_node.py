"""How the agent and the audit policy of one node are.

Sent to the node as a program: Python 3.6, standard library, only reads, judges nothing.
"""

# ruff: noqa: ANN001, ANN201, D401, PTH123, PTH208, UP031
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import hashlib
import json
import os
import subprocess
import time

UNIT = "exectrail-agent.service"
STATUS = "/run/exectrail-agent/status.json"
APPLIED = "/etc/kubernetes/exectrail/applied.json"
SERVER = "kube-apiserver"


def text(path):
    """What a file holds; None where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None


def unit():
    """What systemd says of the agent's unit; nothing where there is no systemd."""
    asked = ["systemctl", "show", "-p", "LoadState,ActiveState,MainPID", UNIT]
    try:
        said = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=4,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return dict(line.partition("=")[::2] for line in said.decode().splitlines())


def state(pid):
    """The letter that the kernel has for a process; empty where there is none."""
    fields = (text("/proc/%s/stat" % pid) or "").rpartition(")")[2].split()
    return fields[0] if fields else ""


def arguments():
    """The command line of the API server; None where none runs."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if (text("/proc/%s/comm" % pid) or "").strip() == SERVER:
            return (text("/proc/%s/cmdline" % pid) or "").split("\0")[:-1]
    return None


def policy():
    """Whether the API server has the audit settings rolled out last; None where none runs."""
    words = arguments()
    if words is None:
        return None
    applied = json.loads(text(APPLIED) or "{}")
    audit = [word for word in words if word.startswith("--audit-")]
    files = [word.partition("=")[2] for word in audit if word.startswith("--audit-policy-file=")]
    meant = {line.strip(" -'\"") for line in (applied.get("manifest") or "").splitlines()}
    held = (text(files[-1]) or "") if files else ""
    return (
        bool(files)
        and all(word.strip(" -'\"") in meant for word in audit)
        and hashlib.sha256(held.encode("utf-8", "replace")).hexdigest()
        == applied.get("policy_sha256")
    )


def main(_request):
    """Give all of it."""
    found = unit()
    status = text(STATUS)
    return {
        "now": time.time(),
        "loaded": found.get("LoadState") == "loaded",
        "active": found.get("ActiveState", ""),
        "process": state(found.get("MainPID") or "0"),
        "status": json.loads(status) if status else None,
        "policy": policy(),
    }
