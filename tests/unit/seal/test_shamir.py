"""Secret sharing, with a port of Vault's own as the oracle."""

import itertools

import pyshamir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom_seal.domain.shamir import combine, split

KEY = bytes(range(32))


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, list[bytes], int]:
    secret = draw(st.binary(min_size=1, max_size=48))
    shares = draw(st.integers(2, 12))
    threshold = draw(st.integers(2, shares))
    return secret, split(secret, shares, threshold), threshold


@given(sharings(), st.randoms(use_true_random=False))
def test_any_threshold_of_shares_gives_the_secret_back(sharing, random) -> None:  # type: ignore[no-untyped-def]
    secret, shares, threshold = sharing
    assert combine(random.sample(shares, threshold)) == secret
    assert combine(shares) == secret


@settings(max_examples=25, deadline=None)
@given(sharings())
def test_shares_are_interchangeable_with_vaults(sharing: tuple[bytes, list[bytes], int]) -> None:
    secret, shares, threshold = sharing
    assert bytes(pyshamir.combine([bytearray(s) for s in shares[:threshold]])) == secret
    theirs = pyshamir.split(secret, len(shares), threshold)
    assert combine([bytes(s) for s in theirs[:threshold]]) == secret


def test_two_of_three_tell_nothing() -> None:
    """Every value of a byte is equally likely, given fewer shares than are needed."""
    shares = split(b"\x2a", 3, 3)
    known = shares[:2]
    x = shares[2][-1]
    possible = {combine([*known, bytes([y, x])]) for y in range(256)}
    assert len(possible) == 256


def test_too_few_shares_give_something_else() -> None:
    shares = split(KEY, 5, 3)
    assert all(combine(pair) != KEY for pair in itertools.combinations(shares, 2))


def test_places_are_distinct_and_never_zero() -> None:
    places = [share[-1] for share in split(KEY, 255, 2)]
    assert sorted(places) == list(range(1, 256))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([], "at least two"),
        ([b"ab"], "at least two"),
        ([b"ab", b"abc"], "same length"),
        ([b"a", b"b"], "same length"),
        ([b"a\x00", b"a\x01"], "malformed"),
        ([b"a\x01", b"b\x01"], "twice"),
    ],
)
def test_shares_that_cannot_be_combined_are_refused(shares: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        combine(shares)


@pytest.mark.parametrize(
    ("secret", "n", "t"), [(b"", 3, 2), (KEY, 3, 1), (KEY, 2, 3), (KEY, 256, 3)]
)
def test_numbers_out_of_range_are_refused(secret: bytes, n: int, t: int) -> None:
    with pytest.raises(ValueError, match=r"secret|threshold"):
        split(secret, n, t)
