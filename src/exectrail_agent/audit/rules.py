"""The kernel's audit rules as data: what the agent wants, what is there, and what is missing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

KEY = b"exectrail"
EXIT_FILTER = 4
TASK_FILTER = 1
EXCLUDE_FILTER = 5
NEVER, ALWAYS = 0, 2

_MASK_WORDS = 64
_MOST_FIELDS = 64
_FORMAT = struct.Struct("=III64I64I64I64II")
_ARCHITECTURE, _RECORD_TYPE, _SUCCESS, _KEY_FIELD = 11, 12, 104, 210
_RECORDS = frozenset({1300, 1309})  # SYSCALL, EXECVE
_EQUAL = 0x40000000
_PREPEND = 0x10
# Fields whose value is a length in the text that follows the rule.
_TEXT_FIELDS = frozenset({13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 105, 107, 112, 210})

_OURS = ((_SUCCESS, _EQUAL, 1), (_KEY_FIELD, _EQUAL, KEY))
EXECS = ("execve", "execveat")
CROSSINGS = ("setns", "unshare")

_ABIS: Mapping[str, Sequence[tuple[str, int, Mapping[str, int]]]] = {
    "x86_64": (
        ("b64", 0xC000003E, {"execve": 59, "execveat": 322, "setns": 308, "unshare": 272}),
        ("b32", 0x40000003, {"execve": 11, "execveat": 358, "setns": 346, "unshare": 310}),
    ),
    "aarch64": (
        ("b64", 0xC00000B7, {"execve": 221, "execveat": 281, "setns": 268, "unshare": 97}),
        ("b32", 0x40000028, {"execve": 11, "execveat": 387, "setns": 375, "unshare": 337}),
    ),
}
ARCHITECTURES = tuple(_ABIS)


@dataclass(frozen=True)
class Rule:
    """A rule of one of the kernel's lists.

    `mask` is the set of system call numbers; `fields` are (field, operator, value), where the value
    of a text field is the text.
    """

    list_number: int
    action: int
    mask: frozenset[int]
    fields: tuple[tuple[int, int, int | bytes], ...]

    @property
    def ours(self) -> bool:
        """Whether the agent made it: somebody else may use the same key for another rule."""
        abis = {(_ARCHITECTURE, _EQUAL, one[1]) for known in _ABIS.values() for one in known}
        return (
            (self.list_number, self.action) == (EXIT_FILTER, ALWAYS)
            and self.fields[:1] != ()
            and self.fields[0] in abis
            and self.fields[1:] == _OURS
        )

    @property
    def text(self) -> str:
        """What `auditctl` calls a rule that the agent wants."""
        abi, _, numbers = next(
            one
            for abis in _ABIS.values()
            for one in abis
            if (_ARCHITECTURE, _EQUAL, one[1]) in self.fields
        )
        names = ",".join(name for name, number in numbers.items() if number in self.mask)
        return f"-a always,exit -F arch={abi} -S {names} -F success=1 -k {KEY.decode()}"


def wanted(machine: str) -> list[Rule]:
    """Return the rules that the sensor needs on a machine; none if it is not known."""
    return [
        Rule(
            EXIT_FILTER,
            ALWAYS,
            frozenset(numbers.values()),
            ((_ARCHITECTURE, _EQUAL, architecture), *_OURS),
        )
        for _, architecture, numbers in _ABIS.get(machine, ())
    ]


def calls(machine: str) -> Mapping[tuple[int, int], str]:
    """Map (architecture, number) to the names of the calls that the rules are about."""
    return {
        (architecture, number): name
        for _, architecture, numbers in _ABIS.get(machine, ())
        for name, number in numbers.items()
    }


def missing(want: Iterable[Rule], present: Sequence[Rule]) -> list[Rule]:
    """Return what has to be added for each of WANT to be covered by the rules that there are.

    A rule counts if it records a call whatever else is true.
    """
    lacking = []
    for rule in want:
        architecture = next(field for field in rule.fields if field[0] == _ARCHITECTURE)
        covered = {
            number
            for other in present
            if _unconditional(other, architecture)
            for number in other.mask
        }
        rest = rule.mask - covered
        if rest:
            lacking.append(Rule(rule.list_number, rule.action, rest, rule.fields))
    return lacking


def _unconditional(rule: Rule, architecture: tuple[int, int, int | bytes]) -> bool:
    harmless = {architecture, (_SUCCESS, _EQUAL, 1)}
    return (rule.list_number, rule.action) == (EXIT_FILTER, ALWAYS) and all(
        field in harmless or field[0] == _KEY_FIELD for field in rule.fields
    )


def records_execs(rule: Rule) -> bool:
    """Whether a rule that the sensor wants is about execs at all."""
    numbers = next(one[2] for abis in _ABIS.values() for one in abis if rule.fields[0][2] == one[1])
    return any(numbers[name] in rule.mask for name in EXECS)


def switches_off(rule: Rule) -> bool:
    """Whether a rule keeps the kernel from looking at any system call."""
    return rule.list_number == TASK_FILTER and rule.action == NEVER and not rule.fields


def may_hide(rule: Rule, want: Iterable[Rule]) -> bool:
    """Whether a rule may keep some of what the sensor wants from being recorded."""
    if rule.list_number == EXCLUDE_FILTER:
        kinds = [field for field in rule.fields if field[0] == _RECORD_TYPE]
        return not any(op == _EQUAL and value not in _RECORDS for _, op, value in kinds)
    numbers = {number for one in want for number in one.mask}
    return (rule.list_number, rule.action) == (EXIT_FILTER, NEVER) and bool(numbers & rule.mask)


def pack(rule: Rule) -> bytes:
    """Write a rule as the kernel takes it."""
    text = b"".join(value for _, _, value in rule.fields if isinstance(value, bytes))
    fields = [field for field, _, _ in rule.fields]
    values = [len(v) if isinstance(v, bytes) else v for _, _, v in rule.fields]
    operators = [operator for _, operator, _ in rule.fields]
    words = [0] * _MASK_WORDS
    for number in rule.mask:
        words[number // 32] |= 1 << (number % 32)
    empty = [0] * (_MOST_FIELDS - len(fields))
    columns = [item for column in (fields, values, operators) for item in (*column, *empty)]
    head = (rule.list_number, rule.action, len(fields))
    return _FORMAT.pack(*head, *words, *columns, len(text)) + text


def unpack(payload: bytes) -> Rule | None:
    """Read a rule as the kernel lists it; None if it is none."""
    if len(payload) < _FORMAT.size:
        return None
    numbers = _FORMAT.unpack_from(payload)
    flags, action, count = numbers[:3]
    if count > _MOST_FIELDS:
        return None
    words = numbers[3 : 3 + _MASK_WORDS]
    columns = [numbers[67 + 64 * column :][:count] for column in range(3)]
    text, at = payload[_FORMAT.size :], 0
    fields: list[tuple[int, int, int | bytes]] = []
    for field, value, operator in zip(*columns):  # noqa: B905  Python 3.10
        if field in _TEXT_FIELDS:
            fields.append((field, operator, text[at : at + value]))
            at += value
        else:
            fields.append((field, operator, value))
    mask = frozenset(
        32 * index + bit for index, word in enumerate(words) for bit in range(32) if word >> bit & 1
    )
    return Rule(flags & ~_PREPEND, action, mask, tuple(fields))
