"""Messages of gRPC that have to come in time.

Who begins one and never ends it would keep a call, and memory, for as long as the connection lasts. gRPC reads the
only message of a request by itself, for however long that takes, and asks no handler before. So methods with such
requests are served as if theirs were streams, which is the same to clients, and the message is read here.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc

from strongroom_gateway.http.wire import MAX_SECONDS
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.link.deadlines import Deadlines
from strongroom_runtime.link.server import abort

Context = grpc.aio.ServicerContext[Any, Any]


class InTime(grpc.GenericRpcHandler):
    """Serves what others do, and ends a call of which a message does not come in time.

    Stands in for a server where handlers are added.

    Args:
        streams: whether each message of a stream has to come in time, too. Else handlers see to that.
        seconds: how long a message may take: as long as a body over HTTP.
    """

    def __init__(self, *, streams: bool, seconds: float = MAX_SECONDS) -> None:
        self._streams = streams
        self._seconds = seconds
        self._inner: list[grpc.GenericRpcHandler] = []
        self._served: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._late: Deadlines[asyncio.Task[Any]] = Deadlines(asyncio.Task.cancel)

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds handlers to be served."""
        self._inner += handlers

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, object]) -> None:
        """Adds nothing: generated code adds the same handlers in the other way as well."""

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Returns the handler of a method, as grpc asks for it."""
        known = self._served.get(details.method)
        if known is None:
            found = next(filter(None, (inner.service(details) for inner in self._inner)), None)
            if found is None:
                return None
            known = self._served[details.method] = self._handler(found)
        return known

    def _handler(self, handler: Any) -> "grpc.RpcMethodHandler[Any, Any]":
        if not handler.request_streaming:
            make: Any = grpc.stream_unary_rpc_method_handler
            behaviour = self._answering(handler.unary_unary)
            if handler.response_streaming:
                make = grpc.stream_stream_rpc_method_handler
                behaviour = self._watching(handler.unary_stream)
        elif self._streams:
            make = grpc.stream_stream_rpc_method_handler
            behaviour = self._exchanging(handler.stream_stream)
        else:
            return handler  # type: ignore[no-any-return]  # nothing says what grpc's own class is
        made: grpc.RpcMethodHandler[Any, Any] = make(
            behaviour, handler.request_deserializer, handler.response_serializer
        )
        return made

    def _answering(self, answer: Callable[[Any, Context], Any]) -> Any:
        async def behaviour(requests: object, context: Context) -> Any:
            try:
                request = await self._only(context)
            except ServiceError as error:
                return await abort(context, error)
            return await answer(request, context)

        return behaviour

    def _watching(self, watch: Callable[[Any, Context], Any]) -> Any:
        async def behaviour(requests: object, context: Context) -> AsyncIterator[Any]:
            try:
                request = await self._only(context)
            except ServiceError as error:
                await abort(context, error)
                return
            async with contextlib.aclosing(watch(request, context)) as messages:
                async for message in messages:
                    yield message

        return behaviour

    def _exchanging(self, exchange: Callable[[Any, Context], Any]) -> Any:
        async def behaviour(requests: object, context: Context) -> AsyncIterator[Any]:
            try:
                async with contextlib.aclosing(exchange(self._each(context), context)) as messages:
                    async for message in messages:
                        yield message
            except ServiceError as error:
                await abort(context, error)

        return behaviour

    async def _each(self, context: Context) -> AsyncIterator[Any]:
        while (message := await self._next(context)) is not grpc.aio.EOF:
            yield message

    async def _only(self, context: Context) -> Any:
        """Returns the message of a request that has one.

        Raises:
            ServiceError: DEADLINE, INVALID.
        """
        message = await self._next(context)
        if message is grpc.aio.EOF:
            raise invalid("the request has no message")
        return message

    async def _next(self, context: Context) -> Any:
        """Returns the next message; EOF where there is none.

        Raises:
            ServiceError: DEADLINE.
        """
        reading = asyncio.current_task()
        if reading is None:
            raise RuntimeError("gRPC runs each call in a task")
        self._late.add(reading, asyncio.get_running_loop().time() + self._seconds)
        try:
            return await context.read()
        except asyncio.CancelledError:
            if reading in self._late:  # the client left, or the server stops
                raise
            reading.uncancel()
            raise ServiceError(Kind.DEADLINE, "a message did not come in time") from None
        finally:
            self._late.discard(reading)
