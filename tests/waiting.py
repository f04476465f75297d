"""Waiting for what comes true by itself."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Returns once a condition holds.

    Raises:
        TimeoutError: it does not come to hold in time.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
