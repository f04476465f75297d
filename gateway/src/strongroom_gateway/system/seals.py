"""Several seals as one: shares go to all of them, and what one can do, one that is open does.

Each seal process gathers shares in its own memory, as each node of Vault does; nothing of them is stored. A share
that is given to any gateway reaches every seal there is, so it counts wherever the others were given. See
`docs/decisions/0026-shares-reach-every-seal.md`.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from google.protobuf.message import Message

from strongroom.seal.v1 import seal_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import StreamCaller

_TO_ALL = (
    "/strongroom.seal.v1.SealService/Unseal",
    "/strongroom.seal.v1.SealService/ReadSealStatus",
)


class Replicated(StreamCaller, Protocol):
    """A service with replicas; `link.client.RemoteCaller`."""

    async def call(
        self,
        method: str,
        request: Message,
        context: RequestContext,
        *,
        passing_over: Kind | None = None,
    ) -> Any:
        """Calls one replica, or another where it says that it did nothing."""
        ...

    async def call_each(
        self, method: str, request: Message, context: RequestContext
    ) -> list[Any | ServiceError]:
        """Calls every replica."""
        ...


class Seals:
    """Calls the seals of other processes.

    Args:
        replicas: the seals.
    """

    def __init__(self, replicas: Replicated) -> None:
        self._replicas = replicas

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message; of several, that of the seal which is open or has come furthest."""
        if method not in _TO_ALL:
            return await self._replicas.call(method, request, context, passing_over=Kind.SEALED)
        answers = await self._replicas.call_each(method, request, context)
        good = [each for each in answers if not isinstance(each, ServiceError)]
        if not good:
            # Not itself: its traceback would have this frame, and with that the answers.
            raise next(each for each in answers if isinstance(each, ServiceError)).again()
        return max(good, key=lambda each: _progress(each.status))

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream."""
        async for message in self._replicas.stream(method, request, context):
            yield message

    async def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a stream both ways."""
        async for message in self._replicas.duplex(method, requests, context):
            yield message


def _progress(status: seal_pb2.SealStatus) -> tuple[bool, int]:
    return not status.sealed, status.progress
