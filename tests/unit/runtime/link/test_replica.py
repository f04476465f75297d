"""A replica's connection, and how it ends."""

import asyncio
from typing import Any

import grpc

from strongroom_runtime.link.replica import Replica


class Channel:
    """Is ready at once the first time, and never again."""

    reached = 0
    closed = False

    async def channel_ready(self) -> None:
        self.reached += 1
        if self.reached > 1:
            await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


class Connect:
    texts = None
    name = "auth.strongroom.internal"
    channel = Channel()

    def __call__(self, address: str) -> Any:
        return self.channel


class BreaksWhenCancelled(Replica):
    async def _stream(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As grpc.aio does where the other side goes at the same moment.
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
            ) from None


async def test_a_stream_that_breaks_while_it_is_cancelled_ends_all_the_same() -> None:
    connect: Any = Connect()
    replica = BreaksWhenCancelled(connect, "127.0.0.1:1")
    while not connect.channel.reached:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await replica.close()
    assert connect.channel.closed and connect.channel.reached == 1
