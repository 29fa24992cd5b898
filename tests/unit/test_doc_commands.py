"""Every command that the documentation shows is one that the real programs take."""

from __future__ import annotations

import argparse
import functools
import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from checks import conftest as checks
from exectrail.cli import cli
from exectrail_agent.cli import _parser as agent_parser
from lab.__main__ import lab
from tests.pages import PAGES, ROOT, commands, lines, spans

# Programs of the reader's system, whose words are not judged here.
OTHERS = {
    *("apt-get", "cat", "cd", "chmod", "cp", "crictl", "df", "eval", "export", "git", "ip"),
    *(
        "journalctl",
        "kubectl",
        "ls",
        "mkdir",
        "mv",
        "pip",
        "podman",
        "scp",
        "sha256sum",
        "source",
        "ssh",
    ),
    *("ssh-keygen", "systemctl", "timedatectl"),
}
ANSIBLE = {
    "ansible": ("adhoc", "AdHocCLI"),
    "ansible-doc": ("doc", "DocCLI"),
    "ansible-galaxy": ("galaxy", "GalaxyCLI"),
    "ansible-inventory": ("inventory", "InventoryCLI"),
    "ansible-playbook": ("playbook", "PlaybookCLI"),
}


class RefusedError(Exception):
    """A program would not take these words; the text says why."""


class UnfinishedError(RefusedError):
    """The words are right as far as they go; a text may name a command by them."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise RefusedError(message)


def judge(words: list[str]) -> None:
    """Raise RefusedError for a program that is not known, or that would not take these words."""
    name, *arguments = words
    name = name.removeprefix(".venv/bin/")
    if name in JUDGES:
        JUDGES[name](arguments)
    elif name in ANSIBLE:
        by_ansible(name, arguments)
    elif name == ".":
        exists(arguments[0])
    elif "/" in name:
        exists(name)
    elif name not in OTHERS:
        raise RefusedError(f"{name} is no program that a page may use")


def exists(path: str) -> None:
    if not (ROOT / path).exists():
        raise RefusedError(f"there is no {path}")


def by_click(root: click.Command, arguments: list[str]) -> None:
    if not arguments:
        return  # It shows its help.
    command, rest, found = root, list(arguments), root.name or ""
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = rest.pop(0)
        if found not in command.commands:
            raise RefusedError(f"there is no command {found}")
        command = command.commands[found]
    try:
        context = command.make_context(found, rest)
    except click.exceptions.Exit:
        return  # --help, --version
    except (click.MissingParameter, click.exceptions.NoArgsIsHelpError) as error:
        raise UnfinishedError(found) from error
    except click.ClickException as error:
        raise RefusedError(error.format_message()) from error
    passed_on = list(context.params.get("ansible_args") or ())
    if passed_on:
        by_ansible("ansible-playbook", [f"playbooks/{found}.yml", *passed_on])


def by_ansible(program: str, arguments: list[str]) -> None:
    asked = ansible_parser(program)(arguments)
    if program == "ansible-playbook":
        for playbook in asked.args:
            given = re.findall(r"^(\w+)=", "\n".join(asked.extra_vars), re.MULTILINE)
            known = variables(playbook.removeprefix("exectrail.audit.").removesuffix(".yml"))
            if strange := [name for name in given if name not in known]:
                raise RefusedError(f"{playbook} has no {', '.join(strange)}")
    if program == "ansible-doc":
        for name in asked.args:
            exists(f"roles/{name.removeprefix('exectrail.audit.')}/meta/argument_specs.yml")


@functools.cache
def ansible_parser(program: str) -> Callable[[list[str]], argparse.Namespace]:
    module, name = ANSIBLE[program]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LC_ALL", "C.UTF-8")  # Ansible takes no other encoding.
        made = getattr(importlib.import_module(f"ansible.cli.{module}"), name)([program, "x"])
    made.init_parser()

    def parse(arguments: list[str]) -> argparse.Namespace:
        return silently(made.parser.parse_args, arguments)

    return parse


def silently(parse: Callable[[list[str]], Any], arguments: list[str]) -> Any:
    try:
        return parse(arguments)
    except SystemExit as error:
        if error.code:
            raise RefusedError(f"not accepted: {' '.join(arguments)}") from error
        return argparse.Namespace(args=[], extra_vars=[])


@functools.cache
def options(role: str) -> frozenset[str]:
    specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())
    return frozenset(specs["argument_specs"]["main"]["options"])


@functools.cache
def variables(playbook: str) -> frozenset[str]:
    """What may be set for a playbook: options of its roles, and what its header names."""
    path = playbook.removeprefix("playbooks/")
    exists(f"playbooks/{path}.yml")
    text = (ROOT / f"playbooks/{path}.yml").read_text()
    known = set(re.findall(r"^#.*?-e (\w+)=", text, re.MULTILINE))
    known |= set(re.findall(r"\b(\w+_hosts)\b", text))
    for role in sorted(each.name for each in (ROOT / "roles").iterdir()):
        if re.search(rf"\bexectrail\.audit\.{role}\b", text):
            known |= options(role)
    for imported in re.findall(r"import_playbook: (\w+)\.yml", text):
        known |= variables(imported)
    return frozenset(known)


def by_make(arguments: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in arguments:
        if word not in targets and not re.fullmatch(r"PYTHON=\S+", word):
            raise RefusedError(f"make has no target {word}")


def by_python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "lab"]:
        by_click(lab, arguments[2:])
    elif arguments[:1] == ["-m"]:
        importlib.import_module(arguments[1])
    elif arguments[0] != "-":
        exists(arguments[0]) if "/" in arguments[0] else None


def by_pytest(arguments: list[str]) -> None:
    parser = Parser(prog="pytest")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("-k")
    for own in ("-q", "--collect-only"):
        parser.add_argument(own, action="store_true")

    class Group:
        def addoption(self, *names: str, **settings: Any) -> None:
            parser.add_argument(*names, **settings)

        def getgroup(self, *_: str) -> Group:
            return self

    checks.pytest_addoption(Group())  # type: ignore[arg-type]
    for path in parser.parse_args(arguments).paths:
        exists(path)


JUDGES: dict[str, Callable[[list[str]], None]] = {
    "exectrail": functools.partial(by_click, cli),
    "exectrail-agent": functools.partial(silently, agent_parser().parse_args),
    "make": by_make,
    "pytest": by_pytest,
    "python": by_python,
    "python3": by_python,
}


def refusals(shown: Iterable[tuple[str, str]], *, beginnings: bool = False) -> list[str]:
    """Say of each (where, line) that is not accepted why; the beginning of a command may do."""
    found = []
    for where, line in shown:
        try:
            for words in commands(line):
                judge(words)
        except (RefusedError, ValueError) as error:
            if beginnings and isinstance(error, UnfinishedError):
                continue
            found.append(f"{where}: {error}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_are_accepted(page: Path) -> None:
    assert refusals((line.where, line.text) for line in lines(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_are_accepted(page: Path) -> None:
    ours = {*JUDGES, *ANSIBLE}
    shown = [span for span in spans(page) if span.split()[0] in ours and "…" not in span]

    assert refusals(((span, span) for span in shown if " " in span), beginnings=True) == []


@pytest.mark.parametrize(
    "line",
    [
        "exectrial preflight",
        "exectrail preflght -i x",
        "exectrail preflight --inventroy x",
        "exectrail preflight -i x -- --ask-become-passwort",
        "exectrail evaluate",
        "exectrail-agent tail --forest",
        "ansible-playbook playbooks/nothing.yml",
        "ansible-playbook playbooks/verify.yml --checks",
        "ansible-playbook playbooks/verify.yml -e verify_canary=x",
        "ansible-doc -t role exectrail.audit.nothing",
        "make dmo",
        "pytest checks/ --canary x",
        "pytest check/",
        "python -m lab vm start x",
        "python3 packaging/nothing.py",
        ".venv/bin/exectrial",
        "ls | exectrail nothing",
        "ssh root@node-1 exectrail-agent nothing",
        "cd x && sudo .venv/bin/python -m lab nothing",
        "echo 'open",
    ],
)
def test_a_slip_is_noticed(line: str) -> None:
    assert refusals([("here", line)])
