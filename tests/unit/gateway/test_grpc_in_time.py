"""Messages of gRPC that do not come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from strongroom_gateway.grpc_in_time import InTime

Serve = Callable[..., Awaitable[Any]]


async def _echo(request: bytes, context: object) -> bytes:
    return request


async def _twice(request: bytes, context: object) -> AsyncIterator[bytes]:
    yield request
    yield request


async def _each(requests: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


HANDLERS = grpc.method_handlers_generic_handler(
    "test.Service",
    {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Twice": grpc.unary_stream_rpc_method_handler(_twice),
        "Each": grpc.stream_stream_rpc_method_handler(_each),
    },
)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    ends: list[Any] = []

    async def begin(**options: Any) -> Any:
        in_time = InTime(**options)
        in_time.add_generic_rpc_handlers([HANDLERS])
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([in_time])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        ends.extend((channel.close(), server.stop(None)))
        return channel

    yield begin
    for end in ends:
        await end


async def nothing() -> AsyncIterator[bytes]:
    """Begins a message and never ends it, as far as a server can tell."""
    await asyncio.Event().wait()
    yield b""


async def then_nothing(first: bytes) -> AsyncIterator[bytes]:
    yield first
    async for each in nothing():
        yield each


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(60):
            await call
    code: grpc.StatusCode = caught.value.code()
    return code


async def all_of(call: Any) -> list[bytes]:
    return [each async for each in call]


async def test_calls_whose_message_comes_are_answered(
    serve: Serve,
) -> None:
    channel = await serve(streams=True)
    assert await channel.unary_unary("/test.Service/Echo")(b"a") == b"a"
    assert await all_of(channel.unary_stream("/test.Service/Twice")(b"a")) == [b"a", b"a"]
    assert await all_of(channel.stream_stream("/test.Service/Each")(iter((b"a", b"b")))) == [
        b"a",
        b"b",
    ]
    unknown = channel.unary_unary("/test.Service/Nothing")(b"a")
    assert await refused(unknown) is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_whose_message_does_not_come_are_ended(
    serve: Serve,
) -> None:
    channel = await serve(streams=True, seconds=2)
    echo = channel.stream_unary("/test.Service/Echo")
    twice = channel.stream_stream("/test.Service/Twice")
    each = channel.stream_stream("/test.Service/Each")
    calls = (
        echo(nothing()),
        all_of(twice(nothing())),
        all_of(each(nothing())),
        all_of(each(then_nothing(b"a"))),
    )
    codes = await asyncio.gather(*(refused(call) for call in calls))
    assert codes == [grpc.StatusCode.DEADLINE_EXCEEDED] * 4
    assert await channel.unary_unary("/test.Service/Echo")(b"a") == b"a"


async def test_a_stream_may_be_left_to_its_handler(
    serve: Serve,
) -> None:
    channel = await serve(streams=False, seconds=0.2)
    call = channel.stream_stream("/test.Service/Each")(then_nothing(b"a"))
    assert await call.read() == b"a"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await call.read()


async def test_a_call_without_a_message_is_refused(
    serve: Serve,
) -> None:
    channel = await serve(streams=False)
    call = channel.stream_unary("/test.Service/Echo")(iter(()))
    assert await refused(call) is grpc.StatusCode.INVALID_ARGUMENT
