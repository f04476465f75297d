"""Until when calls may take: one timer for all of them.

Nearly every call is over long before. A timer for each costs more than to find out who answers it, and
`asyncio.timeout` around a handler a third of what a read takes in its service.
"""

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_EARLY_SECONDS = 0.001  # by which a timer may go off too soon: event loops count in milliseconds


class Deadlines(Generic[T]):
    """Gives up what is not over in time.

    Args:
        give_up: called once with each such item.
    """

    def __init__(self, give_up: Callable[[T], object]) -> None:
        self._give_up = give_up
        self._ends: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looks_at = math.inf  # no later than the first of the ends

    def __contains__(self, item: T) -> bool:
        """Whether an item is neither over nor given up."""
        return item in self._ends

    def add(self, item: T, end: float) -> None:
        """Lets an item take until a time of the event loop."""
        self._ends[item] = end
        if end < self._looks_at:
            self._look_at(end)

    def discard(self, item: T) -> None:
        """Notes that an item is over, if it was added."""
        self._ends.pop(item, None)

    def close(self) -> None:
        """Gives up nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(time, self._look)
        self._looks_at = time

    def _look(self) -> None:
        self._timer, self._looks_at = None, math.inf
        now = asyncio.get_running_loop().time() + _EARLY_SECONDS
        for item in [item for item, end in self._ends.items() if end <= now]:
            del self._ends[item]
            self._give_up(item)
        if self._ends:
            self._look_at(min(self._ends.values()))
