"""Calls of gRPC as they go over a connection (gRPC's documentation, "gRPC over HTTP2")."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import unquote

import grpc

MAX_MESSAGE = 64 << 20
_PREFIX = 5
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HELD_BYTES = 4 << 20  # of messages that nobody has read yet, before the other side is held up


class Sender(Protocol):
    """What a call needs of its connection."""

    def send(self, call: "Call", data: bytes, *, end: bool) -> None:
        """Sends what the windows allow, and the rest later."""
        ...

    def credit(self, call: "Call", size: int) -> None:
        """Lets the other side send so many bytes more."""
        ...

    def cancel(self, call: "Call") -> None:
        """Ends a call before its time."""
        ...


class Call:
    """One stream of HTTP/2.

    Args:
        block: its headers.

    Attributes:
        stream: its number; 0 before it has one.
        window: how many bytes the other side takes yet.
        unsent: what waits for the windows.
        ending: nothing is sent behind that.
        unprocessed: the other side has not begun with it, and it can be made again.
    """

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.stream = 0
        self.window = 0
        self.unsent: bytes | memoryview = b""
        self.ending = False
        self.unprocessed = False
        self.sender: Sender | None = None
        self._buffer = bytearray()
        self._answered = False

    def headers(self, headers: dict[str, str], *, end: bool) -> None:
        """Takes the headers of the answer, or what follows it."""
        if not self._answered:
            self._answered = True
            if headers.get(":status") != "200":
                text = f"HTTP status {headers.get(':status', '?')[:3]}"
                self.fail(grpc.StatusCode.UNAVAILABLE, text)
                return
        if not end:
            return
        number = headers.get("grpc-status", "")
        code = _CODES.get(int(number)) if number.isascii() and number.isdigit() else None
        details = unquote(headers.get("grpc-message", ""))
        if code is grpc.StatusCode.OK and self._buffer:
            code, details = grpc.StatusCode.INTERNAL, "a message was cut off"
        self.finish(code or grpc.StatusCode.UNKNOWN, details)

    def data(self, data: bytes, size: int) -> None:
        """Takes a part of the answer, which took so many bytes of the window."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _PREFIX:
            length = int.from_bytes(buffer[1:_PREFIX], "big")
            if buffer[0] or length > MAX_MESSAGE:
                self.fail(grpc.StatusCode.INTERNAL, "a message is compressed or too long")
                return
            end = _PREFIX + length
            if len(buffer) < end:
                break
            self.message(bytes(buffer[_PREFIX:end]))
            del buffer[:end]
        self.took(size)

    def took(self, size: int) -> None:
        """Gives back what was taken of the window."""
        if self.sender is not None:
            self.sender.credit(self, size)

    def fail(self, code: grpc.StatusCode, details: str) -> None:
        """Ends it from this side."""
        if self.sender is not None:
            self.sender.cancel(self)
        self.finish(code, details)

    def abandon(self) -> None:
        """Ends it because nobody waits for it any more."""
        self.fail(grpc.StatusCode.CANCELLED, "ended from here")

    def message(self, message: bytes) -> None:
        """Takes a message."""
        raise NotImplementedError

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """Takes what became of the call. Nothing comes behind it."""
        raise NotImplementedError


class UnaryCall(Call):
    """One message out and one back.

    Args:
        block: its headers.
        future: gets the message, or a grpc.aio.AioRpcError.
    """

    def __init__(self, block: bytes, future: "asyncio.Future[bytes]") -> None:
        super().__init__(block)
        self.future = future
        self._message: bytes | None = None

    def expire(self) -> None:
        """Ends it because its time is over."""
        self.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")

    def message(self, message: bytes) -> None:
        """Takes the answer."""
        self._message = message

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """Gives the answer to who waits for it."""
        if self.future.done():
            return
        if code is grpc.StatusCode.OK and self._message is not None:
            self.future.set_result(self._message)
        elif code is grpc.StatusCode.OK:
            self.future.set_exception(error_of(grpc.StatusCode.INTERNAL, "no answer came"))
        else:
            self.future.set_exception(error_of(code, details))


class StreamCall(Call):
    """Messages both ways.

    Args:
        block: its headers.
    """

    def __init__(self, block: bytes) -> None:
        super().__init__(block)
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._owed = 0
        self._waiting: asyncio.Future[None] | None = None
        self.error: grpc.aio.AioRpcError | None = None
        self.finished = False

    async def read(self) -> bytes | None:
        """Returns the next message; None behind the last one.

        Raises:
            grpc.aio.AioRpcError: it ended otherwise than well.
        """
        while not self._messages:
            if self.error is not None:
                raise self.error
            if self.finished:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        message = self._messages.popleft()
        self._held -= len(message)
        self.took(0)
        return message

    def message(self, message: bytes) -> None:
        """Takes a message."""
        self._messages.append(message)
        self._held += len(message)
        self._wake()

    def took(self, size: int) -> None:
        """Gives back what was taken of the window, unless too much waits to be read."""
        self._owed += size
        if self._owed and self._held < _HELD_BYTES:
            owed, self._owed = self._owed, 0
            super().took(owed)

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """Tells who reads, behind what has come."""
        if self.finished:
            return
        self.finished = True
        if code is not grpc.StatusCode.OK:
            self.error = error_of(code, details)
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def framed(message: bytes) -> bytes:
    """Returns a message as it stands in DATA."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def error_of(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """Returns the error that grpc.aio would raise."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]
