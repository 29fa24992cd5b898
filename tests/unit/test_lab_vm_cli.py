import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.__main__ import main

ROOT = Path(__file__).parents[2]


@dataclass
class Ran:
    code: object
    out: str
    err: str


Vm = Callable[..., Ran]


@pytest.fixture
def vm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Vm:
    """Run ``python -m lab vm`` in this process, with a cache of its own."""
    monkeypatch.setenv("EXECTRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["lab", "vm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ran(ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "x", "--fault", "rubbish"], ["'rubbish'", "resolv-conf-file"]),
        (["up", "x", "--image", "rubbish"], ["'rubbish'", "debian11, debian12, debian13"]),
        (["up", "Not A Host"], ["'Not A Host'", "a-z"]),
        (["up", "-x"], ["-x"]),
        (["up", "../x"], ["'../x'"]),
        (["ssh", "x"], ["'x'", "python -m lab vm up x"]),
        (["down", "x"], ["'x'", "none"]),
        (["inventory", "x"], ["'x'", "none"]),
        (["logs", "x"], ["'x'"]),
        (["logs", "../../x"], ["'../../x'"]),
    ],
)
def test_bad_input_is_one_clear_line(vm: Vm, arguments: list[str], words: list[str]) -> None:
    ran = vm(*arguments)

    assert ran.code in (1, 2)
    assert ran.out == ""
    assert all(word in ran.err for word in words), ran.err


def test_an_empty_list_and_an_empty_inventory(vm: Vm) -> None:
    assert vm("list").out == ""
    assert vm("inventory").out == "all:\n  hosts: {}\n"
    assert vm("down").code == 0


def test_faults_are_listed_with_what_they_are() -> None:
    command = [sys.executable, "-m", "lab", "vm", "faults"]
    listed = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()

    assert any(line.split(maxsplit=1)[0] == "resolv-conf-file" for line in listed)
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed)


def test_clean_empties_the_cache(vm: Vm, tmp_path: Path) -> None:
    kept = tmp_path / "go" / "module"
    kept.mkdir(parents=True)
    (kept / "file").touch()
    kept.chmod(0o500)

    done = vm("clean")
    if "end them first, in each checkout" in done.err:
        pytest.skip("clusters are alive on this machine, whose files lie in the cache")
    assert done.code == 0
    assert {entry.name for entry in tmp_path.iterdir()} <= {"locks"}
