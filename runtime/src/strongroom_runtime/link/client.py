"""The calling end of the link: load over replicas, calls that are ready together in one frame."""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom.link.v1 import link_pb2, link_pb2_grpc
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link.messages import (
    CONTEXT_KEY,
    context_to_wire,
    error_from_status,
    error_from_wire,
)

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)


class _Pending:
    """A call that waits for its reply."""

    __slots__ = ("call", "future")

    def __init__(self, call: link_pb2.Call, future: "asyncio.Future[bytes]") -> None:
        self.call = call
        self.future = future


class _Outbox:
    """Calls on their way to one stream. Each stream has its own, so that a broken one takes none along."""

    def __init__(self) -> None:
        self._calls: list[link_pb2.Call] = []
        self._ready = asyncio.Event()
        self._closed = False

    def put(self, call: link_pb2.Call) -> None:
        self._calls.append(call)
        self._ready.set()

    def close(self) -> None:
        """Ends this side of the stream, once what is in it was sent."""
        self._closed = True
        self._ready.set()

    async def frames(self) -> AsyncIterator[link_pb2.ExchangeRequest]:
        while True:
            await self._ready.wait()
            self._ready.clear()
            batch, self._calls = self._calls, []
            if batch:
                yield link_pb2.ExchangeRequest(calls=batch)
            if self._closed:
                return


class _Replica:
    """One replica: a channel, its stream, and the calls that wait on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._outbox = _Outbox()
        self.open: dict[int, _Pending] = {}
        self.usable = False
        self._task = asyncio.create_task(self._maintain())

    def send(self, pending: _Pending) -> None:
        self.open[pending.call.id] = pending
        self._outbox.put(pending.call)

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.channel.close()

    async def _maintain(self) -> None:
        """Keeps a stream open, with back-off, until closed."""
        failures = 0
        while True:
            try:
                await self.channel.channel_ready()
                failures = 0
                await self._stream()
            except grpc.aio.AioRpcError as error:
                log.info("link broke", extra={"code": error.code().name})
            finally:
                self._fail_all()
            await asyncio.sleep(_RECONNECT_SECONDS[min(failures, len(_RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _stream(self) -> None:
        self._outbox = _Outbox()
        stream = link_pb2_grpc.LinkServiceStub(self.channel).Exchange(self._outbox.frames())
        self.usable = True
        async for frame in stream:
            if frame.draining:
                # No more calls go there; those under way are answered before the other side ends the stream.
                self.usable = False
                self._outbox.close()
            for reply in frame.replies:
                pending = self.open.pop(reply.id, None)
                if pending is not None and not pending.future.done():
                    _settle(pending.future, reply)

    def _fail_all(self) -> None:
        """Ends every call of a broken stream: whether the other side ran it is not known."""
        self.usable = False
        waiting, self.open = list(self.open.values()), {}
        for pending in waiting:
            if not pending.future.done():
                pending.future.set_exception(_unavailable())


class RemoteCaller:
    """Calls a service over the network: the replica with the fewest open calls gets the next.

    Args:
        connect: opens a channel (with mutual TLS) to an address.
        addresses: host:port of each replica.
        methods: full gRPC name -> response class; see `response_classes`.
        wait_seconds: how long a call waits for a usable replica before it is refused.
    """

    def __init__(
        self,
        connect: Callable[[str], grpc.aio.Channel],
        addresses: Sequence[str],
        methods: dict[str, type[Message]],
        clock: Clock | None = None,
        wait_seconds: float = 2.0,
    ) -> None:
        self._methods = methods
        self._clock = clock or SystemClock()
        self._wait = wait_seconds
        self._ids = itertools.count(1)
        self._replicas = [_Replica(connect(address)) for address in addresses]

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        """Sends a call and returns the response message.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE where no replica is usable or the
                stream broke before the reply (the call may have run); DEADLINE.
        """
        remaining = context.deadline - self._clock.monotonic() if context.deadline else 0.0
        if remaining < 0:
            raise ServiceError(Kind.DEADLINE, "the deadline passed")
        call = link_pb2.Call(
            id=next(self._ids),
            method=method,
            request=request.SerializeToString(),
            context=context_to_wire(context),
            timeout_microseconds=int(remaining * 1e6),
        )
        replica = await self._choose()
        loop = asyncio.get_running_loop()
        pending = _Pending(call, loop.create_future())
        replica.send(pending)
        timer = loop.call_later(remaining, _expire, pending.future) if remaining else None
        try:
            response = await pending.future
        finally:
            if timer is not None:
                timer.cancel()
            replica.open.pop(call.id, None)
        return self._methods[method].FromString(response)

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a server-streaming method, which runs beside the frames.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE.
        """
        replica = await self._choose()
        start = replica.channel.unary_stream(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=self._methods[method].FromString,
        )
        wire = context_to_wire(context).SerializeToString()
        call = start(request, metadata=((CONTEXT_KEY, wire),))
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise error_from_status(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes every stream; calls under way fail."""
        for replica in self._replicas:
            await replica.close()

    async def _choose(self) -> _Replica:
        give_up = self._clock.monotonic() + self._wait
        while True:
            usable = [r for r in self._replicas if r.usable]
            if usable:
                return min(usable, key=lambda r: len(r.open))
            if self._clock.monotonic() >= give_up:
                raise _unavailable()
            await asyncio.sleep(0.02)


def response_classes(*services: Any) -> dict[str, type[Message]]:
    """Returns the response class of every method of the service descriptors given, by full gRPC name."""
    return {
        f"/{service.full_name}/{rpc.name}": GetMessageClass(rpc.output_type)
        for service in services
        for rpc in service.methods
    }


def _settle(future: "asyncio.Future[bytes]", reply: link_pb2.Reply) -> None:
    if reply.HasField("error"):
        future.set_exception(error_from_wire(reply.error))
    else:
        future.set_result(reply.response)


def _expire(future: "asyncio.Future[bytes]") -> None:
    if not future.done():
        future.set_exception(ServiceError(Kind.DEADLINE, "the deadline passed"))


def _unavailable() -> ServiceError:
    return ServiceError(Kind.UNAVAILABLE, "the service cannot be reached")
