import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


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
def test_bad_input_is_one_clear_line(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    ran = vm(arguments, tmp_path)

    assert ran.returncode in (1, 2)
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    assert all(word in ran.stderr for word in words), ran.stderr


def vm(arguments: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", "vm", *arguments],
        cwd=ROOT,
        env={**os.environ, "EXECTRAIL_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_empty_list_and_an_empty_inventory(tmp_path: Path) -> None:
    assert vm(["list"], tmp_path).stdout == ""
    assert vm(["inventory"], tmp_path).stdout == "all:\n  hosts: {}\n"
    assert vm(["down"], tmp_path).returncode == 0


def test_faults_are_listed_with_what_they_are(tmp_path: Path) -> None:
    listed = vm(["faults"], tmp_path).stdout.splitlines()

    assert any(line.split(maxsplit=1)[0] == "resolv-conf-file" for line in listed)
    assert all(len(line.split(maxsplit=1)) == 2 for line in listed)


def test_clean_empties_the_cache(tmp_path: Path) -> None:
    kept = tmp_path / "go" / "module"
    kept.mkdir(parents=True)
    (kept / "file").touch()
    kept.chmod(0o500)

    done = vm(["clean"], tmp_path)
    if "end them first, in each checkout" in done.stderr:
        pytest.skip("clusters are alive on this machine, whose files lie in the cache")
    assert done.returncode == 0
    assert {entry.name for entry in tmp_path.iterdir()} <= {"locks"}
