"""Watches that outlive the replica that they come from."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from strongroom_runtime.errors import Kind, ServiceError

_TRIES = 5  # without one message; each finds a replica, or waits for one
_WAIT_SECONDS = 0.2


async def resumed(begin: Callable[[Any], AsyncGenerator[Any]], message: Any) -> AsyncGenerator[Any]:
    """Yields the messages of a server stream. Where its replica leaves, another goes on behind the last revision.

    That is for requests with `from_revision`, whose answers have a `revision` and begin with an empty one, which
    repeats the revision before the first; other streams end with their replica.

    Args:
        begin: begins a stream for a request.
        message: the request.

    Raises:
        ServiceError: as the service raised it; UNAVAILABLE where no replica can be found.
    """
    request = type(message)()
    request.CopyFrom(message)
    resumes = "from_revision" in request.DESCRIPTOR.fields_by_name
    last: int | None = None
    tries = 0
    while True:
        try:
            async with contextlib.aclosing(begin(request)) as messages:
                async for each in messages:
                    tries = 0
                    if last is None or each.revision > last:
                        yield each
                    if resumes:
                        last = each.revision
                        request.from_revision = last + 1
            return
        except ServiceError as error:
            tries += 1
            if last is None or error.kind is not Kind.UNAVAILABLE or tries > _TRIES:
                raise
        await asyncio.sleep(_WAIT_SECONDS)
