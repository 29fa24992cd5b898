"""Faults that can be put into a machine: data in faults.yml, and how they get there."""

import base64
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import msgspec
import yaml

from lab.errors import LabError
from lab.vm.ssh import Shell

_FILE = Path(__file__).with_name("faults.yml")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that can be wrong with a node; faults.yml says what each field holds."""

    name: str
    description: str
    finds: dict[str, str]
    check: str
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    run: tuple[str, ...] = ()

    def script(self) -> str:
        """Write the steps as one shell script: files, then links, then commands."""
        lines = ["set -eu"]
        for path, content in self.files.items():
            coded = base64.b64encode(content.encode()).decode("ascii")
            where = shlex.quote(path)
            lines.append(f'mkdir -p "$(dirname {where})"')
            lines.append(f"echo {coded} | base64 -d > {where}")
        for path, target in self.links.items():
            lines.append(f"ln -sfn {shlex.quote(target)} {shlex.quote(path)}")
        return "\n".join([*lines, *self.run, ""])

    def put_into(self, shell: Shell) -> None:
        """Make the machine have the fault; raises LabError naming it when a step fails."""
        try:
            shell.run("sh -s", stdin=self.script().encode())
        except LabError as problem:
            raise LabError(f"fault {self.name}: {problem}") from problem


def parse(text: str) -> dict[str, Fault]:
    """Read faults from YAML; raises LabError naming the one that is not as it should be."""
    faults = {}
    for name, entry in yaml.safe_load(text).items():
        try:
            faults[name] = msgspec.convert({"name": name, **(entry or {})}, Fault)
        except (TypeError, msgspec.ValidationError) as problem:
            raise LabError(f"fault {name}: {problem}") from problem
    return faults


@cache
def known() -> Mapping[str, Fault]:
    """Every fault of faults.yml by name."""
    return parse(_FILE.read_text(encoding="utf-8"))


def choose(names: Sequence[str]) -> list[Fault]:
    """Look faults up; raises LabError with the names there are when one is not among them."""
    unknown = [name for name in names if name not in known()]
    if unknown:
        raise LabError(
            f"no fault {', '.join(map(repr, unknown))}: choose from {', '.join(known())}"
        )
    return [known()[name] for name in dict.fromkeys(names)]
