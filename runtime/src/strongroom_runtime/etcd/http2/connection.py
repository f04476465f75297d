"""One connection of HTTP/2, from the client's side."""

import asyncio
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

import grpc

from strongroom_runtime.etcd.http2 import frames
from strongroom_runtime.etcd.http2.calls import Call, UnaryCall
from strongroom_runtime.etcd.http2.frames import Frame, FrameReader, Headers, ProtocolError

log = logging.getLogger(__name__)

# How much may be on its way to us: of one stream, of all.
_STREAM_WINDOW, _WINDOW = 8 << 20, 64 << 20
_MAX_BLOCK = 64 << 10
_LAST_STREAM = (1 << 31) - 1
# A member that hangs is noticed after it was quiet for so long, sooner where an answer is waited for, and does not
# answer a ping. etcd takes a ping each 5 s, and only while there are streams.
_QUIET_SECONDS, _LATE_SECONDS, _PONG_SECONDS, _PING_SECONDS = 5.5, 1.0, 2.0, 5.5

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Connection(asyncio.Protocol):
    """Carries calls. What the other side sends against the protocol ends it, and all its calls.

    Args:
        headers: reads and writes header blocks.
        retired: called once, when it takes no more calls: it is gone, or is going to be.

    Attributes:
        ready: done once the other side has said its settings; has an OSError where the connection went before.
    """

    def __init__(self, headers: Headers, retired: Callable[["Connection"], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._headers = headers
        self._retired: Callable[[Connection], None] | None = retired
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._queued: deque[Call] = deque()  # more than the other side takes at a time
        self._blocked: dict[int, Call] = {}
        self._next = 1
        self._most_calls = _LAST_STREAM
        self._window = frames.DEFAULT_WINDOW
        self._call_window = frames.DEFAULT_WINDOW
        self._frame = frames.DEFAULT_FRAME
        self._taken = 0
        self._owed: dict[int, int] = {}
        self._writable = True
        self._block: tuple[int, int, bytes] | None = None  # headers that go on in further frames
        self._heard = self._loop.time()
        self._pinged = 0.0
        self._watchdog: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether it takes calls."""
        return self._retired is not None

    # Calls

    def start(self, call: Call, data: bytes = b"", *, end: bool = False) -> None:
        """Begins a call; its first data go with its headers."""
        call.sender = self
        call.unsent, call.ending = data, end
        if len(self._calls) >= self._most_calls:
            self._queued.append(call)
        else:
            self._begin(call)

    def send(self, call: Call, data: bytes, *, end: bool) -> None:
        """Sends what the windows allow, and the rest later."""
        call.unsent, call.ending = bytes(call.unsent) + data if call.unsent else data, end
        if call.stream:
            self._write(self._sendable(call))

    def credit(self, call: Call, size: int) -> None:
        """Lets the other side send so many bytes more, in steps that are worth a frame."""
        owed = self._owed.get(call.stream, 0) + size
        if owed >= _STREAM_WINDOW // 4 and call.stream in self._calls:
            self._write(frames.window_update(call.stream, owed))
            owed = 0
        self._owed[call.stream] = owed

    def cancel(self, call: Call) -> None:
        """Ends a call before its time."""
        if self._calls.pop(call.stream, None) is not None:
            code = frames.CANCEL.to_bytes(4, "big")
            self._write(frames.frame(frames.RST_STREAM, 0, call.stream, code))
            self._gone(call)
        elif call in self._queued:
            self._queued.remove(call)

    def close(self) -> None:
        """Ends the connection and what is under way on it."""
        self._retire()
        self._fail_all("the connection was closed")
        if self._transport is not None:
            self._write(frames.goaway(frames.NO_ERROR))
            self._transport.close()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        own = {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
        }
        more = frames.window_update(0, _WINDOW - frames.DEFAULT_WINDOW)
        self._write(frames.PREFACE + frames.settings(own) + more)
        self._watchdog = self._loop.call_later(_LATE_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._heard = self._loop.time()
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except ProtocolError as error:
            if self.ready.done():
                log.warning("etcd broke the protocol", extra={"reason": str(error)})
            else:
                self.ready.set_exception(ConnectionAbortedError(str(error)))
            self._write(frames.goaway(error.code))
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        if self._watchdog is not None:
            self._watchdog.cancel()
        if not self.ready.done():
            # Refused by TLS 1.3, it is told so only after the handshake.
            known = exc if isinstance(exc, ssl.SSLError) else None
            self.ready.set_exception(known or ConnectionResetError("the connection was closed"))
        self._retire()
        self._fail_all("the connection was lost")

    def pause_writing(self) -> None:
        """Called by asyncio while the other side does not keep up."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable = True
        self._unblock()

    # What goes out

    def _begin(self, call: Call) -> None:
        if self._next > _LAST_STREAM:
            call.unprocessed = True
            call.finish(UNAVAILABLE, "the connection has had all its streams")
            return
        call.stream, call.window = self._next, self._call_window
        self._next += 2
        self._calls[call.stream] = call
        flags = frames.END_HEADERS
        if call.ending and not call.unsent:
            flags, call.ending = flags | frames.END_STREAM, False
        head = frames.frame(frames.HEADERS, flags, call.stream, call.block)
        self._write(head + self._sendable(call))
        if self._next > _LAST_STREAM:
            self._retire()

    def _sendable(self, call: Call) -> bytes:
        """Returns what of a call may go out now."""
        parts: list[bytes] = []
        while call.unsent or call.ending:
            size = min(len(call.unsent), self._frame, self._window, call.window)
            if not self._writable or (size <= 0 and call.unsent):
                self._blocked[call.stream] = call
                return b"".join(parts)
            data = call.unsent
            if size < len(data):
                view = memoryview(data)
                data, call.unsent = view[:size], view[size:]
            else:
                call.unsent = b""
            end = call.ending and not call.unsent
            call.ending = call.ending and not end
            self._window -= size
            call.window -= size
            parts.append(
                frames.frame(frames.DATA, frames.END_STREAM if end else 0, call.stream, data)
            )
        self._blocked.pop(call.stream, None)
        return b"".join(parts)

    def _unblock(self) -> None:
        for call in list(self._blocked.values()):
            self._write(self._sendable(call))

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)

    # What comes in

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        if self._block is not None and kind != frames.CONTINUATION:
            raise ProtocolError("headers were interrupted")
        if kind == frames.DATA:
            self._take_data(frame)
        elif kind == frames.HEADERS:
            block = frames.unpadded(frame.flags, frame.payload)
            self._take_headers(frame.stream, frame.flags, frame.flags, block)
        elif kind == frames.CONTINUATION:
            if self._block is None or self._block[0] != frame.stream:
                raise ProtocolError("headers go on that never began")
            _, flags, block = self._block
            self._take_headers(frame.stream, flags, frame.flags, block + frame.payload)
        elif kind == frames.WINDOW_UPDATE:
            self._take_window(frame)
        elif kind == frames.PING:
            if not frame.flags & frames.ACK:
                self._write(frames.frame(frames.PING, frames.ACK, 0, frame.payload))
        elif kind == frames.SETTINGS:
            self._take_settings(frame)
        elif kind == frames.RST_STREAM:
            self._take_reset(frame)
        elif kind == frames.GOAWAY:
            self._take_goaway(frame)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("a push, which was declined")

    def _take_data(self, frame: Frame) -> None:
        size = len(frame.payload)
        # Over all streams it is given back at once; each stream bounds what it holds by itself.
        self._taken += size
        if self._taken >= _WINDOW // 4:
            self._write(frames.window_update(0, self._taken))
            self._taken = 0
        call = self._calls.get(frame.stream)
        if call is None:
            return  # it was ended from here
        padded = frame.flags & frames.PADDED
        call.data(frames.unpadded(padded, frame.payload) if padded else frame.payload, size)
        if frame.flags & frames.END_STREAM and frame.stream in self._calls:
            self._end(call, grpc.StatusCode.INTERNAL, "no status came")

    def _take_headers(self, stream: int, flags: int, last: int, block: bytes) -> None:
        if len(block) > _MAX_BLOCK:
            raise ProtocolError("headers are too long")
        if not last & frames.END_HEADERS:
            self._block = (stream, flags, block)
            return
        self._block = None
        headers = self._headers.read(block)
        call = self._calls.get(stream)
        if call is None:
            return
        end = bool(flags & frames.END_STREAM)
        if end:
            self._calls.pop(stream)
            self._gone(call)
        call.headers(headers, end=end)

    def _take_window(self, frame: Frame) -> None:
        size = frames.number_in(frame.payload)
        if frame.stream == 0:
            self._window += size
            if self._window > frames.MAX_WINDOW:
                raise ProtocolError("a window is too large", frames.FLOW_CONTROL_ERROR)
            self._unblock()
        elif (call := self._calls.get(frame.stream)) is not None:
            call.window += size
            if call.stream in self._blocked:
                self._write(self._sendable(call))

    def _take_settings(self, frame: Frame) -> None:
        if frame.flags & frames.ACK:
            return
        for key, value in frames.settings_in(frame.payload):
            if key == frames.MAX_CONCURRENT_STREAMS:
                self._most_calls = value
            elif key == frames.MAX_FRAME_SIZE:
                if value < frames.DEFAULT_FRAME:
                    raise ProtocolError("frames may not be so short")
                self._frame = value
            elif key == frames.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ProtocolError("a window is too large", frames.FLOW_CONTROL_ERROR)
                for call in self._calls.values():
                    call.window += value - self._call_window
                self._call_window = value
        self._write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._unblock()
        self._dequeue()
        if not self.ready.done():
            self.ready.set_result(None)

    def _take_reset(self, frame: Frame) -> None:
        call = self._calls.get(frame.stream)
        if call is None:
            return
        code = frames.number_in(frame.payload)
        call.unprocessed = code == frames.REFUSED_STREAM
        status = grpc.StatusCode.CANCELLED if code == frames.CANCEL else UNAVAILABLE
        self._end(call, status, f"the stream was ended with error {code}")

    def _take_goaway(self, frame: Frame) -> None:
        last = frames.number_in(frame.payload)
        self._retire()
        for call in [call for stream, call in self._calls.items() if stream > last]:
            call.unprocessed = True
            self._end(call, UNAVAILABLE, "the member is going away")
        while self._queued:
            call = self._queued.popleft()
            call.unprocessed = True
            call.finish(UNAVAILABLE, "the member is going away")
        self._close_if_done()

    def _end(self, call: Call, code: grpc.StatusCode, details: str) -> None:
        self._calls.pop(call.stream, None)
        self._gone(call)
        call.finish(code, details)

    def _gone(self, call: Call) -> None:
        """Forgets what was kept for a call, and begins with one that waits."""
        self._blocked.pop(call.stream, None)
        self._owed.pop(call.stream, None)
        call.sender = None
        if self._queued:
            self._dequeue()
        if self._retired is None:
            self._close_if_done()

    def _dequeue(self) -> None:
        while self._queued and len(self._calls) < self._most_calls:
            self._begin(self._queued.popleft())

    # Its end

    def _retire(self) -> None:
        retired, self._retired = self._retired, None
        if retired is not None:
            retired(self)

    def _close_if_done(self) -> None:
        if not self._calls and not self._queued and self._transport is not None:
            self._transport.close()

    def _fail_all(self, reason: str) -> None:
        calls = [*self._calls.values(), *self._queued]
        self._calls.clear()
        self._queued.clear()
        self._blocked.clear()
        for call in calls:
            call.sender = None
            call.unprocessed = not call.stream
            call.finish(UNAVAILABLE, reason)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _look(self) -> None:
        """Asks for a sign of life where calls are under way and nothing came for a while."""
        now = self._loop.time()
        quiet = now - self._heard
        wanted = quiet >= _LATE_SECONDS and any(
            quiet >= _QUIET_SECONDS or isinstance(call, UnaryCall) for call in self._calls.values()
        )
        if not wanted or now - self._pinged < _PING_SECONDS:
            self._watchdog = self._loop.call_later(_LATE_SECONDS, self._look)
            return
        self._pinged = now
        self._write(frames.frame(frames.PING, 0, 0, os.urandom(8)))
        self._watchdog = self._loop.call_later(_PONG_SECONDS, self._judge, now)

    def _judge(self, asked: float) -> None:
        if self._heard < asked:
            log.warning("a member of etcd hangs; its connection is ended")
            self._abort()
        else:
            self._watchdog = self._loop.call_later(_LATE_SECONDS, self._look)
