"""Calls of gRPC that end with an error leave nothing behind."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link.server import _reporting, abort


class Request:
    """Stands for a message of many megabytes."""


class Refusing(grpc.GenericRpcHandler):
    """Refuses every call, as the public wire does, and remembers whether its message is still in memory."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Request]] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def one(request: Request, context: Any) -> None:
            self.seen.append(weakref.ref(request))
            try:
                raise ServiceError(Kind.DENIED, "permission denied")
            except ServiceError as error:
                await abort(context, error)

        async def several(request: Request, context: Any) -> AsyncIterator[bytes]:
            yield b"first"
            await one(request, context)

        made = {"request_deserializer": lambda _: Request(), "response_serializer": bytes}
        if details.method == "/refusing/One":
            return grpc.unary_unary_rpc_method_handler(one, **made)  # type: ignore[arg-type]
        return grpc.unary_stream_rpc_method_handler(several, **made)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["/refusing/One", "/refusing/Several"])
async def test_what_was_refused_is_in_memory_no_more(method: str) -> None:
    refusing = Refusing()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([refusing])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.disable()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
            channel: Any = opened
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                if method == "/refusing/One":
                    await channel.unary_unary(method)(b"")
                else:
                    assert [each async for each in channel.unary_stream(method)(b"")] == [b"first"]
            error = caught.value
            assert (error.code(), error.details()) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "permission denied",
            )
            async with asyncio.timeout(10):
                while refusing.seen[0]() is not None:
                    await asyncio.sleep(0.01)
    finally:
        gc.enable()
        await server.stop(None)


async def test_a_caller_that_is_gone_is_no_failure_of_a_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context: Any = None  # nothing more is sent
    with pytest.raises(grpc.aio.InternalError):
        async with _reporting(context, "/refusing/One"):
            raise grpc.aio.InternalError("the answer was not sent")
    assert not caplog.records
