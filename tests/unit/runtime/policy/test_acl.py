"""Decisions, against a naive model and in the cases that went wrong elsewhere."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.policy import naive

from strongroom_runtime.policy import Acl, Policy, Rule, parse_policy

OPERATIONS = ("read", "list", "update", "delete", "create", "patch", "scan")

part = st.sampled_from(["a", "b", "ab", "+", "abc", ""])
pattern = st.tuples(st.lists(part, min_size=1, max_size=4), st.booleans()).map(
    lambda t: "/".join(t[0]) + ("*" if t[1] and t[0][-1] != "+" else "")
)
rule = st.builds(
    Rule, pattern, st.frozensets(st.sampled_from([*OPERATIONS, "sudo", "deny"]), max_size=3)
).map(lambda r: Rule(r.path, frozenset({"deny"}) if "deny" in r.capabilities else r.capabilities))
policies = st.lists(
    st.lists(rule, max_size=6).map(lambda rules: Policy("p", tuple(rules))), max_size=3
)
path = st.lists(st.sampled_from(["a", "b", "ab", "abc", "c", ""]), min_size=1, max_size=5).map(
    "/".join
)


@settings(max_examples=1000)
@given(policies, path, st.sampled_from(OPERATIONS))
def test_decides_as_the_naive_model(
    given_policies: list[Policy], path: str, operation: str
) -> None:
    decision = Acl.compile(given_policies).decide(path, operation)
    capabilities = naive.decide(given_policies, path, operation)
    assert decision.allowed == (operation in capabilities)
    assert decision.sudo == (decision.allowed and "sudo" in capabilities)


def acl(*texts: str) -> Acl:
    return Acl.compile([parse_policy(f"p{n}", text) for n, text in enumerate(texts)])


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


def test_create_and_update_are_told_apart() -> None:
    decision = acl('path "a" { capabilities = ["create"] }').decide("a", "write")
    assert (decision.allowed, decision.may_create, decision.may_update) == (True, True, False)


def test_root_may_do_everything() -> None:
    rules = Acl.compile([Policy("root")])
    decision = rules.decide("sys/anything", "delete")
    assert (decision.allowed, decision.sudo, rules.capabilities("x")) == (True, True, ["root"])


def test_capabilities_come_in_vaults_order() -> None:
    rules = acl('path "a" { capabilities = ["update", "create", "list", "sudo", "read"] }')
    assert rules.capabilities("a") == ["sudo", "read", "list", "update", "create"]
    assert rules.capabilities("b") == ["deny"]


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
        ({"WHO": "x-db"}, True),
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
    [("secret/", True), ("team/x/", True), ("other/", False), ("te/", False), ("hidden/", False)],
)
def test_what_lies_below_a_mount(prefix: str, visible: bool) -> None:
    rules = acl(
        """path "secret/data/+/x" { capabilities = ["read"] }
           path "team/*" { capabilities = ["list"] }
           path "hidden/a" { capabilities = ["deny"] }"""
    )
    assert rules.any_below(prefix) is visible


@pytest.mark.parametrize("value", ["*", "a/b", "+", "", "{{x}}"])
def test_a_template_value_is_a_literal(value: str) -> None:
    policy = parse_policy("p", 'path "u/{{ name }}/*" { capabilities = ["read"] }')
    assert policy.render({"name": value}).rules == ()
    assert [r.path for r in policy.render({"name": "ann"}).rules] == ["u/ann/*"]
    assert policy.render({}).rules == ()
