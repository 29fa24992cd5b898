"""What tests of the agent's roll-out share: agents of several kinds, and a session that is open."""

from __future__ import annotations

import shutil
import subprocess
import time
import zipfile
from pathlib import Path

from lab.cluster.kubeadm import kubectl_command
from lab.cluster.layout import Cluster

# A version that starts well and does nothing.
DEAF = """\
import json, os, socket, sys, time
if "--version" in sys.argv:
    print("9.9.9")
elif "self-test" in sys.argv:
    sys.exit("no ears") if {tells} else print("bpf: all is well")
elif "run" in sys.argv:
    out = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told = {{"pid": os.getpid(), "written": time.time() + 600, "started": 0, "sensor": "bpf"}}
    with open("/run/exectrail-agent/status.json", "w") as status:
        json.dump({{**told, "canary": 0, "reasons": ["it hears nothing"]}}, status)
    out.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    print("what was that?", flush=True)
    time.sleep(600)
"""


def another(archive: Path, name: str) -> Path:
    """The same agent in other bytes."""
    path = archive.with_name(f"{name}.pyz")
    shutil.copy2(archive, path)
    with zipfile.ZipFile(path, "a") as opened:
        opened.writestr(name, name)
    return path


def of_version(archive: Path, version: str) -> Path:
    """An agent that only tells its version."""
    path = archive.with_name(f"{version}.pyz")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("__main__.py", f"print({version!r})")
    return path


def deaf(folder: Path, *, tells: bool) -> Path:
    """A version that starts well and does nothing; its self-test may tell."""
    path = folder / f"deaf-{tells}.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", DEAF.format(tells=tells))
    return path


class Shell:
    """A shell in a container, which somebody has open."""

    def __init__(self, made: Cluster, pod: str) -> None:
        self._process = subprocess.Popen(
            kubectl_command(made, "exec", "-i", pod, "--", "sh"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(self, word: str) -> None:
        """Run a program in it that is known by a word; it has to be heard of within 20 s."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"cat /dev/null {word}; echo {word}\n")
        deadline = time.monotonic() + 20
        while self._process.stdout.readline().strip() != word:
            assert time.monotonic() < deadline
            assert self._process.poll() is None

    def end(self) -> int:
        assert self._process.stdin
        self._process.stdin.close()
        return self._process.wait(20)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
