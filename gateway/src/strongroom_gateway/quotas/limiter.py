"""Counting: how often an address has asked in the interval that runs."""

from dataclasses import dataclass

from strongroom_gateway.quotas.limits import RateLimit

_MOST = 50_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of counting a request.

    Args:
        allowed: whether it may go on.
        limit: how many there are in an interval.
        remaining: how many are left.
        reset_seconds: until the interval is over.
        retry_seconds: after which it is worth trying again; 0 where it is allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_seconds: int
    retry_seconds: int = 0


@dataclass(slots=True)
class _Window:
    limit: RateLimit
    ends: float
    used: int = 0
    blocked_until: float = 0.0


class RateLimiter:
    """The windows of one process, bounded: of too many, those that are over go first, then the oldest."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._windows: dict[tuple[str, str], _Window] = {}

    def take(
        self, name: str, limit: RateLimit, address: str, now: float, *, patient: bool = False
    ) -> Verdict:
        """Counts a request.

        Args:
            name: of the quota.
            limit: the quota.
            address: of the client.
            now: monotonic time.
            patient: it waits where it is not allowed. Then it is no reason to block the address.
        """
        window = self._window(name, limit, address, now)
        allowance = max(1, int(limit.rate))
        left = max(0, allowance - window.used)
        reset = max(0, int(window.ends - now))
        blocked = now < window.blocked_until
        if not blocked and left:
            window.used += 1
            return Verdict(True, allowance, left - 1, reset)
        if limit.block and not blocked and not patient:
            window.blocked_until = now + limit.block
        over = max(window.blocked_until, 0.0 if left else window.ends)
        return Verdict(False, allowance, 0, reset, max(1, int(over - now + 0.999)))

    def _window(self, name: str, limit: RateLimit, address: str, now: float) -> _Window:
        key = (name, address)
        window = self._windows.get(key)
        if window is not None and window.limit is not limit and window.limit != limit:
            window = None  # the quota was changed: its counts begin anew
        if window is None:
            if len(self._windows) >= self._most:
                self._sweep(now)
            window = self._windows[key] = _Window(limit, now + limit.interval)
        elif now >= window.ends:
            window.ends, window.used = now + limit.interval, 0
        return window

    def _sweep(self, now: float) -> None:
        self._windows = {
            key: window
            for key, window in self._windows.items()
            if now < max(window.ends, window.blocked_until)
        }
        while len(self._windows) >= self._most:
            del self._windows[next(iter(self._windows))]
