"""The handler table: what a service answers, whoever carries the call.

A handler takes a message of the contract and a `RequestContext` and returns a message. It never knows
whether the call came from the same process or over the link. Streams come in three shapes, see `Shape`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom.options.v1 import options_pb2
from strongroom_runtime.context import RequestContext

UnaryHandler = Callable[[Any, RequestContext], Coroutine[Any, Any, Message]]
StreamHandler = Callable[[Any, RequestContext], AsyncIterator[Message]]
DuplexHandler = Callable[[AsyncIterator[Any], RequestContext], AsyncIterator[Message]]
# Waits until a service has what it needs for a request; raises ServiceError where that takes long.
Ready = Callable[[], Coroutine[Any, Any, None]]


class Shape(Enum):
    """How many messages go each way."""

    UNARY = "one request, one response"
    STREAM = "one request, many responses"
    BATCHES = "many requests, each answered by one response, in order and by itself"
    DUPLEX = "many of both, of which one may depend on those before it"


def shape_of(rpc: MethodDescriptor) -> Shape:
    """Returns the shape of an RPC; the option `route.batches` tells BATCHES from DUPLEX.

    Raises:
        TypeError: it takes a stream and returns one message, which nothing here carries.
    """
    if not rpc.client_streaming:
        return Shape.STREAM if rpc.server_streaming else Shape.UNARY
    if not rpc.server_streaming:
        raise TypeError(f"{rpc.full_name}: a stream of requests needs a stream of responses")
    batches = rpc.GetOptions().Extensions[options_pb2.route].batches
    return Shape.BATCHES if batches else Shape.DUPLEX


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC and what runs it. Exactly one of `unary`, `stream` and `duplex` is set.

    A stream of batches has `unary`, which takes one batch: its batches may go to different replicas.
    """

    name: str  # /strongroom.kv.v1.KvV2Service/ReadSecret
    descriptor: MethodDescriptor
    request: type[Message]
    response: type[Message]
    unary: UnaryHandler | None
    stream: StreamHandler | None
    duplex: DuplexHandler | None


class HandlerTable:
    """The RPCs of one process, by full gRPC name.

    Args:
        ready: what each unary handler waits for, since requests come as soon as the platform is unsealed.
    """

    def __init__(self, ready: Ready | None = None) -> None:
        self._methods: dict[str, Method] = {}
        self._ready = ready

    @property
    def methods(self) -> Mapping[str, Method]:
        """Everything registered."""
        return self._methods

    def add(self, descriptor: ServiceDescriptor, implementation: object) -> None:
        """Registers a service: every RPC of its descriptor needs a method of that name.

        Methods take `(request, context: RequestContext)`; server-streaming ones are async generators, and those
        that stream both ways take an async iterator of requests. For a stream of batches the request is one batch.

        Raises:
            TypeError: an RPC has no method, or is already registered.
        """
        for rpc in descriptor.methods:
            name = f"/{descriptor.full_name}/{rpc.name}"
            function = getattr(implementation, rpc.name, None)
            if function is None or name in self._methods:
                raise TypeError(f"{name} is not implemented exactly once")
            shape = shape_of(rpc)
            unary = function if shape in (Shape.UNARY, Shape.BATCHES) else None
            self._methods[name] = Method(
                name=name,
                descriptor=rpc,
                request=GetMessageClass(rpc.input_type),
                response=GetMessageClass(rpc.output_type),
                unary=_once(self._ready, unary) if unary and self._ready else unary,
                stream=function if shape is Shape.STREAM else None,
                duplex=function if shape is Shape.DUPLEX else None,
            )

    def include(self, other: "HandlerTable") -> None:
        """Registers everything of another table.

        Raises:
            TypeError: something is registered already.
        """
        for name, method in other.methods.items():
            if name in self._methods:
                raise TypeError(f"{name} is not implemented exactly once")
            self._methods[name] = method


def _once(ready: Ready, handler: UnaryHandler) -> UnaryHandler:
    """Returns a handler that waits for its service first."""

    async def waiting(request: Any, context: RequestContext) -> Message:
        await ready()
        return await handler(request, context)

    return waiting


class Caller(Protocol):
    """Calls a method of some service, in this process or over the link."""

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message: to a request, or to one batch of a stream of batches.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE where no replica could be reached.
        """
        ...


class StreamCaller(Caller, Protocol):
    """Calls streams as well."""

    def stream(self, method: str, request: Message, context: RequestContext) -> AsyncGenerator[Any]:
        """Yields the response messages of a server-streaming method.

        Raises:
            ServiceError: as `call` does.
        """
        ...

    def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a method that streams both ways.

        Requests are taken as fast as the handler takes them. What `requests` raises ends the call, and is raised.

        Raises:
            ServiceError: as `call` does.
        """
        ...


class LocalCaller:
    """Calls handlers of the same process: no copy, no socket."""

    def __init__(self, table: HandlerTable) -> None:
        self._methods = table.methods

    def call(
        self, method: str, request: Message, context: RequestContext
    ) -> Coroutine[Any, Any, Any]:
        """Runs the handler and returns its response message."""
        unary = self._methods[method].unary
        if unary is None:
            raise TypeError(f"{method} is a stream")
        return unary(
            request, context
        )  # awaited by the caller: a coroutine around it would cost each call its share

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Runs the handler and yields its response messages."""
        handler = self._methods[method].stream
        if handler is None:
            raise TypeError(f"{method} is no stream")
        async for message in handler(request, context):
            yield message

    async def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Runs the handler and yields its response messages."""
        handler = self._methods[method].duplex
        if handler is None:
            raise TypeError(f"{method} does not stream both ways")
        async for message in handler(requests, context):
            yield message
