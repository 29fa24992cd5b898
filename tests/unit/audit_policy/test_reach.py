"""What is proven about rules, against every request of a small world."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from exectrail.audit_policy.lint.reach import Target, decides, takers
from exectrail.audit_policy.lint.schema import SchemaReader
from exectrail.audit_policy.policy import GroupResources, Policy, Request, Rule, decide
from tests.oracle import generate

USERS = ("u1", "u2")
GROUPS = ("g1", "g2")
VERBS = ("get", "create")
NAMESPACES = ("", "n1")
NAMES = ("a", "b")
PATTERNS = ("*", "pods", "pods/exec", "pods/*", "*/exec", "*/scale", "secrets", "*/*", "pods/")
URLS = ("*", "/a", "/a*", "/a/b", "/a/*", "/b")


def some(words: tuple[str, ...], least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.sampled_from(
        [found for size in range(least, 3) for found in combinations(words, size)]
    )


api_groups = st.sampled_from(("", "apps"))
entries = st.builds(GroupResources, api_groups, some(PATTERNS))
named_entries = st.builds(GroupResources, api_groups, some(PATTERNS, 1), some(NAMES))
levels = st.sampled_from(("None", "Metadata", "RequestResponse"))
resource_rules = st.builds(
    Rule,
    levels,
    some(USERS),
    some(GROUPS),
    some(VERBS),
    some(NAMESPACES),
    st.lists(entries | named_entries, max_size=2).map(tuple),
)
url_rules = st.builds(Rule, levels, some(USERS), some(GROUPS), some(VERBS), urls=some(URLS))
policies = st.lists(resource_rules | url_rules, min_size=1, max_size=6).map(tuple)

SETS_OF_GROUPS = [
    found for size in range(len(GROUPS) + 1) for found in combinations((*GROUPS, "other"), size)
]
WORLD = [
    Request(user, verb, groups, group, resource, subresource, namespace, name)
    for user, verb, groups, group, resource, subresource, namespace, name in product(
        (*USERS, "other"),
        (*VERBS, "other"),
        SETS_OF_GROUPS,
        ("", "apps", "other"),
        ("pods", "secrets", "other"),
        ("", "exec", "scale", "other"),
        (*NAMESPACES, "other"),
        (*NAMES, "other"),
    )
    if len(groups) < 2 or user == "other"  # the rest adds nothing but time
]
WORLD += [
    Request(user, verb, groups, path=path)
    for user, verb, groups, path in product(
        (*USERS, "other"),
        (*VERBS, "other"),
        SETS_OF_GROUPS,
        ("x", "/", "/a", "/ax", "/a/", "/a/b", "/a/bx", "/b", "/bx"),
    )
]


def matches_nothing_real(rule: Rule) -> bool:
    possible = [entry for entry in rule.resources if set(entry.resources) - {"*/*", "pods/"}]
    return bool(rule.resources) and not possible and all(e.resources for e in rule.resources)


@given(policies)
@settings(max_examples=25)
def test_a_rule_is_unreachable_exactly_if_it_decides_no_request(rules: tuple[Rule, ...]) -> None:
    policy = Policy(rules)
    deciding = {decide(policy, request).rule for request in WORLD}
    for position, rule in enumerate(rules):
        if not matches_nothing_real(rule):
            assert (takers(rules, position) is not None) is (position not in deciding), position


@given(policies)
@settings(max_examples=100)
def test_the_rules_that_are_blamed_are_enough_and_all_needed(rules: tuple[Rule, ...]) -> None:
    for position, rule in enumerate(rules):
        blamed = takers(rules, position)
        if blamed is None:
            continue
        alone = [rules[index] for index in blamed]
        assert takers((*alone, rule), len(alone)) is not None
        for left_out in range(len(alone)):
            fewer = [*alone[:left_out], *alone[left_out + 1 :]]
            assert takers((*fewer, rule), len(fewer)) is None


@given(policies)
@settings(max_examples=25)
def test_a_rule_decides_about_a_target_exactly_if_some_request_shows_it(
    rules: tuple[Rule, ...],
) -> None:
    policy = Policy(rules)
    shown = {
        decide(policy, request).rule
        for request in WORLD
        if (request.api_group, request.resource, request.subresource) == ("", "pods", "exec")
        and request.verb == "get"
    }
    target = Target("", "pods", "exec")
    for position in range(len(rules)):
        assert decides(rules, position, target, ("get",)) is (position in shown), position


@given(st.integers(0, 2**32))
@settings(max_examples=150)
def test_an_unreachable_rule_of_a_real_looking_policy_decides_nothing(seed: int) -> None:
    random = generate.seeded(seed)
    policy = SchemaReader().policy(generate.policy(random, "audit.k8s.io/v1"))
    unreachable = {
        position
        for position in range(len(policy.rules))
        if takers(policy.rules, position) is not None
    }
    for _ in range(200):
        assert decide(policy, generate.request(random)).rule not in unreachable
