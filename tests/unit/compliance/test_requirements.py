from __future__ import annotations

from pathlib import Path

import pytest

from exectrail.compliance.checks import registry
from exectrail.compliance.model import Severity
from exectrail.compliance.requirements import BUILT_IN, load_profile
from exectrail.errors import UsageError
from tests.unit.compliance.nodes import judge, node

HEAD = "name: mine\ntitle: Mine\ngates: [blocker]\n"


def written(folder: Path, text: str, name: str = "mine.yml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_built_in_profiles_are_complete(name: str) -> None:
    requirements = load_profile(name)
    assert requirements.profile.name == name
    assert requirements.profile.gates == (Severity.BLOCKER, Severity.MAJOR)
    assert len(requirements.profile.sha256) == 64
    for requirement in requirements.checks:
        assert requirement.id == requirement.check.id
        assert requirement.remediation.strip()
        assert requirement.references
        assert requirement.waivable


def test_a_file_can_include_a_profile_and_change_it(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
name: mine
title: Mine
include: self_managed
requirements:
  - id: node.clock
    severity: info
    waivable: false
    title: Our clock
    remediation: Ask the time people.
    references: [house rule 7]
    applies_to: {os: [debian]}
  - id: node.log-space
    parameters: {min_free_bytes: 1048576}
  - id: ours.kernel
    check: node.kernel-version
    title: A kernel with our fix
    severity: blocker
    parameters: {later_than: "6.0"}
  - id: node.kernel-version
    title: The vendor's rule
    severity: minor
    parameters: {later_than: "4.19"}
""",
    )
    base, mine = load_profile("self_managed"), load_profile(path)
    found = {requirement.id: requirement for requirement in mine.checks}
    ids = [requirement.id for requirement in base.checks]
    assert list(found) == [*ids, "ours.kernel", "node.kernel-version"]
    assert mine.profile.gates == base.profile.gates
    assert (mine.profile.name, mine.profile.title) == ("mine", "Mine")
    clock = found["node.clock"]
    assert (clock.severity, clock.waivable, clock.title) == (Severity.INFO, False, "Our clock")
    assert (clock.remediation, clock.references) == ("Ask the time people.", ("house rule 7",))
    assert clock.applies_to.os == ("debian",)
    space = found["node.log-space"]
    assert space.expected == "1 MiB and 1024 inodes free for the logs"
    assert (space.severity, space.waivable) == (Severity.MAJOR, True)
    assert found["ours.kernel"].check.id == "node.kernel-version"
    unchanged = set(ids) - {"node.clock", "node.log-space"}
    assert all(r == found[r.id] for r in base.checks if r.id in unchanged)
    kernel = judge("ours.kernel", node(items={"kernel.release": "6.0.0"}), mine)
    assert (kernel.status, kernel.expected) == ("fail", "a kernel later than 6.0")


def test_includes_go_through_files_next_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path, "name: b\ntitle: B\ninclude: ack\ngates: [minor]\n", "base.yml")
    path = written(tmp_path / "sub", "name: t\ntitle: T\ninclude: ../base.yml\n", "top.yml")
    top = load_profile(path)
    assert [r.id for r in top.checks] == [r.id for r in load_profile("ack").checks]
    assert top.profile.gates == (Severity.MINOR,)


def test_the_hash_changes_with_any_file_of_the_chain(tmp_path: Path) -> None:
    base = HEAD + "requirements: [{id: node.clock, title: t, severity: info}]\n"
    top = "name: t\ntitle: T\ninclude: base.yml\n"
    written(tmp_path, base, "base.yml")
    hashes = [load_profile(written(tmp_path, top)).profile.sha256]
    hashes += [load_profile(written(tmp_path, top + "# more\n")).profile.sha256]
    written(tmp_path, base + "# more\n", "base.yml")
    hashes += [load_profile(written(tmp_path, top)).profile.sha256]
    assert len(set(hashes)) == 3


def test_the_least_that_parameters_take(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        HEAD + "requirements:\n"
        "  - {id: node.os-family, title: t, severity: info, parameters: {supported: {x: X}}}\n"
        "  - {id: node.log-space, title: t, severity: info,\n"
        "     parameters: {min_free_bytes: 0, min_free_inodes: 0}}\n",
    )
    assert [requirement.expected for requirement in load_profile(path).checks] == [
        "one of X",
        "0 MiB and 0 inodes free for the logs",
    ]


def test_another_check_under_the_same_id_inherits_no_parameters(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "name: m\ntitle: M\ninclude: ack\nrequirements:\n"
        "  - {id: node.kernel-version, check: node.python}\n",
    )
    found = {r.id: r for r in load_profile(path).checks}["node.kernel-version"]
    assert (found.check.id, found.expected) == ("node.python", "a Python 3.8 or later")


ROW = "requirements:\n  - id: node.log-space\n    title: t\n    severity: info\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("- a\n", 1, "Expected `object`, got `array`"),
        ("just text\n", 1, "Expected `object`, got `str`"),
        ("name: m\n\ttitle: x\n", 2, "a tab; YAML is indented with spaces"),
        ("name: mine\ntitle: Mine\n", 1, "the key 'gates' is missing"),
        ("title: Mine\ngates: []\n", 1, "missing required field `name`"),
        (HEAD, 1, "there are no requirements"),
        (HEAD + "gats: []\n", 4, "unknown key 'gats'; did you mean 'gates'?"),
        (HEAD + "requirement: []\n", 4, "did you mean 'requirements'?"),
        (HEAD + "name: again\n", 4, "the key 'name' is here twice (first in line 1)"),
        ("name: m\ntitle: t\ngates: [fatal]\n", 3, "Invalid enum value 'fatal'"),
        (HEAD + "requirements:\n  - title: t\n", 5, "missing required field `id`"),
        (HEAD + "requirements:\n  - id: node.clok\n    severity: info\n", 5,
         "unknown requirement 'node.clok'; did you mean 'node.clock'? (a new one needs the key"),
        (HEAD + "requirements:\n  - id: Node.Clock\n", 5, "regex"),
        (HEAD + "requirements:\n  - id: a.b\n    check: node.clok\n", 6,
         "unknown check 'node.clok'; did you mean 'node.clock'?"),
        (HEAD + "requirements:\n  - id: a.b\n    check: node.clock\n    severity: info\n", 5,
         "the new requirement 'a.b' needs the key 'title'"),
        (HEAD + "requirements:\n  - id: node.clock\n    title: t\n", 5, "needs the key 'severity'"),
        (HEAD + ROW + "    parameters:\n      min_free_bytes: 1\n      min_free_inode: 1\n", 10,
         "unknown key 'min_free_inode'; did you mean 'min_free_inodes'?"),
        (HEAD + ROW + "    parameters:\n      min_free_bytes: lots\n      min_free_inodes: 1\n", 9,
         "Expected `int`, got `str`"),
        (HEAD + ROW + "    parameters:\n      min_free_bytes: -1\n      min_free_inodes: 1\n", 9,
         "Expected `int` >= 0"),
        (HEAD + ROW + "    parameters: {min_free_bytes: 1}\n", 8,
         "missing required field `min_free_inodes`"),
        (HEAD + ROW, 5, "missing required field `min_free_bytes`"),
        (HEAD + ROW + "    parameters: 7\n", 8, "Expected `object`, got `int`"),
        (HEAD + ROW + "    severty: info\n", 8, "did you mean 'severity'?"),
        (HEAD + ROW + "    applies_to: {so: [debian]}\n", 8, "unknown key 'so'"),
        (HEAD + ROW + "    applies_to: {resolver: bind}\n", 8, "Invalid enum value 'bind'"),
        (HEAD + "requirements:\n  - id: node.kernel-version\n    title: t\n    severity: info\n"
         "    parameters:\n      later_than: 4.19\n", 9, "got `float`: put the value in quotes"),
        (HEAD + "requirements:\n  - id: node.kernel-version\n    title: t\n    severity: info\n"
         "    parameters:\n      later_than: new\n", 9, "regex"),
        (HEAD + "requirements:\n  - id: cluster.version\n    title: t\n    severity: info\n"
         "    parameters:\n      minimum:\n        ubuntu: 1.30\n", 9, "put the value in quotes"),
        (HEAD + "requirements:\n  - id: cluster.version\n    title: t\n    severity: info\n"
         "    parameters:\n      minimum: {}\n", 9, "length >= 1"),
        (HEAD + "requirements:\n  - id: node.os-family\n    title: t\n    severity: info\n"
         "    parameters:\n      supported: {}\n", 9, "length >= 1"),
        (HEAD + "requirements:\n  - &r {id: node.clock, title: t, severity: info}\n  - *r\n", 5,
         "the requirement 'node.clock' is here twice"),
        (HEAD + "include: acc\n", 4, "did you mean 'ack'?"),
        (HEAD + "include: mine.yml\n", 4, "mine.yml includes this file again"),
        (HEAD + "include: .\n", 4, "there is no file"),
    ],
)  # fmt: skip
def test_what_can_not_be_meant_names_the_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"{path}:{line}: "), caught.value
    assert says in str(caught.value)


def test_a_loop_of_includes_is_found(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "include: b.yml\n", "a.yml")
    written(tmp_path, HEAD + "include: a.yml\n", "b.yml")
    with pytest.raises(UsageError, match=r"b\.yml:4: a\.yml includes this file again"):
        load_profile(str(tmp_path / "a.yml"))


def test_a_fault_in_an_included_file_names_that_file(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "requirements: [{id: nope}]\n", "base.yml")
    path = written(tmp_path, "name: t\ntitle: T\ninclude: base.yml\n")
    with pytest.raises(UsageError, match=r"base\.yml:4: .*regex"):
        load_profile(path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("acK", "There is no profile 'acK'; did you mean 'ack'?"),
        ("selfmanaged", "did you mean 'self_managed'?"),
        ("gke", "there are: ack, installed, self_managed. A file of your own needs its path: ./"),
        ("none.yml", "none.yml: No such file"),
        ("./none", "none: No such file"),
        ("/", "/: Is a directory"),
    ],
)
def test_a_profile_that_is_not_there(name: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(name)
    assert says in str(caught.value)


def test_two_checks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two checks are called node\.clock"):
        registry.check("node.clock", registry.Parameters)(lambda _i, _p: None)  # type: ignore[arg-type,return-value]
