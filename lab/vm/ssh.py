"""Commands and files over ssh, with the machine's host key pinned."""

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import paramiko

from lab.errors import LabError

_ATTEMPT_SECONDS = 10.0

# paramiko tells of every refused attempt while a machine starts.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Completed:
    """What a command on a machine gave."""

    command: str
    returncode: int
    stdout: str
    stderr: str


class Shell:
    """A connection to a machine as root."""

    def __init__(self, port: int, host_key: str, client_key: Path, *, timeout: float) -> None:
        """Connect to 127.0.0.1:PORT, trying again for TIMEOUT seconds; raises LabError."""
        self._client = paramiko.SSHClient()
        kind, blob = host_key.split()
        entry = paramiko.hostkeys.HostKeyEntry.from_line(f"[127.0.0.1]:{port} {kind} {blob}")
        if entry is None or entry.key is None:
            raise LabError(f"not a public host key: {host_key}")
        self._client.get_host_keys().add(f"[127.0.0.1]:{port}", kind, entry.key)
        self._client.set_missing_host_key_policy(paramiko.RejectPolicy())
        deadline = time.monotonic() + timeout
        while True:
            # Short: a connection that came before the machine's network can wait in vain.
            left = min(max(deadline - time.monotonic(), 1.0), _ATTEMPT_SECONDS)
            try:
                self._client.connect(
                    "127.0.0.1",
                    port,
                    "root",
                    key_filename=str(client_key),
                    timeout=left,
                    banner_timeout=left,
                    auth_timeout=left,
                    allow_agent=False,
                    look_for_keys=False,
                )
            except paramiko.BadHostKeyException as problem:
                raise LabError(f"another host key than the image's: {problem}") from problem
            except (paramiko.SSHException, OSError, EOFError) as problem:
                self._client.close()
                if time.monotonic() > deadline:
                    raise LabError(
                        f"ssh does not answer after {timeout:.0f} s: {problem}"
                    ) from None
                time.sleep(0.1)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        stdin: bytes = b"",
        timeout: float = 120,
    ) -> Completed:
        """Run a shell line, or an argument list; raises LabError when CHECK and it fails."""
        line = command if isinstance(command, str) else shlex.join(command)
        transport = self._client.get_transport()
        if transport is None:
            raise LabError("the ssh connection is closed")
        try:
            channel = transport.open_session(timeout=timeout)
            channel.settimeout(timeout)
            channel.exec_command(line)
            channel.sendall(stdin)
            channel.shutdown_write()
            out = _text(channel.makefile("rb").read())
            error = _text(channel.makefile_stderr("rb").read())
            done = Completed(line, channel.recv_exit_status(), out, error)
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise LabError(f"`{line}` on the machine was cut off: {problem!r}") from problem
        if check and done.returncode:
            raise LabError(
                f"`{line}` on the machine failed with {done.returncode}: {done.stderr.strip()}"
            )
        return done

    def put(self, content: bytes, path: str, *, mode: int = 0o644) -> None:
        """Write CONTENT to PATH on the machine, its folders made when missing."""
        where = shlex.quote(path)
        line = f'mkdir -p "$(dirname {where})" && cat > {where} && chmod {mode:o} {where}'
        self.run(line, stdin=content)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
