"""Mutation testing of what judges nodes: every change to it must make one of its own tests fail.

``python tests/mutation/run.py [SUBJECT...]`` mutates a copy, never this checkout. It prints every
mutant that no test noticed and exits with 1 if there is one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = Path("src/exectrail/compliance")
TESTS = Path("tests/unit/compliance")

# Subject: what is mutated, and the tests that must notice.
SUBJECTS = {
    "agent": (["checks/agent.py", "checks/node.py"], ["test_checks_agent.py"]),
    "audit": (["checks/audit.py"], ["test_checks_audit.py"]),
    "changes": (
        ["checks/upgrades.py", "checks/storage.py", "checks/runtime.py"],
        ["test_checks_changes.py"],
    ),
    "cluster": (
        ["checks/cluster.py", "checks/static_pods.py"],
        ["test_checks_cluster.py", "test_requirements.py"],
    ),
    "network": (["checks/resolver.py"], ["test_checks_network.py"]),
    "registry": (["checks/registry.py"], ["test_checks_network.py", "test_installed_chain.py"]),
    "system": (
        ["checks/host.py", "checks/kernel.py", "checks/operating_system.py", "checks/sensor.py"],
        ["test_checks_system.py", "test_requirements.py"],
    ),
    "evaluate": (
        ["evaluate.py", "items/access.py"],
        ["test_saved_nodes.py", "test_checks_network.py", "test_waivers.py", "test_evaluate.py"],
    ),
    "verdict": (["verdict.py"], ["test_verdict.py"]),
    "versions": (["../versions.py"], ["../test_versions.py"]),
    "waivers": (["waivers.py"], ["test_waivers.py"]),
}
EXCLUDED = (
    # Equality and identity are the same for None and the members of an enumeration, which have
    # no order either: of `is`, only `!=` is a mutant, and the other way round.
    "core/ReplaceComparisonOperator_.*_Is",
    "core/ReplaceComparisonOperator_.*_IsNot",
    "core/ReplaceComparisonOperator_Is_(Eq|[LG].*)",
    "core/ReplaceComparisonOperator_IsNot_(NotEq|[LG].*)",
    # What the operators take for arithmetic is a union of types or a keyword-only marker.
    "core/ReplaceBinaryOperator_.*",
    # frozen=True and kw_only=True say nothing that a test could observe.
    "core/ReplaceTrueWithFalse",
    # These make programs that do not import, or mutate names at random.
    "core/RemoveDecorator",
    "core/Variable.*",
)


def main(subjects: list[str]) -> int:
    """Mutate the subjects one after the other and say which mutants survived."""
    survivors = 0
    for subject in subjects or SUBJECTS:
        with tempfile.TemporaryDirectory(prefix="exectrail-mutation-") as folder:
            copy = Path(folder)
            for name in ("src", "tests", "docs", "pyproject.toml"):
                part = ROOT / name
                (shutil.copytree if part.is_dir() else shutil.copy)(part, copy / name)
            modules, tests = SUBJECTS[subject]
            tried = 0
            for survived, mutant in mutants(copy, modules, tests):
                tried += 1
                survivors += survived
                if survived:
                    say(f"\nsurvived: {mutant}")
            say(f"{subject}: {tried} mutants")
    return 1 if survivors else 0


def say(line: str) -> None:
    """Print a line at once: a run takes minutes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def mutants(folder: Path, modules: list[str], tests: list[str]) -> Iterator[tuple[bool, str]]:
    """Run cosmic-ray in `folder`; give for every mutant whether it survived, and what it was."""
    run = " ".join(["python -m pytest -x -q -W ignore", *(str(TESTS / test) for test in tests)])
    (folder / "mutation.toml").write_text(
        "[cosmic-ray]\n"
        f"module-path = {json.dumps([str(SOURCE / module) for module in modules])}\n"
        f"timeout = 120.0\nexcluded-modules = []\ntest-command = {json.dumps(run)}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
        f"[cosmic-ray.filters.operators-filter]\nexclude-operators = {json.dumps(EXCLUDED)}\n"
    )
    tools = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def call(*command: str) -> str:
        return subprocess.run(
            command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    call("cosmic-ray", "baseline", "mutation.toml")
    call("cosmic-ray", "init", "mutation.toml", "mutation.sqlite")
    call("cr-filter-operators", "mutation.sqlite", "mutation.toml")
    call("cosmic-ray", "exec", "mutation.toml", "mutation.sqlite")
    for line in call("cosmic-ray", "dump", "mutation.sqlite").splitlines():
        work, result = json.loads(line)
        if result["worker_outcome"] == "skipped":
            continue
        mutation = work["mutations"][0]
        where = f"{mutation['module_path']}:{mutation['start_pos'][0]} {mutation['operator_name']}"
        yield result["test_outcome"] != "killed", f"{where}\n{result.get('diff') or ''}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
