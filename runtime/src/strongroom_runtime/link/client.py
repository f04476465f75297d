"""The calling end of the link: load over replicas, calls that are ready together in one frame."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from strongroom.link.v1 import link_pb2
from strongroom_runtime.clock import Clock, SystemClock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link.deadlines import Deadlines
from strongroom_runtime.link.direct import MAX_ITEM
from strongroom_runtime.link.messages import (
    BEGUN,
    CONTEXT_KEY,
    NotBegunError,
    context_to_wire,
    error_from_status,
    unavailable,
)
from strongroom_runtime.link.replica import Pending, Replica
from strongroom_runtime.transport.credentials import Connector

_ATTEMPTS = 3
_LARGE = MAX_ITEM // 4  # what goes with a request, as its path, is part of it or small


class RemoteCaller:
    """Calls a service over the network: the replica with the fewest open calls and streams gets the next.

    Replicas may come and go (`use`). A call is sent again only where it certainly never reached a replica.

    Args:
        connect: opens channels, and connections beside them.
        addresses: host:port of the replicas that stay.
        methods: full gRPC name -> response class; see `response_classes`.
        wait_seconds: how long a call waits for a usable replica before it is refused.
        as_member: for confirmations alone.
    """

    def __init__(
        self,
        connect: Connector,
        addresses: Iterable[str],
        methods: dict[str, type[Message]],
        clock: Clock | None = None,
        wait_seconds: float = 2.0,
        *,
        as_member: bool = False,
    ) -> None:
        self._connect = connect
        self._as_member = as_member
        self._methods = methods
        self._clock = clock or SystemClock()
        self._loop = asyncio.get_running_loop()  # to ask for it takes a system call in Python 3.11
        self._wait = wait_seconds
        self._ids = itertools.count(1)
        self._configured = frozenset(addresses)
        self._replicas: dict[str, Replica] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._deadlines: Deadlines[asyncio.Future[bytes]] = Deadlines(_expire)
        self.use(())

    def use(self, found: Iterable[str]) -> None:
        """Calls exactly these addresses from now on, beside those that were configured.

        What is open at one that is gone is still answered, as long as it lives.
        """
        wanted = self._configured.union(found)
        for address in wanted - self._replicas.keys():
            self._replicas[address] = Replica(self._connect, address, as_member=self._as_member)
        for address in self._replicas.keys() - wanted:
            task = asyncio.create_task(self._replicas.pop(address).retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    @property
    def usable(self) -> bool:
        """Whether some replica takes calls now."""
        return any(replica.usable for replica in self._replicas.values())

    @property
    def load(self) -> int:
        """How many calls and streams are open at the replica that has the fewest."""
        return min((r.load for r in self._replicas.values() if r.usable), default=0)

    async def call(
        self,
        method: str,
        request: Message,
        context: RequestContext,
        *,
        passing_over: Kind | None = None,
    ) -> Any:
        """Sends a call and returns the response message.

        Args:
            method: full gRPC name.
            request: its message.
            context: travels with it.
            passing_over: an error by which a replica says that it did nothing, so that another is asked.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE where no replica is usable or the
                stream broke before the reply (the call may have run); DEADLINE.
        """
        remaining = self._remaining(context)
        call = self._made(method, request, context, remaining)
        expires = self._loop.time() + remaining if remaining else 0.0
        refused: dict[Replica, ServiceError] = {}
        attempts = _ATTEMPTS
        while attempts:
            replica = await self._choose(refused)
            if replica in refused:
                raise refused.pop(replica)
            try:
                return await self._ask(replica, call, expires)
            except NotBegunError:
                attempts -= 1
            except ServiceError as error:
                if error.kind is not passing_over:
                    raise
                refused[replica] = error.again()  # without the frames that hold `refused`
        raise unavailable()

    async def call_each(
        self, method: str, request: Message, context: RequestContext
    ) -> list[Any | ServiceError]:
        """Sends a call to every replica that is usable; returns what each answers or raises.

        Raises:
            ServiceError: UNAVAILABLE where none is usable; DEADLINE.
        """
        first = await self._choose()
        others = [r for r in self._replicas.values() if r.usable and r is not first]
        remaining = self._remaining(context)
        expires = self._loop.time() + remaining if remaining else 0.0

        async def ask(replica: Replica) -> Any | ServiceError:
            try:
                call = self._made(method, request, context, remaining)
                return await self._ask(replica, call, expires)
            except ServiceError as error:
                return error

        return list(await asyncio.gather(*(ask(replica) for replica in (first, *others))))

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a server-streaming method, which runs beside the frames.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE; DEADLINE.
        """
        replica, call = await self._begin(
            lambda channel: channel.unary_stream(
                method,
                request_serializer=_serialise,
                response_deserializer=self._methods[method].FromString,
            )(request, **self._options(context))
        )
        with replica.streaming():
            async with contextlib.aclosing(_responses(call)) as messages:
                async for message in messages:
                    yield message

    async def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        """Yields the response messages of a method that streams both ways, which runs beside the frames.

        All of it goes to one replica, at the pace at which that takes it.

        Raises:
            ServiceError: as the handler raised it; UNAVAILABLE; DEADLINE.
        """
        replica, call = await self._begin(
            lambda channel: channel.stream_stream(
                method,
                request_serializer=_serialise,
                response_deserializer=self._methods[method].FromString,
            )(**self._options(context))
        )
        with replica.streaming():
            sending = asyncio.create_task(_send(call, requests))
            try:
                async with contextlib.aclosing(_responses(call)) as messages:
                    async for message in messages:
                        yield message
            except (ServiceError, asyncio.CancelledError):
                if sending.done() and not sending.cancelled() and sending.exception() is not None:
                    sending.result()  # what went wrong on this side is what ended the call
                raise
            finally:
                sending.cancel()
                await asyncio.wait({sending})
                # It keeps its error, and the error's traceback this frame: a cycle, with the messages in it.
                del sending

    def _made(
        self, method: str, request: Message, context: RequestContext, remaining: float
    ) -> link_pb2.Call:
        data = request.SerializeToString()
        call = link_pb2.Call(
            id=next(self._ids),
            method=method,
            request=data,
            timeout_microseconds=int(remaining * 1e6),
        )
        context_to_wire(context, call.context)
        if len(data) > _LARGE and call.ByteSize() > MAX_ITEM:
            raise ServiceError(Kind.TOO_LARGE, "the request is too large")
        return call

    async def _ask(self, replica: Replica, call: link_pb2.Call, expires: float) -> Any:
        pending = Pending(call, self._loop.create_future())
        replica.send(pending)
        if expires:
            self._deadlines.add(pending.future, expires)
        try:
            return self._methods[call.method].FromString(await pending.future)
        finally:
            self._deadlines.discard(pending.future)
            replica.open.pop(call.id, None)
            # Its future keeps an error, and the error's traceback this frame: a cycle, with the request in it.
            del pending

    async def close(self) -> None:
        """Closes every stream; calls under way fail."""
        self._deadlines.close()
        for replica in self._replicas.values():
            await replica.close()
        for task in list(self._retiring):
            task.cancel()

    def _remaining(self, context: RequestContext) -> float:
        """Returns the seconds until the deadline; 0 for no limit."""
        if not context.deadline:
            return 0.0
        remaining = context.deadline - self._clock.monotonic()
        if remaining <= 0:
            raise ServiceError(Kind.DEADLINE, "the deadline passed")
        return remaining

    def _options(self, context: RequestContext) -> dict[str, Any]:
        wire = link_pb2.RequestContext()
        context_to_wire(context, wire)
        return {
            "metadata": ((CONTEXT_KEY, wire.SerializeToString()),),
            "timeout": self._remaining(context) or None,
        }

    async def _begin(self, start: Callable[[grpc.aio.Channel], Any]) -> tuple[Replica, Any]:
        """Starts a stream at a replica that takes it, which says so before anything is sent."""
        refused: set[Replica] = set()
        for _ in range(_ATTEMPTS):
            replica = await self._choose(refused)
            call = start(replica.channel)
            try:
                if BEGUN[0] in tuple(await call.initial_metadata()):
                    return replica, call
                await call.read()
            except grpc.aio.AioRpcError as failure:
                if not isinstance(error_from_status(failure), NotBegunError):
                    raise error_from_status(failure) from failure
            except asyncio.CancelledError:
                call.cancel()
                raise
            refused.add(replica)
        raise unavailable()

    async def _choose(self, refused: Collection[Replica] = ()) -> Replica:
        """Returns the replica with the least to do; one that has refused only where there is no other."""
        give_up = self._clock.monotonic() + self._wait
        while True:
            usable = [r for r in self._replicas.values() if r.usable]
            if len(usable) == 1:
                return usable[0]
            if usable:
                return min(usable, key=lambda r: (r in refused, r.load))
            if self._clock.monotonic() >= give_up:
                raise unavailable()
            await asyncio.sleep(0.02)


async def _responses(call: Any) -> AsyncGenerator[Any]:
    """Yields what a streaming call answers; the call ends with it."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise error_from_status(error) from error
    finally:
        call.cancel()


async def _send(call: Any, requests: AsyncIterator[Message]) -> None:
    """Sends requests at the pace at which the other side takes them; what they raise ends the call."""
    # Not by `call.write`: where the other side ends the call at that moment, it puts an error of its own in the place
    # of the status, which is lost then (grpcio 1.85). The call has begun, so that there is no metadata to wait for.
    send = call._cython_call.send_serialized_message
    try:
        async for request in requests:
            if call.done():
                return
            await send(_serialise(request))
        await call.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.InternalError):
        pass  # the call ended: whoever reads it learns why
    except BaseException:
        call.cancel()
        raise


def _serialise(message: Message) -> bytes:
    return message.SerializeToString()


def response_classes(*services: Any) -> dict[str, type[Message]]:
    """Returns the response class of every method of the service descriptors given, by full gRPC name."""
    return {
        f"/{service.full_name}/{rpc.name}": GetMessageClass(rpc.output_type)
        for service in services
        for rpc in service.methods
    }


def _expire(future: "asyncio.Future[bytes]") -> None:
    if not future.done():
        future.set_exception(ServiceError(Kind.DEADLINE, "the deadline passed"))
