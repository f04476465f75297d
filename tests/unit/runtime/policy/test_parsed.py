"""Policies that are kept after they were parsed."""

import gc
import tracemalloc

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
    parsed = ParsedPolicies()
    parsed.parse("kept", text("read"))
    parsed = ParsedPolicies(most=5 * parsed._held)
    kept, gone = parsed.parse("kept", text("read")), parsed.parse("gone", text("list"))
    for name in ("new1", "new2", "new3", "new4"):
        assert parsed.parse("kept", text("read")) is kept
        parsed.parse(name, text("scan"))
    assert parsed.parse("kept", text("read")) is kept
    assert parsed.parse("gone", text("list")) is not gone


def test_what_does_not_fit_is_parsed_all_the_same_and_pushes_nothing_out() -> None:
    parsed = ParsedPolicies(most=20_000)
    small = parsed.parse("small", text("read"))
    large = "\n".join(text("read") for _ in range(100))
    assert parsed.parse("large", large) is not parsed.parse("large", large)
    assert parsed.parse("small", text("read")) is small


LARGEST = {
    "usual": "\n".join(
        f'path "secret/data/{n}/*" {{ capabilities = ["read", "list"] }}' for n in range(12)
    ),
    "short paths": "\n".join(f'path "{n}" {{}}' for n in range(300)),
    "short paths in JSON": '{{"path": {{{}}}}}'.format(",".join(f'"{n}":{{}}' for n in range(300))),
    "parameters": "\n".join(
        f'path "{n}" {{ allowed_parameters = {{ "a{n}" = ["x", {n}] "b" = [] }}'
        f' denied_parameters = {{ "c" = [{{}}] }} required_parameters = ["d{n}"] }}'
        for n in range(50)
    ),
    "a long text": "# " + "x" * 50_000,
}


@pytest.mark.parametrize("written", LARGEST.values(), ids=LARGEST)
def test_what_is_counted_is_what_policies_take(written: str) -> None:
    """They take 1 to 40 times their text, so that its length says nothing of the memory that is kept."""
    parsed = ParsedPolicies(most=1 << 40)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5):
            parsed.parse(str(number), f"{written}\n")
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.85 < parsed._held / taken < 1.25


def test_no_more_is_kept_than_may_be() -> None:
    parsed = ParsedPolicies(most=1 << 19)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(60):
            parsed.parse(str(number), "\n".join(f'path "{n}" {{}}' for n in range(200)))
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 1.2 * (1 << 19)
    finally:
        tracemalloc.stop()


def test_an_error_is_not_kept() -> None:
    for _ in range(2):
        with pytest.raises(PolicyError):
            ParsedPolicies().parse("p", "path")
