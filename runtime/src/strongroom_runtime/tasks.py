"""Work in the background: that it goes on, and waiting for it to end.

Not by awaiting tasks with their CancelledError suppressed: that swallows the cancellation of the one who waits as
well, who then goes on as if nothing had been said, and may never end.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from strongroom_runtime.errors import ServiceError

T = TypeVar("T")

log = logging.getLogger(__name__)


class EndedError(Exception):
    """Work was ended before it was done."""


@contextlib.contextmanager
def attempt(work: str) -> Iterator[None]:
    """Goes around one turn of work that is done again and again: what goes wrong is logged, and the next turn comes.

    That holds for errors that nobody expected as well. Else nobody would do the work from then on, nor know of it.

    Args:
        work: what the log calls it.
    """
    try:
        yield
    except ServiceError as error:
        log.info("work waits", extra={"work": work, "kind": error.kind.value})
    except Exception as error:
        log.error("work failed", extra={"work": work, "error": type(error).__name__})


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
