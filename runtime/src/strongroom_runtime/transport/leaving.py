"""What a process that leaves does about streams that are still open."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from strongroom_runtime.errors import Kind, ServiceError

_POLL_SECONDS = 0.02
STREAM_SECONDS = 300.0


class OpenStreams:
    """The streams of one kind that are open in a process, so that it can wait for them, or end them."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()

    @contextlib.asynccontextmanager
    async def counted(self) -> AsyncGenerator[None]:
        """Counts a stream for as long as the block lasts.

        Raises:
            ServiceError: UNAVAILABLE, in the block, once streams are ended.
        """
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise
            text = "the process that had this stream is leaving: begin it anew"
            raise ServiceError(Kind.UNAVAILABLE, text) from None

    def end(self) -> None:
        """Ends all of them."""
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)

    async def idle(self) -> None:
        """Returns once none is open."""
        while self._limits:
            await asyncio.sleep(_POLL_SECONDS)


class Patience:
    """How long a process that leaves lets its streams go on.

    Args:
        seconds: for as long as that, if nobody is in a hurry.
    """

    def __init__(self, seconds: float = STREAM_SECONDS) -> None:
        self.seconds = seconds
        self._hurry = asyncio.Event()

    def lose(self) -> None:
        """Waits no more, now and later."""
        self._hurry.set()

    async def wait_for(self, streams: OpenStreams) -> None:
        """Returns once all have ended by themselves, or the time is over; those that are left are ended then."""
        idle = asyncio.create_task(streams.idle())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait(
                {idle, hurry}, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            idle.cancel()
            hurry.cancel()
        streams.end()
