"""Calls of gRPC that end with an error leave nothing behind."""

import asyncio
import gc
import threading
import time
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
            async with asyncio.timeout(60):
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


@pytest.mark.parametrize("method", ["/refusing/One", "/refusing/Several"])
async def test_a_refusal_of_a_client_that_has_left_is_no_error(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    entered, left, raised = threading.Event(), threading.Event(), list[BaseException]()

    class Late(grpc.GenericRpcHandler):
        """Refuses a call whose client has left, of which the event loop has heard nothing yet."""

        def service(self, details: grpc.HandlerCallDetails) -> Any:
            async def one(request: bytes, context: Any) -> None:
                entered.set()
                left.wait(60)
                try:
                    await abort(context, ServiceError(Kind.DENIED, "permission denied"))
                except BaseException as error:
                    raised.append(error)
                    raise

            async def several(request: bytes, context: Any) -> AsyncIterator[bytes]:
                yield b"first"
                await one(request, context)

            if details.method == "/refusing/One":
                return grpc.unary_unary_rpc_method_handler(one)
            return grpc.unary_stream_rpc_method_handler(several)

    def leave() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as opened:
            channel: Any = opened
            if method == "/refusing/One":
                call = channel.unary_unary(method).future(b"")
            else:
                call = channel.unary_stream(method)(b"")
            entered.wait(60)
            call.cancel()
        # For the server's own threads to hear of it; where they do not, nothing is tested, and nothing fails.
        time.sleep(0.2)
        left.set()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Late()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await asyncio.to_thread(leave)
    await server.stop(None)
    assert raised == []
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []
