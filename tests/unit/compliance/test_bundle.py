"""What is sent to a node: several scripts as one program, and the line of shell that runs it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exectrail.compliance.bundle import NO_PYTHON, Script, as_argument, bundle, from_input
from exectrail.status import on_node

MODULES = Path(__file__).parents[3] / "plugins" / "modules"
ANSWERS = "import sys, os\nname = 'first'\nsys.stdout.write(name + ' ' + __name__ + '\\n')\n"
NAMELESS = "import sys\nsys.stdout.write(str('name' in globals()) + '\\n')\n"
ENDS = "import os, sys\nsys.stdout.write('ends\\n'); sys.stdout.flush(); os._exit(3)\n"
RAISES = "raise ValueError('broken')\n"
EXITS = "import sys\nsys.stdout.write('exits\\n'); sys.exit('with words')\n"
ASKED = (
    "import base64, json\nprint(json.loads(base64.b64decode(globals()['REQUEST']).decode())['a'])\n"
)
LONG = "print('x' * 300000)\n"


def _run(*scripts: Script) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-"],
        input=bundle(scripts),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def test_each_script_is_the_main_program_of_its_own_process() -> None:
    ran = _run(Script("a", ANSWERS), Script("b", NAMELESS))

    assert ran.stdout == "first __main__\nFalse\n"


@pytest.mark.parametrize("source", [ENDS, RAISES, EXITS, "this is no Python"])
def test_one_that_ends_badly_takes_nobody_with_it(source: str) -> None:
    ran = _run(Script("bad", source), Script("good", ANSWERS))

    assert ran.returncode == 0
    assert ran.stdout.endswith("first __main__\n")
    assert source is not RAISES or "broken" in ran.stderr


@pytest.mark.parametrize("others", [[], [Script("b", NAMELESS)]])
def test_a_script_gets_its_request_and_no_other(others: list[Script]) -> None:
    ran = _run(Script("a", ASKED, {"a": "ä'\n"}), *others)

    assert ran.stdout.startswith("ä'\n")
    assert "REQUEST" not in bundle(others or [Script("b", NAMELESS)])


def test_a_long_answer_holds_nobody_up() -> None:
    ran = _run(Script("a", LONG), Script("b", LONG))

    assert [len(line) for line in ran.stdout.split()] == [300000, 300000]


def test_it_is_python_of_the_oldest_nodes() -> None:
    two = bundle([Script("a", ANSWERS), Script("b", NAMELESS, {"a": "ä"})])
    assert two.isascii()
    for program in (two, Path(on_node.__file__).read_text()):
        ast.parse(program, feature_version=(3, 6))


def test_what_verification_sends_fits_an_argument() -> None:
    scripts = [
        Script(name, (MODULES / f"{name}.py").read_text(), {"canary": None})
        for name in ("node_evidence", "installation_evidence")
    ]

    assert len(as_argument(bundle(scripts))) < 120_000


def test_a_program_runs_as_an_argument() -> None:
    line = as_argument(bundle([Script("a", ANSWERS), Script("b", NAMELESS)]))

    ran = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)

    assert ran.stdout == "first __main__\nFalse\n"


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
