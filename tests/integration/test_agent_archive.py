"""The file that nodes get: the same wherever it is built, and good for the oldest Python."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_agent_bpf import bpffs, calm
from tests.integration.test_agent_containers import Podman, needs_podman, podman
from tests.integration.test_agent_loop import ROOT, Service, archive, container, enter, service

__all__ = ["archive", "bpffs", "calm", "container", "podman", "service"]
# What pyenv has in PATH works for a chosen version only.
OLDEST = shutil.which("python3.8", path="/usr/local/bin:/usr/bin") or next(
    map(str, Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8")), ""
)


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on a file system that lists files in another order."""
    memory = Path("/dev/shm")  # noqa: S108 - nothing but a copy of the sources
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def copied(to: Path, stamp: int) -> Path:
    """Copy what the agent is built from."""
    sources = (ROOT / "src/exectrail_agent").rglob("*.*")
    for one in [ROOT / "packaging/agent.py", *sources]:
        if one.suffix in {".py", ".c", ".h"}:
            copy = to / one.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(one.read_bytes())
            os.utime(copy, (stamp, stamp))
    return to


def built(checkout: Path, folder: Path, umask: int, **environment: str) -> str:
    script = str(checkout / "packaging/agent.py")
    done = subprocess.run(
        [sys.executable, script, "-o", "made/agent.pyz"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    if "apt-get install" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return hashlib.sha256((folder / "made/agent.pyz").read_bytes()).hexdigest()


def test_the_same_sources_give_the_same_bytes_wherever_and_whenever(
    tmp_path: Path, elsewhere: Path
) -> None:
    near = copied(tmp_path, stamp=1_000_000_000)
    far = copied(elsewhere / "fär a/way", stamp=1_700_000_001)
    (far / "src/exectrail_agent/bpf/exec.bpf.o").write_bytes(b"of an earlier build")

    plain = built(near, near, 0o022, LC_ALL="C", TZ="UTC", PYTHONHASHSEED="1")
    other = built(
        *(far, elsewhere, 0o077),
        HOME="/nonexistent",
        LC_ALL="C.UTF-8",
        PYTHONHASHSEED="2",
        PYTHONOPTIMIZE="2",
        SOURCE_DATE_EPOCH="1500000000",
        TZ="Asia/Tokyo",
    )
    assert plain == other


@needs_podman
@pytest.mark.usefixtures("calm")
@pytest.mark.skipif(not OLDEST, reason="needs Python 3.8")
@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="needs a kernel with BTF")
def test_the_oldest_python_records_a_session_and_says_that_it_is_well(
    service: Service, podman: Podman, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", OLDEST)
    process = service.start()
    enter(podman, container, "oldest")
    service.until(lambda: service.of(container, "SessionEnd"))

    assert Path(f"/proc/{process.pid}/exe").resolve() == Path(OLDEST).resolve()
    assert "/usr/bin/true oldest" in service.ask("tail", "--tree").stdout
    assert service.is_well()
    assert service.end() == 0
