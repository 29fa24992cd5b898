import re
import subprocess
from pathlib import Path

import pytest

from exectrail.compliance.checks import CHECKS
from lab.errors import LabError
from lab.vm import faults

KNOWN = faults.known()


def test_unknown_faults_are_one_error_that_names_the_known() -> None:
    with pytest.raises(LabError) as raised:
        faults.choose(["no-python", "nonsense", "rubbish"])

    assert "'nonsense', 'rubbish'" in str(raised.value)
    assert all(name in str(raised.value) for name in KNOWN)


def test_a_fault_named_twice_is_put_in_once() -> None:
    assert [fault.name for fault in faults.choose(["no-python", "no-libbpf", "no-python"])] == [
        "no-python",
        "no-libbpf",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "x: {description: d, finds: {}}",
        "x: {description: d, finds: {}, check: c, colour: red}",
        "x: {description: d, finds: {}, check: c, run: [1]}",
        "x: {description: d, finds: {}, check: c, run: [{a: b}]}",
        "x: {description: d, finds: [], check: c}",
        "x: {description: d, finds: {}, check: c, files: {/a: 1}}",
        "x: nothing",
        "x:",
    ],
)
def test_an_entry_that_is_no_fault_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(LabError, match=r"^fault x: "):
        faults.parse(text)


@pytest.mark.parametrize("fault", KNOWN.values(), ids=KNOWN)
def test_a_fault_is_described_in_a_line_and_names_real_checks(fault: faults.Fault) -> None:
    assert fault.description
    assert "\n" not in fault.description
    assert set(fault.finds) <= set(CHECKS)
    assert set(fault.finds.values()) <= {"fail", "warn", "error"}
    assert re.fullmatch("[a-z0-9-]+", fault.name)


@pytest.mark.parametrize("fault", KNOWN.values(), ids=KNOWN)
def test_a_faults_script_is_a_script(fault: faults.Fault) -> None:
    for text in (fault.script(), fault.check):
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)


def test_a_script_writes_files_links_and_runs_commands_in_this_order(tmp_path: Path) -> None:
    content = "'quotes' $(touch pwned)\n\x1b\0\u202e"
    fault = faults.Fault(
        name="x",
        description="d",
        finds={},
        check="true",
        files={f"{tmp_path}/a folder/file": content},
        links={f"{tmp_path}/link": f"{tmp_path}/a folder/file"},
        run=(f"cat {tmp_path}/link > {tmp_path}/copy",),
    )

    subprocess.run(["sh", "-s"], input=fault.script().encode(), check=True, cwd=tmp_path)

    assert (tmp_path / "copy").read_text() == content
    assert not (tmp_path / "pwned").exists()


def test_a_script_stops_at_the_first_step_that_fails(tmp_path: Path) -> None:
    fault = faults.Fault("x", "d", {}, "true", run=("false", f"touch {tmp_path}/reached"))

    assert subprocess.run(["sh", "-s"], input=fault.script().encode(), check=False).returncode
    assert not (tmp_path / "reached").exists()
