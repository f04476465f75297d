"""Patterns as OpenBao has them; what is expected is what it answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.globs import matches_any


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("dev?", {"dev?"}),
        ("dev[ab]", {"dev[ab]"}),
        ("d*v", {"dxv"}),
        ("dev*", {"dev1", "deva", "dev?", "dev[ab]"}),
        ("*", {"dev1", "deva", "dev?", "dev[ab]", "dxv"}),
        ("*[ab]", {"dev[ab]"}),
        ("dev1", {"dev1"}),
        ("", set()),
    ],
)
def test_only_an_asterisk_stands_for_other_characters(pattern: str, matched: set[str]) -> None:
    names = ("dev1", "deva", "dev?", "dev[ab]", "dxv")
    assert {name for name in names if matches_any(name, [pattern])} == matched


def test_one_of_several_is_enough() -> None:
    assert matches_any("b", ["a", "b*"])
    assert not matches_any("c", ["a", "b*"])
    assert not matches_any("c", [])


@given(st.text("ab*?[]!-\\^\n", max_size=8), st.text("ab?[]!-\\^\n", max_size=8))
def test_it_is_as_taking_the_parts_between_asterisks_in_order(pattern: str, name: str) -> None:
    assert matches_any(name, [pattern]) is _naive(pattern, name)


def _naive(pattern: str, name: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return name.endswith(rest[-1]) and len(name) - len(rest[-1]) >= at
