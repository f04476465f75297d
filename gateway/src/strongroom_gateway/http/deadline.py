"""A bound on what very many tasks wait for: one timer for all of them, where `asyncio.timeout` makes one for each."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_TICK_SECONDS = 1.0


class Deadline:
    """Ends waits that take too long, up to a second late.

    Args:
        seconds: how long each may take.
        tick: how often waits are looked at.
    """

    def __init__(self, seconds: float, tick: float = _TICK_SECONDS) -> None:
        self._seconds = seconds
        self._tick = tick
        # Those that began first are first, and all may take equally long: so they are in the order of their ends.
        self._ends: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Returns what comes of it. A task waits for one thing at a time.

        Raises:
            TimeoutError: it took too long, and was cancelled.
        """
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        if task is None:
            raise RuntimeError("only tasks wait")
        self._ends[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._tick, self._look, loop)
        try:
            return await awaitable
        except asyncio.CancelledError:
            # As asyncio.timeout does: who else cancelled the task is not to find it going on.
            if task in self._late and not task.uncancel():
                raise TimeoutError from None
            raise
        finally:
            self._ends.pop(task, None)
            self._late.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._ends:
            task, end = next(iter(self._ends.items()))
            if end > now:
                break
            del self._ends[task]
            self._late.add(task)
            task.cancel()
        self._timer = loop.call_later(self._tick, self._look, loop) if self._ends else None
