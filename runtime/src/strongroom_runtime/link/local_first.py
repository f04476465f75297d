"""A service that runs in this process and, with more replicas, in others."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any

from google.protobuf.message import Message

from strongroom_runtime.context import RequestContext
from strongroom_runtime.handlers import StreamCaller
from strongroom_runtime.link.client import RemoteCaller

# A call of its own costs more on its way to another process than most take to be answered here.
_LOCAL_CALLS = 8
# Batches are worth the way, as long as they do not wait there.
_REMOTE_BATCHES = 2


class LocalFirst:
    """Spreads calls over this process and other replicas, by what the way there costs; see `docs/decisions/0017`.

    Calls stay here unless many wait here, batches of streams go to replicas unless many wait there, other streams to
    whoever has fewer.

    Args:
        local: answers here.
        remote: answers elsewhere, if anything does.
        batches: full gRPC names of the methods whose calls are batches.
    """

    def __init__(
        self, local: StreamCaller, remote: RemoteCaller, batches: Collection[str] = ()
    ) -> None:
        self._local = local
        self._remote = remote
        self._batches = frozenset(batches)
        self._open = 0

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message."""
        if self._elsewhere(method in self._batches):
            return await self._remote.call(method, request, context)
        self._open += 1
        try:
            return await self._local.call(method, request, context)
        finally:
            self._open -= 1

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream, which stays here."""
        async for message in self._local.stream(method, request, context):
            yield message

    async def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream both ways."""
        if self._remote.usable and self._remote.load < self._open:
            async for message in self._remote.duplex(method, requests, context):
                yield message
            return
        self._open += 1
        try:
            async for message in self._local.duplex(method, requests, context):
                yield message
        finally:
            self._open -= 1

    def _elsewhere(self, batch: bool) -> bool:
        if batch:
            return self._remote.usable and self._remote.load < _REMOTE_BATCHES
        many = self._open >= _LOCAL_CALLS  # seldom, so that the rest is seldom asked
        return many and self._remote.usable and self._remote.load < self._open
