"""Texts that meet rules: how many there are, and that each is drawn as often as any other."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as some

from strongroom_dbcreds.domain.compositions import Compositions, TooManyError
from strongroom_dbcreds.domain.passwords import Policy, Rule, generate

LETTERS = "abcd"
RULES = some.lists(
    some.tuples(some.text(LETTERS, min_size=1, max_size=4), some.integers(0, 3)), max_size=3
)


def meeting(length: int, letters: str, rules: list[tuple[str, int]]) -> list[str]:
    """Returns all texts that meet rules, by trying all that there are."""
    return [
        "".join(text)
        for text in itertools.product(letters, repeat=length)
        if all(sum(letter in chosen for letter in text) >= least for chosen, least in rules)
    ]


@given(some.integers(1, 5), RULES)
def test_as_many_are_counted_as_there_are(length: int, rules: list[tuple[str, int]]) -> None:
    assert Compositions(length, LETTERS, rules).texts == len(meeting(length, LETTERS, rules))


@given(some.integers(1, 5), RULES)
def test_what_is_drawn_meets_the_rules(length: int, rules: list[tuple[str, int]]) -> None:
    made = Compositions(length, LETTERS, rules)
    if made.texts:
        drawn = made.draw()
        assert sum(many for _, many in drawn) == length
        text = "".join(letters[:1] * many for letters, many in drawn)
        assert all(sum(letter in chosen for letter in text) >= least for chosen, least in rules)


def test_each_text_is_as_likely_as_any_other() -> None:
    policy = Policy(4, (Rule("ab", 2), Rule("bc", 1), Rule("d")))
    allowed = meeting(4, LETTERS, [("ab", 2), ("bc", 1)])
    drawn = Counter(generate(policy) for _ in range(49 * len(allowed)))
    assert set(drawn) == set(allowed)
    # Each comes 49 times on average, with a deviation of 7: six of these happen to none.
    assert all(7 < many < 91 for many in drawn.values()), drawn


def test_rules_that_share_too_much_are_refused() -> None:
    letters = [chr(0x4E00 + number) for number in range(100)]
    for step, rules in ((2, 35), (6, 12), (1, 12)):
        shared = [("".join(letters[n * step : n * step + 30]), 5) for n in range(rules)]
        with pytest.raises(TooManyError):
            Compositions(100, "".join(letters), shared)
