"""A service that others stand in front of."""

from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

from google.protobuf.message import Message

from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import StreamCaller


class Forwarding:
    """Passes everything on. What stands in front of a service answers some methods itself.

    Args:
        service: who answers.
    """

    def __init__(self, service: StreamCaller) -> None:
        self._service = service

    def call(self, method: str, request: Any, context: RequestContext) -> Coroutine[Any, Any, Any]:
        """Returns the response message."""
        return self._service.call(method, request, context)

    def stream(self, method: str, request: Message, context: RequestContext) -> AsyncGenerator[Any]:
        """Yields the response messages."""
        return self._service.stream(method, request, context)

    def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages."""
        return self._service.duplex(method, requests, context)
