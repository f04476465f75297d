"""Spans around the handlers of a process, when anybody wants them."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from google.protobuf.message import Message

from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import StreamCaller
from strongroom_runtime.telemetry import Telemetry


class TracedCaller:
    """Runs each call in a span of the service that answers it. A stream, which may last for days, has none.

    Args:
        caller: runs the handlers.
        telemetry: of the service.
    """

    def __init__(self, caller: StreamCaller, telemetry: Telemetry) -> None:
        self._caller = caller
        self._telemetry = telemetry

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message."""
        with self._telemetry.span(method.removeprefix("/"), context.traceparent) as traceparent:
            inner = msgspec.structs.replace(context, traceparent=traceparent)
            return await self._caller.call(method, request, inner)

    def stream(self, method: str, request: Message, context: RequestContext) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream."""
        return self._caller.stream(method, request, context)

    def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream both ways."""
        return self._caller.duplex(method, requests, context)


def traced(caller: StreamCaller, telemetry: Telemetry) -> StreamCaller:
    """Returns a caller with spans, or the caller itself where nobody wants them."""
    return TracedCaller(caller, telemetry) if telemetry.enabled else caller
