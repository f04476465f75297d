"""Calls of a database that end in time, whatever the database does."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from strongroom_runtime.errors import Kind, ServiceError

T = TypeVar("T")

# Calls that were given up and have not ended yet: somebody must hold them.
_given_up: set[asyncio.Task[Any]] = set()


class GivenUpError(ServiceError):
    """A call did not end in time: what it did, or will do, is not known."""

    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, "the database did not answer in time")


async def bounded(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Returns what a call returns, if it does in time. Afterwards it is cancelled, and not waited for.

    Raises:
        GivenUpError: it did not.
        ServiceError: what the call raises; INTERNAL, without its text, for any other error of a driver.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=max(seconds, 0.0))
    finally:
        if not task.done():
            # A database that hangs may keep even the cancellation from coming through.
            _given_up.add(task)
            task.add_done_callback(_forget)
            task.cancel()
    if not task.done() or task.cancelled():
        raise GivenUpError
    error = task.exception()
    if error is None or isinstance(error, ServiceError):
        return task.result()
    raise ServiceError(Kind.INTERNAL, f"the driver failed ({type(error).__name__})") from error


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        task.exception()
