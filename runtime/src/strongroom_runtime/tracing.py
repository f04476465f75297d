"""Spans around the handlers of a process, when anybody wants them."""

from typing import Any

import msgspec
from google.protobuf.message import Message

from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import Caller
from strongroom_runtime.telemetry import Telemetry


class TracedCaller:
    """Runs each call in a span of the service that answers it.

    Args:
        caller: runs the handlers.
        telemetry: of the service.
    """

    def __init__(self, caller: Caller, telemetry: Telemetry) -> None:
        self._caller = caller
        self._telemetry = telemetry

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message."""
        with self._telemetry.span(method.removeprefix("/"), context.traceparent) as traceparent:
            inner = msgspec.structs.replace(context, traceparent=traceparent)
            return await self._caller.call(method, request, inner)


def traced(caller: Caller, telemetry: Telemetry) -> Caller:
    """Returns a caller with spans, or the caller itself where nobody wants them."""
    return TracedCaller(caller, telemetry) if telemetry.enabled else caller
