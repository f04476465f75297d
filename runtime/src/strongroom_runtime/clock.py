"""Time, passed in so that tests can move it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where code reads the time."""

    def now(self) -> float:
        """Returns wall time in seconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Returns seconds that no clock step changes."""
        ...


class SystemClock:
    """The machine's clocks."""

    # The functions themselves: every request asks several times.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class ManualClock:
    """A clock for tests: it stands until moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        """Returns the wall time last set."""
        return self._now

    def monotonic(self) -> float:
        """Returns the monotonic time last reached."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both clocks forward."""
        self._now += seconds
        self._monotonic += seconds
