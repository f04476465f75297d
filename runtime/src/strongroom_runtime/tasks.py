"""Waiting for work in the background to end.

Not by awaiting tasks with their CancelledError suppressed: that swallows the cancellation of the one who waits as
well, who then goes on as if nothing had been said, and may never end.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


_going_on: set[asyncio.Task[Any]] = set()  # the event loop holds none of them


class EndedError(Exception):
    """Work was ended before it was done."""


async def end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and returns once it has ended.

    Raises:
        Exception: what the task raised.
    """
    task.cancel()
    await ended(task)


async def ended(task: asyncio.Task[Any]) -> None:
    """Returns once a task has ended, cancelled or not.

    Raises:
        Exception: what the task raised.
    """
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Returns what work gives. It goes on even if the one who waits is cancelled.

    Raises:
        Exception: what the work raised.
    """
    task = asyncio.create_task(work)
    _going_on.add(task)
    task.add_done_callback(_over)
    return await asyncio.shield(task)


def _over(task: asyncio.Task[Any]) -> None:
    _going_on.discard(task)
    if not task.cancelled():
        task.exception()  # is nobody's to look at where the one who waited is gone


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """Returns what work gives, and ends it where an event is set before it is done.

    Raises:
        EndedError: the event was set first.
        Exception: what the work raised.
    """
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise EndedError
    finally:
        waiting.cancel()
        await end(working)
