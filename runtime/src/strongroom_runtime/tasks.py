"""Waiting for tasks to end.

Not by awaiting them with their CancelledError suppressed: that swallows the cancellation of the one who waits as
well, who then goes on as if nothing had been said, and may never end.
"""

import asyncio
from typing import Any


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
