"""Decisions, against a naive model and in the cases that went wrong elsewhere."""

import math
from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.policy import naive

from strongroom_runtime.policy import Acl, Decision, Policy, Rule, parse_policy

OPERATIONS = ("read", "list", "update", "delete", "create", "patch", "scan")

part = st.sampled_from(["a", "b", "ab", "+", "abc", "", "a+", "+a"])
pattern = st.tuples(st.lists(part, min_size=1, max_size=4), st.booleans()).map(
    lambda t: "/".join(t[0]) + ("*" if t[1] and not t[0][-1].endswith("+") else "")
)
rule = st.builds(
    Rule,
    pattern,
    st.frozensets(st.sampled_from([*OPERATIONS, "sudo", "deny"]), max_size=3).map(
        lambda granted: frozenset({"deny"}) if "deny" in granted else granted
    ),
    expires=st.sampled_from([math.inf, math.inf, -1.0, 1.0, 2.0, 3.0]),
)
policies = st.lists(
    st.lists(rule, max_size=6).map(lambda rules: Policy("p", tuple(rules))), max_size=3
)
segments = st.sampled_from(["a", "b", "ab", "abc", "c", "", "a+", "+a"])
path = st.lists(segments, min_size=1, max_size=5).map("/".join)


@settings(max_examples=500)
@given(policies, path, st.sampled_from(OPERATIONS), st.sampled_from([0.0, 1.0, 1.5, 2.0, 9.0]))
def test_decides_as_the_naive_model(
    given_policies: list[Policy], path: str, operation: str, now: float
) -> None:
    compiled = Acl.compile(given_policies, now)
    decision = compiled.decide(path, operation)
    capabilities = naive.decide(given_policies, path, operation, now)
    assert decision.allowed == (operation in capabilities)
    assert decision.sudo == (decision.allowed and "sudo" in capabilities)
    write = compiled.decide(path, "write")
    capabilities = naive.decide(given_policies, path, "write", now)
    assert (write.may_create, write.may_update) == (
        "create" in capabilities,
        "update" in capabilities,
    )
    assert write.allowed == bool(capabilities & {"create", "update"})
    listed = naive.decide(given_policies, path, "list", now)
    assert compiled.capabilities(path) == (sorted(listed) or ["deny"])


@settings(max_examples=300)
@given(policies, path, st.floats(0, 4), st.floats(0, 4))
def test_what_was_compiled_holds_until_it_says_that_it_ends(
    given_policies: list[Policy], path: str, now: float, passed: float
) -> None:
    kept = Acl.compile(given_policies, now)
    anew = Acl.compile(given_policies, now + passed)
    assert kept.ends > now
    if now + passed < kept.ends:
        assert kept.capabilities(path) == anew.capabilities(path)
        assert kept.rules() == anew.rules()
    else:
        before, after = (naive.standing(given_policies, at) for at in (now, now + passed))
        assert sum(len(p.rules) for p in after) < sum(len(p.rules) for p in before)


values = st.sampled_from(["one", "only", "o", 1, 2, True])
lists = st.dictionaries(
    st.sampled_from(["a", "b", "*"]),
    st.lists(st.sampled_from(["one", "on*", "*ly", "*n*", 1, True]), max_size=2).map(tuple),
    max_size=2,
)
constrained = st.builds(
    Rule,
    st.just("p"),
    st.just(frozenset({"update", "delete"})),
    st.none() | lists,
    st.none() | lists,
    st.frozensets(st.sampled_from(["a", "b"]), max_size=1),
    st.sampled_from([0, 0, 5, 10]),
    st.sampled_from([0, 0, 10, 20]),
)


@settings(max_examples=300)
@given(
    st.lists(constrained, min_size=1, max_size=3),
    st.sampled_from(["update", "delete"]),
    st.dictionaries(st.sampled_from(["a", "A", "b", "c"]), values, max_size=3),
    st.sampled_from([None, 4, 5, 10, 15, 21]),
)
def test_judges_parameters_as_the_naive_model(
    rules: list[Rule], operation: str, parameters: dict[str, object], wrap_ttl: int | None
) -> None:
    compiled = Acl.compile([Policy("p", (rule,)) for rule in rules], 0)
    decision = compiled.decide("p", operation, parameters=lambda: parameters, wrap_ttl=wrap_ttl)
    held = naive.constraints_hold(rules, operation, parameters, wrap_ttl)
    assert decision.allowed is held


def acl(*texts: str, now: float = 0) -> Acl:
    return Acl.compile([parse_policy(f"p{n}", text) for n, text in enumerate(texts)], now)


def test_a_denied_folder_cannot_be_listed_through_a_shorter_rule() -> None:
    rules = acl(
        'path "fold*" { capabilities = ["list"] } path "folder/*" { capabilities = ["deny"] }'
    )
    assert rules.decide("folds/", "list").allowed
    assert not rules.decide("folder/", "list").allowed


def test_a_deny_in_any_policy_leaves_nothing() -> None:
    rules = acl(
        'path "a" { capabilities = ["read", "sudo"] }', 'path "a" { capabilities = ["deny"] }'
    )
    assert not rules.decide("a", "read").allowed
    assert rules.capabilities("a") == ["deny"]


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ('path "a/b" {{ capabilities = ["read"] {end} }}', ["read"], ["deny"]),
        # What is less specific, or stands beside it, applies again.
        (
            'path "a/b" {{ capabilities = ["deny"] {end} }} path "a/*" {{ capabilities = ["list"] }}',
            ["deny"],
            ["list"],
        ),
        (
            'path "a/b" {{ capabilities = ["read"] {end} }} path "a/b" {{ capabilities = ["list"] }}',
            ["list", "read"],
            ["list"],
        ),
        (
            'path "a/+" {{ capabilities = ["read"] {end} }} path "a/*" {{ capabilities = ["list"] }}',
            ["read"],
            ["list"],
        ),
    ],
)
def test_a_rule_that_has_ended_is_not_there(text: str, before: list[str], after: list[str]) -> None:
    for end in ('expiration = "1970-01-01T00:16:40Z"', "expiration = 1000"):
        for now, capabilities in ((0, before), (999.999, before), (1000, after), (1001, after)):
            rules = acl(text.format(end=end), now=now)
            assert rules.capabilities("a/b") == capabilities
            assert rules.decide("a/b", "read").allowed == ("read" in capabilities)
            assert rules.ends == (1000 if now < 1000 else math.inf)


def test_bounds_of_a_rule_that_has_ended_bind_nobody() -> None:
    texts = (
        'path "p" { capabilities = ["update"] }',
        """path "p" { capabilities = ["deny"] expiration = 10 }
           path "q/*" { capabilities = ["read"] expiration = 10 }""",
        """path "p" { capabilities = ["update"] min_wrapping_ttl = 5 required_parameters = ["a"]
           denied_parameters = { b = [] } expiration = 20 }""",
    )
    assert not acl(*texts).decide("p", "update", parameters=lambda: {"a": 1}, wrap_ttl=5).allowed
    assert acl(*texts).any_below("q/")
    later = acl(*texts, now=10)
    assert later.decide("p", "update", parameters=lambda: {"a": 1}, wrap_ttl=5).allowed
    assert not later.decide("p", "update", parameters=lambda: {"b": 1}).allowed
    assert not later.any_below("q/")
    assert later.ends == 20
    assert acl(*texts, now=20).decide("p", "update", parameters=lambda: {"b": 1}).allowed


def test_create_and_update_are_told_apart() -> None:
    decision = acl('path "a" { capabilities = ["create"] }').decide("a", "write")
    assert (decision.allowed, decision.may_create, decision.may_update) == (True, True, False)


def test_root_may_do_everything() -> None:
    rules = Acl.compile([Policy("root")], 0)
    decision = rules.decide("sys/anything", "delete")
    assert (decision.allowed, decision.sudo, rules.capabilities("x")) == (True, True, ["root"])


def test_capabilities_come_in_alphabetical_order() -> None:
    rules = acl(
        'path "a" { capabilities = ["update", "create", "list", "sudo", "read"] } path "n" {}'
    )
    assert rules.capabilities("a") == ["create", "list", "read", "sudo", "update"]
    assert rules.capabilities("a/") == rules.capabilities("a")
    assert (rules.capabilities("a//"), rules.capabilities("b")) == (["deny"], ["deny"])
    assert rules.capabilities("n") == ["deny"]


PARAMETERS = """
path "p" {
  capabilities = ["update"]
  required_parameters = ["Who"]
  allowed_parameters = { "who" = ["app-*", "*-db"], "n" = [1, 2], "flag" = [true], "any" = [] }
  denied_parameters = { "flag" = [false], "bad" = [] }
}
"""


@pytest.mark.parametrize(
    ("parameters", "allowed"),
    [
        ({"who": "app-1"}, True),
        ({"WHO": "x-db"}, False),
        ({"who": "app-1", "Who": "other"}, False),
        ({"Who": "other", "who": "app-1"}, False),
        ({"who": "app-1", "BAD": 1}, False),
        ({"who": "other"}, False),
        ({}, False),
        ({"n": 1}, False),
        ({"who": "app-1", "n": 2, "any": {"x": 1}}, True),
        ({"who": "app-1", "n": "2"}, False),
        ({"who": "app-1", "n": True}, False),
        ({"who": "app-1", "flag": True}, True),
        ({"who": "app-1", "flag": False}, False),
        ({"who": "app-1", "bad": 1}, False),
        ({"who": "app-1", "unknown": 1}, False),
    ],
)
def test_parameters(parameters: Mapping[str, object], allowed: bool) -> None:
    decision = acl(PARAMETERS).decide("p", "update", parameters=lambda: parameters)
    assert decision.allowed is allowed


@pytest.mark.parametrize(
    ("constraint", "parameters", "allowed"),
    [
        # Names of one spelling in the rule and another in the request, one of them harmless.
        ('denied_parameters = { x = ["bad"] }', {"X": "bad", "x": "good"}, False),
        ('denied_parameters = { x = ["bad"] }', {"x": "good", "X": "bad"}, False),
        ('denied_parameters = { X = ["bad"] x = ["worse"] }', {"x": "bad"}, False),
        ('denied_parameters = { X = ["bad"] x = [] }', {"x": "good"}, False),
        ('denied_parameters = { x = ["*"] }', {"x": "any"}, False),
        ('denied_parameters = { x = ["*"] }', {"x": 1}, True),
        ('denied_parameters = { "*" = [] }', {"x": 1}, False),
        ('denied_parameters = { "*" = [] }', {}, True),
        ('allowed_parameters = { x = ["*"] }', {"x": "any"}, False),
        ('allowed_parameters = { x = ["*"] }', {"x": "*"}, True),
        ('allowed_parameters = { x = ["**"] }', {"x": "any"}, True),
        ('allowed_parameters = { x = ["a*c"] }', {"x": "abc"}, False),
        ('allowed_parameters = { x = ["*b*"] }', {"x": "abc"}, True),
        ("allowed_parameters = {}", {"x": 1}, True),
        ('allowed_parameters = { "*" = ["1"] x = ["1"] }', {"y": "2", "x": "1"}, True),
        ('allowed_parameters = { "*" = ["1"] x = ["1"] }', {"x": "2"}, False),
        ('allowed_parameters = { x = [["a", "b"]] }', {"x": ["a", "b"]}, True),
        ('allowed_parameters = { x = [["a", "b"]] }', {"x": ["a"]}, False),
        ('allowed_parameters = { x = ["a", "b"] }', {"x": ["a", "b"]}, False),
        ('allowed_parameters = { x = [{ k = "v" }] }', {"x": {"k": "v"}}, True),
        ('allowed_parameters = { x = [{ k = "v" }] }', {"x": {"k": "w"}}, False),
        ("allowed_parameters = { x = [[1]] }", {"x": [True]}, False),
        ("allowed_parameters = { x = [1.5, 2] }", {"x": 2.0}, True),
        ("allowed_parameters = { x = [null] }", {"x": None}, True),
        ('allowed_parameters = { x = [""] }', {"x": "y"}, False),
    ],
)
def test_values_of_parameters(
    constraint: str, parameters: Mapping[str, object], allowed: bool
) -> None:
    rules = acl(f'path "p" {{ capabilities = ["patch", "delete", "list"] {constraint} }}')
    assert rules.decide("p", "patch", parameters=lambda: parameters).allowed is allowed
    # Only what carries parameters is judged by them.
    assert rules.decide("p", "delete", parameters=lambda: parameters).allowed
    assert rules.decide("p", "list", parameters=lambda: parameters).allowed


def test_constraints_of_several_policies_are_merged() -> None:
    rules = acl(
        """path "p" { capabilities = ["update", "list"] required_parameters = ["a"]
             denied_parameters = { x = ["1"], y = ["1"] } pagination_limit = 7 }""",
        """path "p" { capabilities = ["read"] required_parameters = ["b"]
             denied_parameters = { x = ["2"], y = [] } pagination_limit = 5 }""",
        'path "p" { capabilities = ["sudo"] }',
    )
    fine = {"a": 1, "b": 1}
    for parameters, allowed in (
        (fine, True),
        ({"a": 1}, False),
        ({"b": 1}, False),
        ({**fine, "x": "1"}, False),
        ({**fine, "x": "2"}, False),
        ({**fine, "x": "3"}, True),
        ({**fine, "y": "3"}, False),
    ):
        source = cast("Mapping[str, object]", parameters)
        assert rules.decide("p", "update", parameters=lambda s=source: s).allowed is allowed  # type: ignore[misc]
    decision = rules.decide("p", "list")
    assert (decision.pagination_limit, decision.sudo) == (5, True)


def test_wrapping_bounds_are_merged_to_the_smallest() -> None:
    rules = acl(
        'path "a" { capabilities = ["read"] min_wrapping_ttl = 10 max_wrapping_ttl = 100 }',
        'path "a" { capabilities = ["read"] min_wrapping_ttl = 50 max_wrapping_ttl = 60 }',
        'path "a" { capabilities = ["read"] }',
    )
    given = {ttl for ttl in (9, 10, 60, 61) if rules.decide("a", "read", wrap_ttl=ttl).allowed}
    assert given == {10, 60}
    assert not rules.decide("a", "read").allowed
    both = acl(
        'path "a" { capabilities = ["read"] min_wrapping_ttl = 50 }',
        'path "a" { capabilities = ["read"] max_wrapping_ttl = 10 }',
    )
    # No time is long enough and short enough.
    assert not any(both.decide("a", "read", wrap_ttl=ttl).allowed for ttl in (None, 10, 50))


@pytest.mark.parametrize(
    ("less", "more", "path"),
    [
        ("a/*", "a/b", "a/b"),  # exact before all else
        ("a/*", "a/b*", "a/bc"),  # the longest prefix
        ("+/b/c", "a/*", "a/b/c"),  # the later first wildcard
        ("a/+/c", "a/b/*", "a/b/c"),
        ("a/*", "a/+/c", "a/b/c"),  # without * before with
        ("a/+/*", "a/+/c", "a/b/c"),
        ("a/+/+/d", "a/+/c/d", "a/b/c/d"),  # fewer +
        ("a/+/+/*", "a/+/*", "a/b/c/d"),
        ("a/+/c*", "a/+/cd*", "a/b/cde"),  # the longer
        ("+/+/+/d", "+/b/+/d", "a/b/c/d"),
        ("+/+/c/d", "+/b/+/d", "a/b/c/d"),  # the alphabet
        ("a/+b*", "a/+", "a/+bc"),  # a + that begins a segment counts as a wildcard
        ("a+/+", "a+/b*", "a+/bc"),
    ],
)
def test_the_more_specific_rule_applies_alone(less: str, more: str, path: str) -> None:
    def rules(first: str, second: str) -> Acl:
        return acl(
            f'path "{first}" {{ capabilities = ["read", "list"] }}',
            f'path "{second}" {{ capabilities = ["update"] }}',
        )

    assert rules(less, more).capabilities(path) == ["update"]
    assert rules(more, less).capabilities(path) == ["list", "read"]


def test_a_deny_beats_sudo_only_on_its_own_path() -> None:
    rules = acl(
        'path "a/*" { capabilities = ["sudo", "read"] }',
        'path "a/b" { capabilities = ["deny", "sudo"] }',
    )
    assert rules.decide("a/c", "read").sudo
    assert rules.decide("a/b", "read") == Decision(False)


def test_parameters_are_not_asked_for_where_no_rule_speaks_of_them() -> None:
    def parameters() -> Mapping[str, object]:
        raise AssertionError("asked")

    rules = acl('path "a" { capabilities = ["read", "update"] }')
    assert rules.decide("a", "write", parameters=parameters).may_update


def test_parameters_of_one_path_in_two_policies_are_merged() -> None:
    rules = acl(
        'path "p" { capabilities = ["update"] allowed_parameters = { "a" = ["1"] } }',
        'path "p" { capabilities = ["read"] allowed_parameters = { "a" = ["2"], "b" = [] } }',
    )
    for name, value in (("a", "1"), ("a", "2"), ("b", "x")):
        assert rules.decide("p", "update", parameters=lambda n=name, v=value: {n: v}).allowed  # type: ignore[misc]
    assert not rules.decide("p", "update", parameters=lambda: {"a": "3"}).allowed


@pytest.mark.parametrize(
    ("ttl", "allowed"), [(None, False), (59, False), (60, True), (61, True), (121, False)]
)
def test_wrapping_bounds(ttl: int | None, allowed: bool) -> None:
    text = 'path "a" { capabilities = ["read"] min_wrapping_ttl = "1m" max_wrapping_ttl = 120 }'
    assert acl(text).decide("a", "read", wrap_ttl=ttl).allowed is allowed


@pytest.mark.parametrize(
    ("prefix", "visible"),
    [
        ("secret/", True),
        ("team/x/", True),
        ("other/", False),
        ("te/", False),
        ("hidden/", False),
        ("pre/", True),
        ("pretty/", True),
        ("prefix/", False),
        ("dark/", True),
        ("dark/matter/", False),
        ("deep/er/", True),
        ("only/", True),
    ],
)
def test_what_lies_below_a_mount(prefix: str, visible: bool) -> None:
    rules = acl(
        """path "secret/data/+/x" { capabilities = ["read"] }
           path "team/*" { capabilities = ["list"] }
           path "hidden/a" { capabilities = ["deny"] }
           path "pre*" { capabilities = ["read"] }
           path "prefix/*" { capabilities = ["deny"] }
           path "dark/*" { capabilities = ["read"] }
           path "dark/matter/*" { capabilities = ["deny"] }
           path "deep/+/x" { capabilities = ["read"] }
           path "only" { capabilities = ["list"] }"""
    )
    assert rules.any_below(prefix) is visible


@pytest.mark.parametrize("value", ["*", "a/b", "+", "", "{{x}}"])
def test_a_template_value_is_a_literal(value: str) -> None:
    policy = parse_policy("p", 'path "u/{{ name }}/*" { capabilities = ["read"] }')
    assert policy.render({"name": value}).rules == ()
    assert [r.path for r in policy.render({"name": "ann"}).rules] == ["u/ann/*"]
    assert policy.render({}).rules == ()
