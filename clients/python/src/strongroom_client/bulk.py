"""Items by the million, over the streams of TransitStreamService.

What a stream has not answered when it breaks goes over the next one: encrypting, rewrapping and signing anew does no
harm. Every item gets one result, in the order of the items. Memory holds a few batches, however many items there are.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any

import grpc

from strongroom.transit.v1 import stream_pb2 as pb
from strongroom.transit.v1 import stream_pb2_grpc

BATCH_ITEMS, BATCH_BYTES = 1_000, 2 << 20
_UNDER_WAY = 8  # batches that are sent and not answered
_READY = 2  # batches that are made and not sent
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0

Items = Iterable[Any] | AsyncIterable[Any]
_Batch = list[Any]


class BulkTransit:
    """The keys of one mount, for many items.

    An item is a message of the contract (EncryptStreamItem and so on), which may have a context, associated data and
    a reference, or just its plaintext, ciphertext or input. A result has `error` where something is wrong with its
    item alone. Where something is wrong with all, grpc.aio.AioRpcError is raised.

    Args:
        channel: to the gateway.
        token: gives the token whenever a stream begins.
        mount: the path of the mount.
        patience_seconds: for how long streams that break are begun again without one answer in between.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        token: Callable[[], str],
        mount: str = "transit",
        *,
        patience_seconds: float = 60.0,
    ) -> None:
        self._streams = stream_pb2_grpc.TransitStreamServiceStub(channel)
        self._token = token
        self._mount = mount
        self._patience = patience_seconds

    def encrypt(
        self, name: str, plaintexts: Items, *, key_version: int = 0
    ) -> AsyncIterator[pb.EncryptStreamResult]:
        """Yields the ciphertexts, made with a version or (0) the newest."""
        head = pb.EncryptStreamRequest(mount=self._mount, name=name, key_version=key_version)
        item = _maker(pb.EncryptStreamItem, "plaintext")
        return self._exchange(self._streams.EncryptStream, head, plaintexts, item)

    def decrypt(self, name: str, ciphertexts: Items) -> AsyncIterator[pb.DecryptStreamResult]:
        """Yields the plaintexts."""
        head = pb.DecryptStreamRequest(mount=self._mount, name=name)
        item = _maker(pb.DecryptStreamItem, "ciphertext")
        return self._exchange(self._streams.DecryptStream, head, ciphertexts, item)

    def rewrap(
        self, name: str, ciphertexts: Items, *, key_version: int = 0
    ) -> AsyncIterator[pb.EncryptStreamResult]:
        """Yields the ciphertexts anew, made with a version or (0) the newest."""
        head = pb.RewrapStreamRequest(mount=self._mount, name=name, key_version=key_version)
        item = _maker(pb.DecryptStreamItem, "ciphertext")
        return self._exchange(self._streams.RewrapStream, head, ciphertexts, item)

    def sign(
        self, name: str, inputs: Items, *, key_version: int = 0, **scheme: Any
    ) -> AsyncIterator[pb.SignStreamResult]:
        """Yields signatures; `scheme` has the other fields of SignStreamRequest."""
        head = pb.SignStreamRequest(mount=self._mount, name=name, key_version=key_version, **scheme)
        item = _maker(pb.SignStreamItem, "input")
        return self._exchange(self._streams.SignStream, head, inputs, item)

    def hmac(
        self, name: str, inputs: Items, *, key_version: int = 0, algorithm: str = ""
    ) -> AsyncIterator[pb.HmacStreamResult]:
        """Yields HMACs."""
        head = pb.HmacStreamRequest(
            mount=self._mount, name=name, key_version=key_version, algorithm=algorithm
        )
        item = _maker(pb.HmacStreamItem, "input")
        return self._exchange(self._streams.HmacStream, head, inputs, item)

    async def _exchange(
        self, method: Any, head: Any, items: Items, make: Callable[[Any], Any]
    ) -> AsyncIterator[Any]:
        ready: asyncio.Queue[_Batch | Exception | None] = asyncio.Queue(_READY)
        feeder = asyncio.create_task(_feed(items, make, ready))
        unanswered: deque[_Batch] = deque()
        broken_since, wait = 0.0, _FIRST_WAIT
        try:
            begun = await ready.get()
            if begun is None:
                return
            if isinstance(begun, Exception):
                raise begun
            unanswered.append(begun)
            while True:
                try:
                    stream = self._stream(method, head, ready, unanswered)
                    async with contextlib.aclosing(stream) as answers:
                        async for batch, response in answers:
                            broken_since, wait = 0.0, _FIRST_WAIT
                            if len(response.items) != len(batch):
                                raise ValueError("a batch was answered with results of another")
                            for result in response.items:
                                yield result
                    return
                except grpc.aio.AioRpcError as error:
                    now = time.monotonic()
                    broken_since = broken_since or now
                    if not _passing(error) or now - broken_since >= self._patience:
                        raise
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        finally:
            await _end(feeder)

    async def _stream(
        self, method: Any, head: Any, ready: "asyncio.Queue[Any]", unanswered: deque[_Batch]
    ) -> AsyncGenerator[tuple[_Batch, Any], None]:
        """Yields batches with their answers from one stream, those that an earlier one left unanswered first."""
        call = method(metadata=(("authorization", f"Bearer {self._token()}"),))
        # Until the first answer one batch alone is sent: no write stands in the way of the reason of a refusal.
        room, more = asyncio.Semaphore(1), _UNDER_WAY
        writer = asyncio.create_task(_write(call, head, ready, unanswered, room))
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                batch = unanswered.popleft()
                for _ in range(more):
                    room.release()
                more = 1
                yield batch, response
            await asyncio.wait({writer}, timeout=_LONGEST_WAIT)
            if unanswered or not writer.done():
                raise _too_early()
            await writer  # raises what the items raised
        finally:
            await _end(writer)
            call.cancel()


async def _write(
    call: Any,
    head: Any,
    ready: "asyncio.Queue[Any]",
    unanswered: deque[_Batch],
    room: asyncio.Semaphore,
) -> None:
    request = type(head)()
    request.CopyFrom(head)
    again = deque(unanswered)
    while True:
        await room.acquire()
        if again:
            batch = again.popleft()
        else:
            batch = await ready.get()
            if batch is None or isinstance(batch, Exception):
                ready.put_nowait(batch)  # for the next stream too
                await call.done_writing()
                if batch is not None:
                    raise batch
                return
            unanswered.append(batch)
        request.items.extend(batch)
        await call.write(request)
        request = type(head)()


async def _feed(items: Items, make: Callable[[Any], Any], ready: "asyncio.Queue[Any]") -> None:
    """Makes batches until the items end; what goes wrong with them is told to who takes the batches."""
    batch: _Batch = []
    size = 0
    end: Exception | None = None
    try:
        async for each in _each(items):
            item = make(each)
            length = item.ByteSize() + 8
            if batch and (len(batch) >= BATCH_ITEMS or size + length > BATCH_BYTES):
                await ready.put(batch)
                batch, size = [], 0
            batch.append(item)
            size += length
    except Exception as error:
        end = error
    if batch:
        await ready.put(batch)
    await ready.put(end)


async def _each(items: Items) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _passing(error: grpc.aio.AioRpcError) -> bool:
    """Returns whether a stream broke for a reason that may have gone when the next one begins."""
    if error.code() is grpc.StatusCode.INTERNAL:
        # What grpc.aio says when the stream ended during a write, whatever the other side said; the next one tells.
        return error.details() == "Internal error from Core"
    return error.code() is grpc.StatusCode.UNAVAILABLE


def _too_early() -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the stream ended before all was answered"
    )


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


def _maker(kind: Any, field: str) -> Callable[[Any], Any]:
    return lambda item: item if isinstance(item, kind) else kind(**{field: item})
