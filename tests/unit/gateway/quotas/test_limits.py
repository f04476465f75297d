"""Which quota counts a request, and counting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom_gateway.quotas.limiter import RateLimiter
from strongroom_gateway.quotas.limits import RateLimit, Selection, exempt


def limit(mount: str = "m", suffix: str = "", role: str = "", rate: float = 2.0) -> RateLimit:
    return RateLimit(path="", mount=mount, suffix=suffix, rate=rate, interval=10, role=role)


SELECTION = Selection(
    {
        "all": limit(mount=""),
        "mount": limit(),
        "glob": limit(suffix="data/*"),
        "longer-glob": limit(suffix="data/team-a/*"),
        "path": limit(suffix="data/team-a/x"),
        "login": limit(mount="auth"),
        "role": limit(mount="auth", role="ci"),
    }
)


@pytest.mark.parametrize(
    ("mount", "relative", "role", "name"),
    [
        ("", "sys/health", "", "all"),
        ("other", "x", "", "all"),
        ("m", "config", "", "mount"),
        ("m", "data/team-b/x", "", "glob"),
        ("m", "data/team-a/y", "", "longer-glob"),
        ("m", "data/team-a/x", "", "path"),
        ("auth", "login", "", "login"),
        ("auth", "login", "other", "login"),
        ("auth", "login", "ci", "role"),
    ],
)
def test_the_most_specific_quota_counts(mount: str, relative: str, role: str, name: str) -> None:
    found = SELECTION.find(mount, relative, role)
    assert found is not None
    assert found[0] == name


def test_without_a_quota_for_it_a_request_is_not_counted() -> None:
    only = Selection({"mount": limit()})
    assert only.find("other", "x", "") is None
    assert Selection({}).empty


def test_exempt_paths() -> None:
    patterns = ("sys/health", "sys/generate-root/*")
    assert exempt("sys/health", patterns)
    assert exempt("sys/generate-root/attempt", patterns)
    assert not exempt("sys/healthy", patterns)


def test_an_address_has_so_many_in_an_interval() -> None:
    limiter, quota = RateLimiter(), limit()
    first = limiter.take("q", quota, "a", 100.0)
    assert (first.allowed, first.limit, first.remaining, first.reset_seconds) == (True, 2, 1, 10)
    assert limiter.take("q", quota, "a", 101.0).remaining == 0
    refused = limiter.take("q", quota, "a", 104.0)
    assert (refused.allowed, refused.reset_seconds, refused.retry_seconds) == (False, 6, 6)
    assert limiter.take("q", quota, "b", 104.0).allowed
    assert limiter.take("other", quota, "a", 104.0).allowed
    assert limiter.take("q", quota, "a", 110.0).allowed


def test_who_asked_too_often_is_blocked_for_as_long_as_is_set() -> None:
    limiter = RateLimiter()
    quota = RateLimit(path="", mount="", suffix="", rate=1, interval=1, block=60)
    assert limiter.take("q", quota, "a", 0.0).allowed
    refused = limiter.take("q", quota, "a", 0.5)
    assert (refused.allowed, refused.retry_seconds) == (False, 60)
    # To ask again does not make it longer.
    assert not limiter.take("q", quota, "a", 30.0).allowed
    assert limiter.take("q", quota, "a", 61.0).allowed


def test_who_waits_is_held_to_the_same_rate_but_blocks_nobody() -> None:
    limiter = RateLimiter()
    quota = RateLimit(path="", mount="", suffix="", rate=1, interval=10, block=60)
    assert limiter.take("q", quota, "a", 0.0, patient=True).allowed
    assert limiter.take("q", quota, "a", 4.0, patient=True).retry_seconds == 6
    assert limiter.take("q", quota, "a", 10.0).allowed
    # Who does not wait still is blocked, and then who waits has to wait for that, too.
    assert not limiter.take("q", quota, "a", 11.0).allowed
    assert limiter.take("q", quota, "a", 21.0, patient=True).retry_seconds == 50


def test_a_changed_quota_counts_anew_and_another_copy_of_it_does_not() -> None:
    limiter = RateLimiter()
    for _ in range(2):
        limiter.take("q", limit(), "a", 0.0)
    assert not limiter.take("q", limit(), "a", 0.0).allowed
    assert limiter.take("q", limit(rate=3.0), "a", 0.0).allowed


def test_memory_is_bounded_and_windows_that_are_over_go_first() -> None:
    limiter, quota = RateLimiter(most=3), limit(rate=1)
    limiter.take("q", quota, "old", 0.0)
    for number in range(2):
        limiter.take("q", quota, str(number), 9.0)
    limiter.take("q", quota, "new", 11.0)
    assert not limiter.take("q", quota, "0", 11.0).allowed  # still known
    for number in range(10, 20):
        limiter.take("q", quota, str(number), 11.0)
    assert len(limiter._windows) == 3


@given(st.lists(st.floats(0, 30), max_size=80), st.integers(1, 5), st.integers(1, 10))
def test_no_interval_has_more_than_allowed(times: list[float], rate: int, interval: int) -> None:
    limiter = RateLimiter()
    quota = RateLimit(path="", mount="", suffix="", rate=rate, interval=interval)
    allowed: list[float] = []
    began, used = -1e9, 0
    for now in sorted(times):
        if now >= began + interval:
            began, used = now, 0
        used += 1
        if limiter.take("q", quota, "a", now).allowed:
            allowed.append(now)
            assert used <= rate
        else:
            assert used > rate
