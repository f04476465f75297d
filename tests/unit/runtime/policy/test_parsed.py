"""Policies that are kept after they were parsed."""

import pytest

from strongroom_runtime.policy import ParsedPolicies, PolicyError


def text(capability: str) -> str:
    return f'path "a" {{ capabilities = ["{capability}"] }}'


def test_a_policy_is_parsed_once() -> None:
    parsed = ParsedPolicies()
    first = parsed.parse("p", text("read"))
    assert parsed.parse("p", text("read")) is first
    assert parsed.parse("q", text("read")).name == "q"
    assert parsed.parse("p", text("list")).rules[0].capabilities == {"list"}


def test_what_was_not_used_for_longest_goes_first() -> None:
    parsed = ParsedPolicies(most=2 * (len(text("read")) + 100))
    kept, gone = parsed.parse("kept", text("read")), parsed.parse("gone", text("list"))
    parsed.parse("kept", text("read"))
    parsed.parse("new", text("scan"))
    assert parsed.parse("kept", text("read")) is kept
    assert parsed.parse("gone", text("list")) is not gone


def test_what_does_not_fit_is_parsed_all_the_same() -> None:
    parsed = ParsedPolicies(most=10)
    assert parsed.parse("p", text("read")) is not parsed.parse("p", text("read"))


def test_an_error_is_not_kept() -> None:
    for _ in range(2):
        with pytest.raises(PolicyError):
            ParsedPolicies().parse("p", "path")
