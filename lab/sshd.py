"""An ssh server on many loopback addresses: a fleet that is really this one machine.

For what needs many targets and real ssh but no kernel of its own: the speed of a run, and what
goes wrong on the way to a node.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from lab.errors import LabError
from lab.vm import hostpackages

_MOST_SOCKETS = 16  # that one OpenSSH server listens on
_CONFIGURATION = """\
Port {port}
{listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/client_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 500
# Else bash reads this machine's ~/.bashrc for each command, whatever that starts.
SetEnv SHLVL=1
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class Fleet:
    """Addresses that answer on `port` with the key files in `folder`."""

    folder: Path
    port: int
    addresses: tuple[str, ...]

    @property
    def known_hosts(self) -> Path:
        """The pinned host key of every address."""
        return self.folder / "known_hosts"

    @property
    def names(self) -> list[str]:
        """Inventory names, node-001 and so on."""
        return [f"node-{number:03}" for number in range(1, len(self.addresses) + 1)]

    def inventory(self, path: Path, **variables: object) -> Path:
        """Write an inventory of all addresses; `variables` are added to its `all` group."""
        hosts = {
            name: {"ansible_host": address}
            for name, address in zip(self.names, self.addresses, strict=True)
        }
        common = {
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_private_key_file": str(self.folder / "client_key"),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.known_hosts} "
            "-o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        }
        path.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": common | variables}}))
        return path


def _ensure_server() -> str:
    """Give the path of sshd; install it if it is missing, without a server of the host's own."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if found := shutil.which("sshd", path=path):
        return found
    if os.geteuid() != 0:
        raise LabError("sshd is missing: sudo apt-get install openssh-server")
    units = ("ssh.service", "ssh.socket")
    _systemctl("mask", *units)
    try:
        hostpackages.install(["openssh-server"])
    finally:
        _systemctl("unmask", *units)
        _systemctl("disable", *units)
    return "/usr/sbin/sshd"


def _systemctl(*arguments: str) -> None:
    if shutil.which("systemctl"):
        subprocess.run(["systemctl", "--quiet", *arguments], capture_output=True, check=False)


@contextlib.contextmanager
def fleet(folder: Path, count: int) -> Iterator[Fleet]:
    """Run an ssh server for root on `count` loopback addresses until the block ends."""
    program = _ensure_server()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = tuple(f"127.0.{3 + number // 250}.{1 + number % 250}" for number in range(count))
    made = Fleet(folder, _free_port(addresses[0]), addresses)
    for name in ("host_key", "client_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    host_key = (folder / "host_key.pub").read_text().split()[:2]
    made.known_hosts.write_text(
        "".join(f"[{address}]:{made.port} {' '.join(host_key)}\n" for address in addresses)
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    servers = [
        _serve(program, made, addresses[first : first + _MOST_SOCKETS])
        for first in range(0, count, _MOST_SOCKETS)
    ]
    try:
        for address, server in zip(addresses[::_MOST_SOCKETS], servers, strict=True):
            _wait_until_it_answers(made, address, server)
        yield made
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=10)


def _serve(program: str, made: Fleet, addresses: tuple[str, ...]) -> subprocess.Popen[bytes]:
    configuration = made.folder / f"sshd_config-{addresses[0]}"
    configuration.write_text(
        _CONFIGURATION.format(
            port=made.port,
            folder=made.folder,
            listen="\n".join(f"ListenAddress {address}" for address in addresses),
        )
    )
    with (made.folder / "sshd.log").open("ab") as log:
        return subprocess.Popen(
            [program, "-D", "-e", "-f", configuration],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(made: Fleet, address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while server.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, made.port), timeout=1) as connection,
        ):
            if connection.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not answer:\n{(made.folder / 'sshd.log').read_text()}")
