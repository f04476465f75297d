"""Watches that outlive the replica that they come from."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

from strongroom_runtime.errors import Kind, ServiceError

_GIVE_UP_SECONDS = 10.0  # without one message
_WAIT_SECONDS = 0.2
# A replica that has just started has no keys yet. Where the platform was sealed, the watch is ended for that.
_PASSING = frozenset({Kind.UNAVAILABLE, Kind.SEALED})


async def resumed(begin: Callable[[Any], AsyncGenerator[Any]], message: Any) -> AsyncGenerator[Any]:
    """Yields the messages of a server stream. Where its replica leaves, another goes on behind the last revision.

    That is for requests with `from_revision`, whose answers have a `revision` and begin with an empty one, which
    repeats the revision before the first; other streams end with their replica.

    Args:
        begin: begins a stream for a request.
        message: the request.

    Raises:
        ServiceError: as the service raised it; UNAVAILABLE or SEALED where no replica takes it for ten seconds.
    """
    request = type(message)()
    request.CopyFrom(message)
    resumes = "from_revision" in request.DESCRIPTOR.fields_by_name
    last: int | None = None
    give_up = 0.0
    now = asyncio.get_running_loop().time
    while True:
        try:
            async with contextlib.aclosing(begin(request)) as messages:
                async for each in messages:
                    give_up = 0.0
                    if last is None or each.revision > last:
                        yield each
                    if resumes:
                        last = each.revision
                        request.from_revision = last + 1
            return
        except ServiceError as error:
            give_up = give_up or now() + _GIVE_UP_SECONDS
            if last is None or error.kind not in _PASSING or now() >= give_up:
                raise
        await asyncio.sleep(_WAIT_SECONDS)
