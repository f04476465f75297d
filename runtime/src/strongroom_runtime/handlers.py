"""The handler table: what a service answers, whoever carries the call.

A handler takes a message of the contract and a `RequestContext` and returns a message. It never knows
whether the call came from the same process or over the link.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom_runtime.context import RequestContext

UnaryHandler = Callable[[Any, RequestContext], Awaitable[Message]]
StreamHandler = Callable[[Any, RequestContext], AsyncIterator[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC and what runs it. Exactly one of `unary` and `stream` is set."""

    name: str  # /strongroom.kv.v1.KvV2Service/ReadSecret
    descriptor: MethodDescriptor
    request: type[Message]
    response: type[Message]
    unary: UnaryHandler | None
    stream: StreamHandler | None


class HandlerTable:
    """The RPCs of one process, by full gRPC name."""

    def __init__(self) -> None:
        self._methods: dict[str, Method] = {}

    @property
    def methods(self) -> Mapping[str, Method]:
        """Everything registered."""
        return self._methods

    def add(self, descriptor: ServiceDescriptor, implementation: object) -> None:
        """Registers a service: every RPC of its descriptor needs a method of that name.

        Methods take `(request, context: RequestContext)`; server-streaming ones are async generators.

        Raises:
            TypeError: an RPC has no method, or is already registered.
        """
        for rpc in descriptor.methods:
            name = f"/{descriptor.full_name}/{rpc.name}"
            function = getattr(implementation, rpc.name, None)
            if function is None or name in self._methods:
                raise TypeError(f"{name} is not implemented exactly once")
            self._methods[name] = Method(
                name=name,
                descriptor=rpc,
                request=GetMessageClass(rpc.input_type),
                response=GetMessageClass(rpc.output_type),
                unary=None if rpc.server_streaming else function,
                stream=function if rpc.server_streaming else None,
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


class Caller(Protocol):
    """Calls a method of some service, in this process or over the link."""

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Returns the response message.

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


class LocalCaller:
    """Calls handlers of the same process: no copy, no socket."""

    def __init__(self, table: HandlerTable) -> None:
        self._methods = table.methods

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Runs the handler and returns its response message."""
        unary = self._methods[method].unary
        if unary is None:
            raise TypeError(f"{method} is a stream")
        return await unary(request, context)

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Runs the handler and yields its response messages."""
        handler = self._methods[method].stream
        if handler is None:
            raise TypeError(f"{method} is no stream")
        async for message in handler(request, context):
            yield message
