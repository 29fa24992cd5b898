# ruff: noqa: INP001 - a script, no package
"""Tells what the role has to know of a node before it changes anything, as one JSON object.

Argument: the kubeconfig. Also runs on a Python that is too old for the agent, from 3.6, to say so.
"""

import ctypes
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_active() -> bool:
    command = ["systemctl", "--quiet", "is-active", "exectrail-agent.service"]
    try:
        return subprocess.run(command, check=False, timeout=20).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _has_libbpf() -> bool:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return False
    return True


def _api_addresses(kubeconfig: str) -> list:
    """Where a kubeconfig's API server answers; with the resolvers, if it goes by a name."""
    found = re.search(r"""server["']?:\s*["']?https://(\[[^\]]+\]|[^:/\s"']+)""", _text(kubeconfig))
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
    resolvers = re.findall(r"(?m)^nameserver\s+([0-9a-fA-F.:]+)", _text("/etc/resolv.conf"))
    return sorted(answers.union(resolvers))


def _sensor() -> str:
    """Which sensor the agent uses that runs; "" if none does."""
    try:
        status = json.loads(_text("/run/exectrail-agent/status.json"))
    except ValueError:
        return ""
    return status.get("sensor", "") if _is_active() else ""


def _current() -> str:
    try:
        return os.readlink("/usr/lib/exectrail-agent/current")  # noqa: PTH115 - Python 3.6
    except OSError:
        return ""


kernel = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
json.dump(
    {
        "python": list(sys.version_info[:2]),
        "bpf": kernel >= [5, 8] and Path("/sys/kernel/btf/vmlinux").exists(),
        "libbpf": _has_libbpf(),
        "systemd": Path("/run/systemd/system").is_dir(),
        "packages": next((name for name in ("apt-get", "dnf") if shutil.which(name)), ""),
        "api": _api_addresses(sys.argv[1]),
        "sensor": _sensor(),
        "current": _current(),
        "configuration": _text("/etc/exectrail/agent.conf"),
        "command": _text("/usr/sbin/exectrail-agent"),
        "unit": _text("/etc/systemd/system/exectrail-agent.service"),
    },
    sys.stdout,
)
