"""Frames of the link over a TLS connection of their own, beside the stream that announces it.

A gRPC message costs a process about 100 µs where calls come one by one; a frame here costs 20. The stream stays: it
tells who the peers are, notices a peer that hangs, and says that a replica drains. See
`docs/decisions/0008-frames-beside-grpc.md`.
"""

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from strongroom.link.v1 import link_pb2
from strongroom_runtime.ports import split_hostport
from strongroom_runtime.transport.credentials import Connector

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

MAX_FRAME = 64 << 20
# Of one call or reply, with its context; the rest of a frame is for what is around it.
MAX_ITEM = MAX_FRAME - 1_000
_ITEM = 10  # what an item's place in a frame takes
_HANDSHAKE_SECONDS = 5.0
_JOIN_SECONDS = 5.0
# In seconds, and milliseconds: about as soon as gRPC notices the same of the stream.
_SILENCE = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,
}
_LENGTH = 4


class Frames(asyncio.Protocol, Generic[M]):
    """One end of a connection: whole frames in; what is ready in one turn of the event loop goes out in one frame.

    Args:
        received: takes a frame; a DecodeError ends the connection.
        closed: called once, when the connection is gone.
        frame: makes a frame of what is ready.
    """

    def __init__(
        self,
        received: Callable[[bytes], None],
        closed: Callable[[], None],
        frame: Callable[[list[M]], Message],
    ) -> None:
        self._received = received
        self._closed = closed
        self._frame = frame
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ready: list[M] = []
        self._scheduled = False
        self._writable = True

    def put(self, item: M) -> None:
        """Sends something with whatever else becomes ready in this turn."""
        self._ready.append(item)
        if not self._scheduled and self._writable:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def unsent(self) -> list[M]:
        """Returns what no frame has carried away."""
        return self._ready

    def send(self, message: Message) -> None:
        """Sends one frame at once."""
        self._write(message.SerializeToString())

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(len(data).to_bytes(_LENGTH, "big") + data)

    def close(self) -> None:
        """Ends the connection, once what was sent is with the operating system."""
        if self._transport is not None:
            if self._ready:
                self._flush()
            self._transport.close()

    def peer(self) -> set[str]:
        """Returns the URIs in the other side's certificate."""
        certificate = self._transport.get_extra_info("peercert") if self._transport else None
        names = certificate.get("subjectAltName", ()) if certificate else ()
        return {value for kind, value in names if kind == "URI"}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        _notice_silence(transport)
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        self._closed()

    def pause_writing(self) -> None:
        """Called by asyncio while the other side does not keep up."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called by asyncio."""
        self._writable = True
        if self._ready:
            self._flush()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        buffer = self._buffer
        buffer += data
        start, end = 0, len(buffer)
        while end - start >= _LENGTH:
            size = int.from_bytes(buffer[start : start + _LENGTH], "big")
            if size > MAX_FRAME:
                self._abort("a frame is too long")
                return
            if end - start - _LENGTH < size:
                break
            start += _LENGTH
            try:
                self._received(bytes(buffer[start : start + size]))
            except DecodeError:
                self._abort("a frame is malformed")
                return
            start += size
        del buffer[:start]

    def _flush(self) -> None:
        self._scheduled = False
        ready, self._ready = self._ready, []
        if ready:
            self._send(ready)

    def _send(self, ready: list[M]) -> None:
        data = self._frame(ready).SerializeToString()
        if len(data) <= MAX_FRAME:
            self._write(data)
            return
        for part in parted(ready):
            self.send(self._frame(part))

    def _abort(self, reason: str) -> None:
        log.warning("a direct connection was ended", extra={"reason": reason})
        if self._transport is not None:
            self._transport.abort()


def parted(items: list[M]) -> Iterator[list[M]]:
    """Yields items in order, as few lists of them as are no larger than a frame may be.

    One that is larger by itself stands alone; whoever makes it sees to it that it is not.
    """
    if len(items) == 1 or sum(item.ByteSize() + _ITEM for item in items) <= MAX_FRAME:
        yield items
        return
    middle = len(items) // 2
    yield from parted(items[:middle])
    yield from parted(items[middle:])


def calls_in_a_frame(calls: list[link_pb2.Call]) -> link_pb2.ExchangeRequest:
    """Returns a frame of calls."""
    return link_pb2.ExchangeRequest(calls=calls)


def replies_in_a_frame(replies: list[link_pb2.Reply]) -> link_pb2.ExchangeResponse:
    """Returns a frame of replies."""
    return link_pb2.ExchangeResponse(replies=replies)


CallFrames = Frames[link_pb2.Call]
ReplyFrames = Frames[link_pb2.Reply]
# (frame, connection): runs the calls of a frame and puts the replies on the connection they came over.
Take = Callable[[link_pb2.ExchangeRequest, ReplyFrames], None]


async def connect(
    host: str,
    direct: link_pb2.Direct,
    connector: Connector,
    received: Callable[[bytes], None],
    closed: Callable[[], None],
) -> CallFrames:
    """Returns the calling end of a connection that a stream announced, once the other side has taken it.

    Until then it carries no calls: it may have reached another replica, or something that only looks like one.

    Args:
        host: by which the stream was opened.
        direct: what it announced.
        connector: the one of the stream.
        received: takes frames.
        closed: called once, when the connection that was returned is gone.

    Raises:
        OSError: it cannot be reached, is not who it should be (`ssl.SSLError`), refuses, or does not answer in time.
    """
    loop = asyncio.get_running_loop()
    taken: asyncio.Future[None] = loop.create_future()

    def take(data: bytes) -> None:
        if taken.done():
            received(data)
        else:
            taken.set_result(None)

    def gone() -> None:
        if not taken.done():
            taken.set_exception(ConnectionRefusedError("a direct connection was refused"))
        elif not taken.cancelled() and taken.exception() is None:
            closed()

    async with asyncio.timeout(_JOIN_SECONDS):
        transport, frames = await loop.create_connection(
            lambda: Frames(take, gone, calls_in_a_frame),
            direct.host or host,
            direct.port,
            ssl=connector.context,
            server_hostname=connector.name,
        )
        try:
            frames.send(link_pb2.DirectHello(ticket=direct.ticket))
            await taken
            if transport.is_closing():
                raise ConnectionResetError("a direct connection broke at once")
        except BaseException:
            transport.abort()
            raise
    return frames


def _notice_silence(transport: asyncio.BaseTransport) -> None:
    """Lets the operating system end a connection whose other side is not heard of any more.

    The stream's own pings tell nothing of the way that this one takes: a firewall between may forget it by itself.
    """
    connection = transport.get_extra_info("socket")
    if connection is None:
        return  # it is gone already
    with contextlib.suppress(OSError):  # in this moment, too
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _SILENCE.items():
            if hasattr(socket, name):  # not every system has all of them
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


@dataclass(slots=True)
class _Admission:
    """A stream that may be joined once, and the connection that did."""

    identity: str
    take: Take
    connection: ReplyFrames | None = None


class DirectListener:
    """Takes direct connections: each has to come with the ticket of an open stream and with its caller's certificate.

    Args:
        context: with the server's certificate, trusting the internal CA alone.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._admissions: dict[bytes, _Admission] = {}
        self._server: asyncio.Server | None = None
        self._host = ""
        self.port = 0

    async def start(self, listen: str, reached: str = "") -> None:
        """Listens.

        Args:
            listen: host:port; port 0 for any free one.
            reached: host:port by which callers reach it; empty for the host by which they opened the stream, and
                port 0 for the one that is listened on.

        Raises:
            OSError: the address is in use or not of this machine.
        """
        host, port = split_hostport(listen)
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {
            "ssl": self._context,
            "ssl_handshake_timeout": _HANDSHAKE_SECONDS,
        }
        if host == "::" and socket.has_dualstack_ipv6():
            # asyncio would leave out IPv4, which gRPC listens on as well.
            address = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
            options["sock"] = address
        else:
            options |= {"host": host, "port": port}
        self._server = await loop.create_server(lambda: _Arrival(self).frames, **options)
        listened = int(self._server.sockets[0].getsockname()[1])
        self._host, port = split_hostport(reached or ":0")
        self.port = port or listened

    def stop(self) -> None:
        """Takes no more."""
        if self._server is not None:
            self._server.close()

    def admit(self, identity: str, take: Take) -> link_pb2.Direct:
        """Returns what a stream announces.

        Args:
            identity: the URI that the caller's certificate must have.
            take: gets what comes over the connection.
        """
        ticket = secrets.token_bytes(32)
        self._admissions[ticket] = _Admission(identity, take)
        return link_pb2.Direct(port=self.port, ticket=ticket, host=self._host)

    def dismiss(self, direct: link_pb2.Direct) -> None:
        """Ends what came of an announcement, once the stream has ended and all replies are on their way."""
        admission = self._admissions.pop(direct.ticket, None)
        if admission is not None and admission.connection is not None:
            admission.connection.close()

    def join(self, ticket: bytes, connection: ReplyFrames) -> _Admission | None:
        """Returns the stream that a connection belongs to from now on; None where it may not come in."""
        found = self._admissions.get(ticket)
        if found is None or found.connection is not None:
            return None
        if found.identity not in connection.peer():
            return None
        found.connection = connection
        return found


class _Arrival:
    """A connection that has come in, first without a stream that it belongs to."""

    def __init__(self, listener: DirectListener) -> None:
        self._listener = listener
        self._admission: _Admission | None = None
        self.frames: ReplyFrames = Frames(self._received, self._closed, replies_in_a_frame)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_HANDSHAKE_SECONDS, self.frames.close)

    def _received(self, data: bytes) -> None:
        if self._admission is not None:
            self._admission.take(link_pb2.ExchangeRequest.FromString(data), self.frames)
            return
        self._timer.cancel()
        ticket = link_pb2.DirectHello.FromString(data).ticket
        self._admission = self._listener.join(ticket, self.frames)
        if self._admission is None:
            log.warning("a direct connection was refused")
            self.frames.close()
            return
        self.frames.send(link_pb2.ExchangeResponse())

    def _closed(self) -> None:
        self._timer.cancel()
