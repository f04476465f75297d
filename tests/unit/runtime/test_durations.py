"""Durations as clients write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_runtime.durations import MAX_SECONDS, format_seconds, parse_seconds, short_seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("90", 90),
        ("1h30m", 5400),
        (5, 5),
        ("2d", 172_800),
        ("1500ms", 1),
        (1.9, 1),
        ("100ms", 1),
        ("1ns", 1),
        (0.5, 1),
        ("0ms", 0),
        ("0", 0),
        ("10800s0ns", 10_800),
        ("2000000us", 2),
        ("2000000µs", 2),
    ],
)
def test_reads_what_clients_write(value: str | int | float, seconds: int) -> None:
    assert parse_seconds(value) == seconds


@pytest.mark.parametrize("value", ["", "soon", "-1", -1, "1x", "h", True, "1h ago", "9" * 30])
def test_refuses_the_rest_without_repeating_it(value: str | int) -> None:
    with pytest.raises(ValueError, match="takes") as caught:
        parse_seconds(value)
    assert "soon" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [MAX_SECONDS + 1, str(MAX_SECONDS + 1), "2562048h", 1e300, 10**400]
)
def test_refuses_what_would_not_end_in_a_year_that_has_a_name(value: str | float) -> None:
    with pytest.raises(ValueError, match="292 years"):
        parse_seconds(value)


def test_refuses_what_is_long_before_it_is_looked_at() -> None:
    # Anybody can send one, and looking for units in it would take the square of its length.
    for text in ("0" * 100 + "5s", "1" * 400_000 + "x"):
        with pytest.raises(ValueError, match="takes"):
            parse_seconds(text)


@given(st.integers(0, MAX_SECONDS))
def test_what_is_written_is_read_again(seconds: int) -> None:
    assert parse_seconds(format_seconds(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (30, "30s"), (60, "1m"), (5400, "1h30m"), (3605, "1h0m5s"), (2_764_800, "768h")],
)
def test_people_read_it_without_zeros_at_its_end(seconds: int, text: str) -> None:
    assert short_seconds(seconds) == text
    assert parse_seconds(text) == seconds
