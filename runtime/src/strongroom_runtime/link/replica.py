"""One replica of a service as its callers see it: a channel, the stream of frames on it, and what is open there."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from strongroom.link.v1 import link_pb2, link_pb2_grpc
from strongroom_runtime.link.direct import CallFrames, parted
from strongroom_runtime.link.direct import connect as connect_beside
from strongroom_runtime.link.messages import (
    AS_MEMBER,
    BEGUN,
    NotBegunError,
    error_from_status,
    error_from_wire,
    unavailable,
)
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.tasks import end, ended
from strongroom_runtime.transport.credentials import Connector

log = logging.getLogger(__name__)

_LAST_REPLIES_SECONDS = 2.0
_REACH_SECONDS = 5.0
_RECONNECT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
_REFUSED_FAILURES = 2  # no longer than so many make it


class Pending:
    """A call that waits for its reply."""

    __slots__ = ("call", "direct", "future")

    def __init__(self, call: link_pb2.Call, future: "asyncio.Future[bytes]") -> None:
        self.call = call
        self.future = future
        self.direct = False


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

    def unsent(self) -> set[int]:
        """Returns the ids of the calls that no frame has carried away."""
        return {call.id for call in self._calls}

    async def frames(self) -> AsyncIterator[link_pb2.ExchangeRequest]:
        while True:
            await self._ready.wait()
            self._ready.clear()
            batch, self._calls = self._calls, []
            for calls in parted(batch) if batch else ():
                yield link_pb2.ExchangeRequest(calls=calls)
            if self._closed:
                return


class Replica:
    """One replica. Made usable by its first answer, unusable when it drains or its stream breaks.

    Args:
        connect: opens its channel, and the connection beside it.
        address: host:port.
        as_member: it is called for confirmations alone.
    """

    def __init__(self, connect: Connector, address: str, *, as_member: bool = False) -> None:
        self.channel = connect(address)
        self._metadata = AS_MEMBER if as_member else None
        self._shown = connect.texts
        self._address = address
        self._host = address.rpartition(":")[0].strip("[]")
        self._connect = connect
        self._direct: CallFrames | None = None
        self._joining: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self._finishing = False
        self.open: dict[int, Pending] = {}
        self.usable = False
        self._streams = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._outbox = _Outbox()
        self._retired = False
        self._linking = Repeated(f"the link to {connect.name} at {address}")
        self._task = asyncio.create_task(self._maintain())

    @property
    def load(self) -> int:
        """How many calls and streams are open."""
        return len(self.open) + self._streams

    def send(self, pending: Pending) -> None:
        """Sends a call; its future gets the reply."""
        self.open[pending.call.id] = pending
        if self._direct is not None:
            pending.direct = True
            self._direct.put(pending.call)
        else:
            self._outbox.put(pending.call)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """Counts a stream of its own for as long as it lasts."""
        self._streams += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams:
                self._idle.set()

    async def retire(self) -> None:
        """Sends nothing more; returns once all that is open was answered, or the connection broke."""
        self._retired = True
        self._finish()
        if not self.channel_open():
            self._task.cancel()
        await ended(self._task)
        await self._idle.wait()
        await self.channel.close()

    def channel_open(self) -> bool:
        """Whether there is a connection now."""
        return self.channel.get_state() is grpc.ChannelConnectivity.READY

    async def close(self) -> None:
        """Ends everything at once; what is open fails."""
        # A stream that breaks at the moment of the cancellation may swallow it, and tell only that it broke.
        self._retired = True
        await end(self._task)
        await self.channel.close()

    async def _maintain(self) -> None:
        """Keeps a stream open, with back-off, until closed."""
        failures = 0
        while not self._retired:
            try:
                await self._renew()
                if await self._reached():
                    await self._stream()
                    failures = 0
            except grpc.aio.AioRpcError as error:
                if isinstance(error_from_status(error), NotBegunError):
                    # It will take calls before long, or is gone.
                    failures = min(failures, _REFUSED_FAILURES)
                else:
                    self._linking.failed(error)
            except asyncio.CancelledError as error:
                # gRPC says so of a stream as well that it gave up by itself, such as one whose end could not be sent.
                if _is_cancelled():
                    raise
                self._linking.failed(error)
            except Exception as error:
                # A bug, here or in gRPC. Without this loop the replica would never be called again.
                self._linking.failed(error)
            finally:
                self._fail_all()
            await asyncio.sleep(_RECONNECT_SECONDS[min(failures, len(_RECONNECT_SECONDS) - 1)])
            failures += 1

    async def _renew(self) -> None:
        """Takes another channel once its certificate was renewed: one that is open never shows the new one."""
        shown = self._connect.texts
        if shown == self._shown or self._streams:
            return  # where streams go on, the channel is connected, and its certificate is not asked for
        before, self._shown = self.channel, shown
        self.channel = self._connect(self._address)
        await before.close()

    async def _reached(self) -> bool:
        """Returns once there is a connection, or a renewed certificate to try it with; True for the former.

        Says where that takes long, since gRPC does not say why.
        """
        reaching = asyncio.ensure_future(self.channel.channel_ready())
        warned = False
        try:
            while not reaching.done() and self._shown == self._connect.texts:
                await asyncio.wait([reaching], timeout=_REACH_SECONDS)
                if not reaching.done() and not warned:
                    warned = True
                    log.warning(
                        "nobody with the right certificate answers",
                        extra={"address": self._address, "expected": self._connect.name},
                    )
            if not reaching.done():
                return False
            await reaching
            return True
        finally:
            reaching.cancel()

    async def _stream(self) -> None:
        self._outbox = _Outbox()
        self._finishing = False
        link = link_pb2_grpc.LinkServiceStub(self.channel)
        stream = link.Exchange(self._outbox.frames(), metadata=self._metadata)
        try:
            await self._follow(stream)
        finally:
            self._outbox.close()  # or gRPC would wait for frames for ever

    async def _follow(self, stream: Any) -> None:
        # Only a replica that takes calls says so: one that drains refuses the stream.
        self.usable = BEGUN[0] in tuple(await stream.initial_metadata()) and not self._retired
        if self.usable:
            self._linking.goes_well()
        if self._retired:
            self._finish()
        async for frame in stream:
            if frame.draining:
                self._finish()
            if frame.HasField("direct"):
                self._joining = asyncio.create_task(self._join(frame.direct))
            self._take(frame)
        if self._direct is not None:
            # The other side ends both together; what it answered may still be on its way.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._left.wait(), _LAST_REPLIES_SECONDS)

    def _finish(self) -> None:
        """Sends no more calls, and ends this side of the stream once the other side has all that were sent.

        Those under way are answered before the other side ends the stream.
        """
        self.usable, self._finishing = False, True
        if self._direct is None or not self.open:
            self._outbox.close()

    async def _join(self, direct: link_pb2.Direct) -> None:
        """Connects beside the stream. Until that is done, and where it cannot be, calls go in the stream."""
        try:
            self._direct = await connect_beside(
                self._host,
                direct,
                self._connect,
                lambda data: self._take(link_pb2.ExchangeResponse.FromString(data)),
                self._leave,
            )
            self._left.clear()
        except OSError as error:
            log.warning("a direct connection failed", extra={"error": type(error).__name__})

    def _take(self, frame: link_pb2.ExchangeResponse) -> None:
        for reply in frame.replies:
            pending = self.open.pop(reply.id, None)
            if pending is not None and not pending.future.done():
                _settle(pending.future, reply)
        if self._finishing and not self.open:
            self._outbox.close()

    def _leave(self) -> None:
        """Ends the calls of a direct connection that is gone; those to come go over the stream."""
        direct, self._direct = self._direct, None
        self._left.set()
        unsent = {call.id for call in direct.unsent()} if direct is not None else set()
        for number, pending in self.open.items():
            if pending.direct and not pending.future.done():
                pending.future.set_exception(NotBegunError() if number in unsent else unavailable())

    def _fail_all(self) -> None:
        """Ends every call of a broken stream: of those that were sent it is not known whether they ran."""
        self.usable = False
        if self._joining is not None:
            self._joining.cancel()
        unsent = self._outbox.unsent()
        if self._direct is not None:
            unsent |= {call.id for call in self._direct.unsent()}
            self._direct.close()
            self._direct = None
        waiting, self.open = self.open, {}
        for number, pending in waiting.items():
            if not pending.future.done():
                pending.future.set_exception(NotBegunError() if number in unsent else unavailable())


def _is_cancelled() -> bool:
    """Returns whether somebody wants the task to end that asks."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _settle(future: "asyncio.Future[bytes]", reply: link_pb2.Reply) -> None:
    if reply.HasField("error"):
        future.set_exception(error_from_wire(reply.error))
    else:
        future.set_result(reply.response)
