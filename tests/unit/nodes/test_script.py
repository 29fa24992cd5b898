"""What is sent to a node: scripts as one program, the line of shell that runs it, its answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exectrail.nodes.reachability import NO_PYTHON
from exectrail.nodes.script import (
    Refused,
    Unheard,
    answer,
    answers,
    as_argument,
    from_input,
    program,
)
from tests.unit.scripts import MODULES

SCRIPTS = {
    "echo": "def main(request):\n    return request\n",
    "builds": "import echo\ndef main(request):\n    return [echo.main(request), __name__]\n",
    "long": "def main(_):\n    return 'x' * 300000\n",
    "ends": "import os\ndef main(_):\n    os._exit(3)\n",
    "exits": "import sys\ndef main(_):\n    sys.exit('with words')\n",
    "broken": "def main(_):\n    raise ValueError('broken')\n",
    "refuses": "class No(Exception): pass\ndef main(_):\n    raise No('not now')\n",
    "fails": "def main(_):\n    open('/nonexistent')\n",
    "stays": (
        "import threading, time\n"
        "def main(_):\n    threading.Thread(target=time.sleep, args=(600,)).start()\n    return 1\n"
    ),
    "unreadable": "this is no Python",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, source in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def _run(folder: Path, *names: str, request: Any = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-"],
        input=program(folder, dict.fromkeys(names, request or {})),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_each_script_answers_its_request(folder: Path) -> None:
    asked = {"a": "ä'\n"}

    assert answers(_run(folder, "echo", request=asked).stdout) == [asked]
    ran = _run(folder, "echo", "builds", request=asked)
    assert answers(ran.stdout) == [asked, [asked, "builds"]]


@pytest.mark.parametrize("bad", ["ends", "broken", "exits"])
def test_one_that_ends_badly_takes_nobody_with_it(folder: Path, bad: str) -> None:
    assert answers(_run(folder, bad, "echo").stdout) == [{}]
    assert answers(_run(folder, "echo", bad).stdout) == [{}]


def test_one_that_can_not_be_read_leaves_those_before_it(folder: Path) -> None:
    ran = _run(folder, "echo", "unreadable")

    assert answers(ran.stdout) == [{}]
    assert "SyntaxError" in ran.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("refuses", "not now"),
        ("broken", "ValueError: broken"),
        ("fails", "/nonexistent: No such file or directory"),
    ],
)
def test_one_that_does_not_do_it_says_why(folder: Path, name: str, why: str) -> None:
    with pytest.raises(Refused) as refused:
        answer(_run(folder, name).stdout, "", "n")

    assert str(refused.value) == why


def test_a_long_answer_holds_nobody_up(folder: Path) -> None:
    ran = _run(folder, "long", "echo")

    assert [len(each) for each in answers(ran.stdout)] == [300000, 0]


def test_a_thread_that_stays_holds_nobody_up(folder: Path) -> None:
    assert answers(_run(folder, "stays").stdout) == [1]
    assert answers(_run(folder, "stays", "echo").stdout) == [1, {}]


@pytest.mark.parametrize("out", ["", "Last login: today\n", '{"answer":', '{"other": 1}\n'])
def test_without_an_answer_what_was_said_explains_it(out: str) -> None:
    with pytest.raises(Unheard, match=r"refused the login\. Check ansible_user"):
        answer(out, "Permission denied (publickey).", "n")


def test_what_verification_sends_fits_an_argument() -> None:
    asked: dict[str, Any] = {"node_evidence": {}, "installation_evidence": {"canary": None}}

    assert len(as_argument(program(MODULES, asked))) < 120_000


def test_a_program_runs_as_an_argument(folder: Path) -> None:
    line = as_argument(program(folder, {"echo": {"a": 1}, "builds": {}}))

    ran = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)

    assert answers(ran.stdout) == [{"a": 1}, [{}, "builds"]]


def test_a_node_without_python_says_so() -> None:
    ran = subprocess.run(
        ["/bin/sh", "-c", from_input("/nonexistent/python3")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ran.returncode, ran.stdout.strip()) == (127, NO_PYTHON)


def test_who_is_not_root_becomes_it_without_being_asked(tmp_path: Path) -> None:
    for name, text in (("id", "echo 1000"), ("sudo", 'echo "became: $*" | cut -c-40')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", as_argument("print(1)")],
        env={"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.startswith("became: -n ")
