"""Plain data read as an audit policy, as strictly as Kubernetes reads it and no stricter.

Kubernetes refuses a file for some mistakes (`refused`) and silently ignores others, among them keys
that it does not know: a misspelt condition makes a rule apply to everybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from exectrail.audit_policy.policy import LEVELS, STAGES, GroupResources, Policy, Rule
from exectrail.yamlfile import Key, Location, suggest

T = TypeVar("T")
GROUP = "audit.k8s.io"
API_VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1beta1", f"{GROUP}/v1alpha1")
V1_FROM = (1, 12, 0)
"""The first Kubernetes that reads ``audit.k8s.io/v1``."""
ONLY_V1_FROM = (1, 24, 0)
"""The first Kubernetes that reads nothing else."""

_POLICY_KEYS = (
    "apiVersion", "kind", "metadata", "omitStages", "omitManagedFields", "rules",
)  # fmt: skip
_RULE_KEYS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs",
    "omitStages", "omitManagedFields",
)  # fmt: skip
_RESOURCE_KEYS = ("group", "resources", "resourceNames")
_DNS_SUBDOMAIN = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII
)
_LONGEST_SUBDOMAIN = 253


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data; `refused` if Kubernetes would not load the file."""

    check: str
    where: Location
    message: str

    @property
    def refused(self) -> bool:
        """Whether Kubernetes refuses the file for it."""
        return self.check not in {"unknown-key", "kind-missing", "metadata"}


class SchemaReader:
    """Reads a policy; what is wrong with it is in `problems`, with what could be read kept."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def policy(self, data: Any, kubernetes: tuple[int, int, int] | None = None) -> Policy:
        """Read a whole file, for that release of Kubernetes or for any."""
        if not isinstance(data, Mapping):
            self._problem("type", (), f"a policy is a mapping, not {_name(data)}")
            return Policy(())
        self._keys(data, (), _POLICY_KEYS)
        self._api_version(data, kubernetes)
        self._metadata(data.get("metadata"))
        rules = self.rules(data.get("rules"), ("rules",))
        return Policy(
            rules,
            self._stages(data.get("omitStages"), ("omitStages",)),
            self._flag(data.get("omitManagedFields"), ("omitManagedFields",)) or False,
        )

    def rules(self, data: Any, where: Location) -> tuple[Rule, ...]:
        """Read a list of rules that stands at `where`."""
        before = len(self.problems)
        found = self._list(data, where, self._rule)
        if not found and len(self.problems) == before:
            self._problem("no-rules", where, "a policy needs at least one rule")
        return found

    def _rule(self, data: Any, where: Location) -> Rule:
        rule = self._mapping(data, where, "a rule", _RULE_KEYS)
        read = Rule(
            self._level(rule.get("level"), (*where, "level")),
            self._texts(rule, where, "users"),
            self._texts(rule, where, "userGroups"),
            self._texts(rule, where, "verbs"),
            self._texts(rule, where, "namespaces"),
            self._list(rule.get("resources"), (*where, "resources"), self._resources),
            self._list(rule.get("nonResourceURLs"), (*where, "nonResourceURLs"), self._url),
            self._stages(rule.get("omitStages"), (*where, "omitStages")),
            self._flag(rule.get("omitManagedFields"), (*where, "omitManagedFields")),
        )
        if read.urls and (read.resources or read.namespaces):
            self._problem(
                "mixed-rule",
                (*where, "nonResourceURLs"),
                "a rule is either about URLs or about resources and namespaces; make it two",
            )
        return read

    def _level(self, data: Any, where: Location) -> str:
        level = self._text(data, where)
        if not level:
            self._problem("level", where, f"a rule needs a level: {', '.join(LEVELS)}")
        elif level not in LEVELS:
            self._problem("level", where, f"unknown level {level!r}{_hint(level, LEVELS)}")
        return level

    def _resources(self, data: Any, where: Location) -> GroupResources:
        item = self._mapping(data, where, "an entry of resources", _RESOURCE_KEYS)
        group = self._text(item.get("group"), (*where, "group"))
        if group and (len(group) > _LONGEST_SUBDOMAIN or not _DNS_SUBDOMAIN.fullmatch(group)):
            without, slash, _ = group.partition("/")
            hint = f"write {without!r}, without a version" if slash else _group_hint(group)
            self._problem("group", (*where, "group"), f"{group!r} is no API group: {hint}")
        read = GroupResources(
            group, self._texts(item, where, "resources"), self._texts(item, where, "resourceNames")
        )
        if read.names and not read.resources:
            self._problem(
                "names-without-resources",
                (*where, "resourceNames"),
                "resourceNames needs resources beside it",
            )
        return read

    def _url(self, data: Any, where: Location) -> str:
        url = self._text(data, where)
        if url != "*" and not url.startswith("/"):
            self._problem("url", where, f"{url!r} must begin with a slash, or be *")
        if url != "*" and "*" in url[:-1]:
            self._problem("url", where, f"{url!r}: only the last character may be *")
        return url

    def _stages(self, data: Any, where: Location) -> tuple[str, ...]:
        return self._list(data, where, self._stage)

    def _stage(self, data: Any, where: Location) -> str:
        stage = self._text(data, where)
        if stage not in STAGES:
            self._problem("stage", where, f"unknown stage {stage!r}{_hint(stage, STAGES)}")
        return stage

    def _api_version(
        self, data: Mapping[str, Any], kubernetes: tuple[int, int, int] | None
    ) -> None:
        spelt = {key.lower(): key for key in data}
        if "kind" not in spelt:
            self._problem("kind-missing", (), "kind is missing; write `kind: Policy`")
        elif "kind" in data and (kind := self._text(data["kind"], ("kind",))) != "Policy":
            if kind:
                self._problem("kind", ("kind",), f"kind is {kind!r}, not 'Policy'")
            else:
                self._problem("kind-missing", ("kind",), "kind is empty; write `kind: Policy`")
        # Kubernetes asks for these two without regard to case: a misspelt key is not a missing one.
        if "apiversion" in spelt and "apiVersion" not in data:
            return
        version = self._text(data.get("apiVersion"), ("apiVersion",))
        known = _readable(kubernetes)
        if version in known:
            return
        wanted = " or ".join(name for name in known if not name.endswith("alpha1"))
        problem = f"apiVersion is {version!r}" if version else "apiVersion is missing"
        if version in API_VERSIONS and kubernetes:
            problem = f"Kubernetes {kubernetes[0]}.{kubernetes[1]} refuses {version}"
        self._problem("api-version", ("apiVersion",), f"{problem}; write {wanted}")

    def _metadata(self, data: Any) -> None:
        if data is None:
            return
        if not isinstance(data, Mapping):
            self._problem("type", ("metadata",), f"metadata is a mapping, not {_name(data)}")
        elif set(data) - {"name"} or not isinstance(data.get("name", ""), str):
            self._problem("metadata", ("metadata",), "nothing reads metadata; name is enough")

    def _mapping(
        self, data: Any, where: Location, what: str, known: Collection[str]
    ) -> Mapping[str, Any]:
        if data is None:
            return {}
        if not isinstance(data, Mapping):
            self._problem("type", where, f"{what} is a mapping, not {_name(data)}")
            return {}
        self._keys(data, where, known)
        return data

    def _keys(self, data: Mapping[str, Any], where: Location, known: Collection[str]) -> None:
        for key in data:
            if key not in known:
                self._problem(
                    "unknown-key",
                    (*where, key),
                    f"unknown key {key!r}, which Kubernetes ignores{_hint(key, known)}",
                )

    def _texts(self, data: Mapping[str, Any], where: Location, key: str) -> tuple[str, ...]:
        return self._list(data.get(key), (*where, key), self._text)

    def _list(
        self, data: Any, where: Location, read: Callable[[Any, Location], T]
    ) -> tuple[T, ...]:
        if data is None:
            return ()
        if not isinstance(data, Sequence) or isinstance(data, str | bytes):
            self._problem("type", where, f"{_last(where)} is a list, not {_name(data)}")
            return ()
        return tuple(read(item, (*where, position)) for position, item in enumerate(data))

    def _text(self, data: Any, where: Location) -> str:
        """Read text; nothing at all is what Kubernetes takes for empty text."""
        if data is None:
            return ""
        if not isinstance(data, str):
            hint = "" if isinstance(data, Mapping | list) else "; put it in quotes"
            self._problem("type", where, f"expected text, not {_name(data)}{hint}")
            return ""
        return data

    def _flag(self, data: Any, where: Location) -> bool | None:
        if data is None or isinstance(data, bool):
            return data
        self._problem("type", where, f"{_last(where)} is true or false, not {_name(data)}")
        return None

    def _problem(self, check: str, where: Location, message: str) -> None:
        self.problems.append(Problem(check, where, message))


def _readable(kubernetes: tuple[int, int, int] | None) -> tuple[str, ...]:
    if kubernetes is None or V1_FROM <= kubernetes < ONLY_V1_FROM:
        return API_VERSIONS
    return API_VERSIONS[:1] if kubernetes >= ONLY_V1_FROM else API_VERSIONS[1:]


def _last(where: Location) -> Key:
    return next((key for key in reversed(where) if isinstance(key, str)), "a file of rules")


def _name(data: Any) -> str:
    if isinstance(data, bool):
        return f"the truth value {str(data).lower()}"
    if isinstance(data, Mapping):
        return "a mapping"
    if isinstance(data, list):
        return "a list"
    if isinstance(data, str):
        return f"the text {data!r}"
    return "nothing" if data is None else f"the value {data}"


def _hint(word: str, known: Collection[str]) -> str:
    same = [name for name in known if name.lower() == word.lower()]
    return f"; case counts: {same[0]!r}" if same else suggest(word, known)


def _group_hint(group: str) -> str:
    if "*" in group:
        return "there is no wildcard for groups; name each"
    return "lower-case letters, digits, '-' and '.'"
