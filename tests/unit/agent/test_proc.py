"""What is read from /proc, of processes of this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from exectrail_agent.proc import ProcReader, comm_of, parent_of

GONE = 1 << 30


def test_a_process_is_where_its_parent_is() -> None:
    proc = ProcReader()
    with subprocess.Popen(["/bin/sleep", "30"]) as child:
        here, there = proc.place(os.getpid()), proc.place(child.pid)
        parent = parent_of(child.pid)
        child.kill()

    assert here is not None
    assert here == there == proc.look("self")
    assert here.mount_namespace == Path("/proc/self/ns/mnt").stat().st_ino
    assert here.cgroup in here.cgroups
    assert parent == os.getpid()


def test_a_name_may_look_like_the_fields_behind_it() -> None:
    name = ") Z 1 ("
    with subprocess.Popen(
        ["python3", "-c", f"open('/proc/self/comm', 'w').write({name!r}); input(print(flush=1))"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout
        assert child.stdout.readline()
        comm, standing = comm_of(child.pid), ProcReader().standing(child.pid)
        child.kill()

    assert comm == name.encode()
    assert standing is not None
    assert (standing.parent, standing.threads, standing.dead) == (os.getpid(), 1, False)


def test_arguments_are_read_whole() -> None:
    words = ["/bin/sleep", "30", *["x" * 100_000] * 3]
    with subprocess.Popen(["/bin/sh", "-c", "echo; read x", *words], stdin=-1, stdout=-1) as child:
        assert child.stdout
        assert child.stdout.readline()
        found = ProcReader().arguments(child.pid)
        child.kill()

    assert found.decode().split("\0")[3:-1] == words


@pytest.mark.parametrize(
    ("link", "argv", "told"),
    [
        ("/usr/bin/runc", b"runc\0init\0", b"/usr/bin/runc"),
        # crun runs itself as the root of a mount that is nowhere.
        ("/", b"/usr/bin/crun\0exec\0", b"crun"),
        ("/", b"crun", b"crun"),
        ("/", b"", b""),
    ],
)
def test_what_runs_is_called_by_its_arguments_if_its_path_says_nothing(
    tmp_path: Path, link: str, argv: bytes, told: bytes
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/exe").symlink_to(link)
    (tmp_path / "7/cmdline").write_bytes(argv)

    assert ProcReader(str(tmp_path)).executable(7) == told


def test_of_a_process_that_is_gone_there_is_nothing() -> None:
    proc = ProcReader()

    assert (proc.place(GONE), proc.standing(GONE), proc.program(GONE)) == (None, None, None)
    assert (proc.name(GONE), proc.arguments(GONE), proc.audit_ids(GONE)) == ((b"", b""), b"", None)
    assert (parent_of(GONE), proc.mount_namespace(GONE), comm_of(GONE)) == (0, 0, b"")
    with pytest.raises(FileNotFoundError):
        proc.look(GONE)
