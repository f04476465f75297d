"""One open exchange of the link, at its serving end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from strongroom.link.v1 import link_pb2
from strongroom_runtime.link.direct import ReplyFrames, parted


class Exchange:
    """Runs calls as they come, and sends all replies that are ready in one frame.

    Args:
        run: runs a call; never raises.
        context: of the stream.
    """

    def __init__(
        self,
        run: Callable[[link_pb2.Call], Awaitable[link_pb2.Reply]],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> None:
        self._run_call = run
        self._context = context
        self._running: set[asyncio.Task[None]] = set()
        self._replies: list[link_pb2.Reply] = []
        self._writer: asyncio.Task[None] | None = None
        self._drain_announced = True
        self._direct: link_pb2.Direct | None = None

    def take(self, frame: link_pb2.ExchangeRequest, connection: ReplyFrames | None = None) -> None:
        """Runs calls; the replies go the way they came."""
        begin = asyncio.get_running_loop().create_task
        for call in frame.calls:
            task = begin(self._run(call, connection))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def drain(self) -> None:
        """Asks the caller to send nothing more."""
        self._drain_announced = False
        self._wake()

    def announce(self, direct: link_pb2.Direct) -> None:
        """Offers a connection beside this stream."""
        self._direct = direct
        self._wake()

    async def finish(self) -> None:
        """Returns once everything is answered."""
        while self._running or self._writer is not None:
            await asyncio.gather(*self._running)
            if self._writer is not None:
                await self._writer

    async def _run(self, call: link_pb2.Call, connection: ReplyFrames | None) -> None:
        reply = await self._run_call(call)
        if connection is not None:
            connection.put(reply)
            return
        self._replies.append(reply)  # looked up after the wait: the list is replaced at each frame
        self._wake()

    def _wake(self) -> None:
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._replies or not self._drain_announced or self._direct is not None:
                first = link_pb2.ExchangeResponse(
                    draining=not self._drain_announced, direct=self._direct
                )
                replies, self._replies = self._replies, []
                self._drain_announced, self._direct = True, None
                for part in parted(replies) if replies else ((),):
                    frame, first = first, link_pb2.ExchangeResponse()
                    frame.replies.extend(part)
                    await self._context.write(frame)
        except grpc.aio.BaseError:
            pass  # the stream is over, and with it the waiting of who made the calls
        finally:
            self._writer = None
