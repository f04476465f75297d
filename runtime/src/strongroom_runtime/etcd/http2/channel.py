"""Calls over the members of a cluster: what the generated stubs take for a channel."""

import asyncio
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from strongroom_runtime.etcd.http2.calls import (
    Deserializer,
    Serializer,
    StreamCall,
    UnaryCall,
    error_of,
    framed,
)
from strongroom_runtime.etcd.http2.connection import Connection
from strongroom_runtime.etcd.http2.frames import HeaderList, Headers
from strongroom_runtime.ports import SOCKET
from strongroom_runtime.repeated import Repeated

log = logging.getLogger(__name__)

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE

_CONNECT_SECONDS = 5.0
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0
_RESOLVE_SECONDS = 5.0
_ATTEMPTS = 3
_USUAL_SECONDS = 60.0
# What becomes of TLS where the other side goes, or is about to come.
_TLS_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

Address = tuple[str, int]  # of a socket: the endpoint as it is, and 0


class UntrustedError(grpc.aio.AioRpcError):
    """UNAVAILABLE: with every member TLS fails, for the certificate of one side or the other."""


class Channel:
    """Keeps a connection to each member and gives calls to them in turn.

    A call fails at once where no member can be reached. One that a member has not begun with goes to another.

    Args:
        endpoints: host:port of the members; a name may stand for several. Or `unix:` and the path of a socket.
        context: returns what each connection is to use for TLS; None for plain text. A member's certificate must
            have the host of its endpoint. Sockets are for plain text in any case: the file system says for whom.
    """

    def __init__(
        self, endpoints: Iterable[str], context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._endpoints = [_split(endpoint) for endpoint in endpoints]
        self._context = context
        self._headers = Headers()
        self._members: dict[Address, _Member] = {}
        self._ready: list[Connection] = []
        self._turn = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._resolver: asyncio.Task[None] | None = None
        self._unresolved = self._closed = False

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer,
        response_deserializer: Deserializer,
        **_: Any,
    ) -> "UnaryUnary":
        """Returns what makes calls of a method."""
        return UnaryUnary(self, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer,
        response_deserializer: Deserializer,
        **_: Any,
    ) -> "StreamStream":
        """Returns what opens streams of a method."""
        return StreamStream(self, method, request_serializer, response_deserializer)

    async def close(self) -> None:
        """Ends all connections and what is under way on them."""
        self._closed = True
        tasks = [member.task for member in self._members.values()]
        if self._resolver is not None:
            tasks.append(self._resolver)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._members.clear()
        for connection in list(self._ready):
            connection.close()
        self._changed()

    def block(self, method: str, metadata: HeaderList, timeout: float | None) -> bytes:
        """Returns the headers of a call."""
        headers: HeaderList = (
            (":method", "POST"),
            (":scheme", "https" if self._context is not None else "http"),
            (":path", method),
            (":authority", "etcd"),  # of no meaning to etcd, and one for all members
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
        if timeout is not None:
            headers = (*headers, ("grpc-timeout", f"{max(int(timeout * 1000), 1)}m"))
        return self._headers.write((*headers, *metadata))

    def pick(self) -> Connection | None:
        """Returns the connection whose turn it is; None where there is none."""
        if not self._ready:
            return None
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]

    async def connection(self) -> Connection:
        """Returns the connection whose turn it is, as soon as there is one.

        Raises:
            grpc.aio.AioRpcError: UNAVAILABLE; no member can be reached.
        """
        if self._resolver is None and not self._closed:
            self._resolver = asyncio.create_task(self._resolve(), name="etcd-resolve")
        while (found := self.pick()) is None:
            if self._hopeless():
                raise self._unreached()
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(changed)
            try:
                await changed
            finally:
                self._waiting.discard(changed)
        return found

    def _hopeless(self) -> bool:
        if self._closed or not self._members:
            return self._closed or self._unresolved
        return all(member.failure is not None for member in self._members.values())

    def _unreached(self) -> grpc.aio.AioRpcError:
        """Returns why no member can be reached."""
        failures = {member.failure for member in self._members.values() if member.failure}
        reasons = ", ".join(sorted(failure.reason for failure in failures)) or "no address is known"
        if failures and all(failure.untrusted for failure in failures):
            return UntrustedError(UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), reasons)
        return error_of(UNAVAILABLE, f"no member can be reached ({reasons})")

    def _changed(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def _resolve(self) -> None:
        """Keeps to the addresses that the names stand for."""
        work = Repeated("the resolving of etcd's names", logging.WARNING)
        while True:
            found: dict[Address, str] = {}
            resolved = 0
            for host, port in self._endpoints:
                with work.turn(host):
                    found |= dict.fromkeys(await _addresses(host, port), host)
                    resolved += 1
            if resolved == len(self._endpoints):
                for address in self._members.keys() - found:
                    self._members.pop(address).task.cancel()
            for address in found.keys() - self._members.keys():
                self._members[address] = _Member(self, address, found[address])
            self._unresolved = not self._members
            self._changed()
            await asyncio.sleep(_RESOLVE_SECONDS)

    async def connect(self, address: Address, host: str) -> Connection:
        """Returns a connection to a member that is ready for calls.

        Args:
            address: of the member.
            host: by which it is known, and which its certificate must have.

        Raises:
            OSError: it cannot be reached or is not who it should be; TimeoutError: it does not answer.
        """
        async with asyncio.timeout(_CONNECT_SECONDS):
            transport, connection = await self._open(address, host)
            try:
                if _met_itself(transport):
                    raise ConnectionError("nobody listens, and the socket met itself")
                tls = transport.get_extra_info("ssl_object")
                if tls is not None and tls.selected_alpn_protocol() != "h2":
                    raise ConnectionError("the other side does not speak HTTP/2")
                await connection.ready
                if not connection.usable:
                    raise ConnectionError("the other side went at once")
            except BaseException:
                connection.ready.cancel()
                transport.abort()
                raise
        self._ready.append(connection)
        self._changed()
        return connection

    async def _open(self, address: Address, host: str) -> tuple[asyncio.Transport, Connection]:
        loop = asyncio.get_running_loop()
        if host.startswith(SOCKET):
            path = host.removeprefix(SOCKET)
            return await loop.create_unix_connection(self._connection, path)
        return await loop.create_connection(
            self._connection,
            *address,
            ssl=self._context() if self._context is not None else None,
            server_hostname=host if self._context is not None else None,
        )

    def _connection(self) -> Connection:
        return Connection(self._headers, self._retire)

    def _retire(self, connection: Connection) -> None:
        if connection in self._ready:
            self._ready.remove(connection)
        for member in self._members.values():
            member.retired(connection)

    def report(self, member: "_Member", failure: "_Failure | None") -> None:
        """Takes how an attempt to reach a member went."""
        member.failure = failure
        self._changed()


class _Failure(NamedTuple):
    """Why a member is not reached. (An error that is kept would keep its frames.)"""

    reason: str
    untrusted: bool

    @classmethod
    def of(cls, error: Exception) -> "_Failure":
        if isinstance(error, ssl.SSLCertVerificationError):
            return cls(error.verify_message, untrusted=True)
        if isinstance(error, ssl.SSLError) and not isinstance(error, _TLS_ENDED):
            return cls(error.reason, untrusted=True)
        return cls(type(error).__name__, untrusted=False)


class _Member:
    """An address, to which there is a connection as far as possible."""

    def __init__(self, channel: Channel, address: Address, host: str) -> None:
        self.failure: _Failure | None = None
        self._channel = channel
        self._address = address
        self._host = host
        self._connection: Connection | None = None
        self._lost = asyncio.Event()
        self.task = asyncio.create_task(self._keep(), name="etcd-connection")

    def retired(self, connection: Connection) -> None:
        """Learns that a connection takes no more calls."""
        if connection is self._connection:
            self._lost.set()

    async def _keep(self) -> None:
        backoff = _FIRST_BACKOFF
        try:
            while True:
                self._lost.clear()
                try:
                    self._connection = await self._channel.connect(self._address, self._host)
                except Exception as error:
                    # Ordinary while the embedded etcd starts; where it lasts, those who call say so. Anything else is
                    # a bug: without this loop the process would never reach the member again.
                    level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
                    if self.failure is None:
                        log.log(level, "etcd is not reached", extra={"error": type(error).__name__})
                    self._channel.report(self, _Failure.of(error))
                    await asyncio.sleep(backoff * random.uniform(0.8, 1.2))  # noqa: S311
                    backoff = min(2 * backoff, _LONGEST_BACKOFF)
                    continue
                backoff = _FIRST_BACKOFF
                self._channel.report(self, None)
                await self._lost.wait()
        finally:
            if self._connection is not None:
                self._connection.close()


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the service at the other end.

    Args:
        channel: to it.
        name: as it stands in the path.
        serialize: a request.
        deserialize: an answer.
    """

    channel: Channel
    name: str
    serialize: Serializer
    deserialize: Deserializer


class UnaryUnary(Method):
    """Calls of one method."""

    async def __call__(
        self, request: Any, *, timeout: float = _USUAL_SECONDS, metadata: HeaderList | None = None
    ) -> Any:
        """Returns the answer.

        Args:
            request: the message.
            timeout: in seconds, for all of it.
            metadata: further headers.

        Raises:
            grpc.aio.AioRpcError: as a channel of grpc.aio would.
        """
        block = self.channel.block(self.name, metadata or (), timeout)
        data = framed(self.serialize(request))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        for _ in range(_ATTEMPTS):
            connection = self.channel.pick()
            if connection is None:
                connection = await self._connection(deadline)
            call = UnaryCall(block, loop.create_future())
            connection.start(call, data, end=True)
            timer = loop.call_at(deadline, call.expire)
            try:
                return self.deserialize(await call.future)
            except grpc.aio.AioRpcError:
                if not call.unprocessed:
                    raise
            except asyncio.CancelledError:
                call.abandon()
                raise
            finally:
                timer.cancel()
                del call  # its future keeps an error, and the error's traceback this frame: a cycle
        raise error_of(UNAVAILABLE, "no member takes calls")

    async def _connection(self, deadline: float) -> Connection:
        try:
            async with asyncio.timeout_at(deadline):
                return await self.channel.connection()
        except TimeoutError:
            raise error_of(UNAVAILABLE, "no member was reached in time") from None


class StreamStream(Method):
    """Streams of one method."""

    def __call__(self, *, metadata: HeaderList | None = None) -> "Stream":
        """Returns a stream, which begins with the first message that is written."""
        block = self.channel.block(self.name, metadata or (), None)
        return Stream(self, StreamCall(block))


class Stream:
    """Messages both ways."""

    def __init__(self, method: Method, call: StreamCall) -> None:
        self._method = method
        self._call = call

    async def write(self, request: Any) -> None:
        """Sends a message.

        Raises:
            grpc.aio.AioRpcError: the stream has ended, or could not begin.
        """
        data = framed(self._method.serialize(request))
        call = self._call
        if call.error is not None:
            raise call.error
        if call.sender is not None:
            call.sender.send(call, data, end=False)
        else:
            (await self._method.channel.connection()).start(call, data)

    async def read(self) -> Any:
        """Returns the next message; grpc.aio.EOF behind the last one.

        Raises:
            grpc.aio.AioRpcError: the stream broke.
        """
        message = await self._call.read()
        return grpc.aio.EOF if message is None else self._method.deserialize(message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yields the messages."""
        while (message := await self._call.read()) is not None:
            yield self._method.deserialize(message)

    def cancel(self) -> None:
        """Ends it."""
        self._call.abandon()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._call.finished

    async def details(self) -> str:
        """Returns what was said of its end."""
        return str(self._call.error.details()) if self._call.error is not None else ""


def _met_itself(transport: asyncio.Transport) -> bool:
    """Returns whether a socket was connected to its own port, as may happen where nobody listens.

    Raises:
        OSError: the other side went at once.
    """
    connected = transport.get_extra_info("socket")
    if connected is None:  # uvloop's, of a transport that was closed meanwhile
        raise ConnectionResetError("the other side went at once")
    return bool(connected.getsockname() == connected.getpeername())


async def _addresses(host: str, port: int) -> set[Address]:
    if host.startswith(SOCKET):
        return {(host, port)}
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {(str(each[4][0]), int(each[4][1])) for each in found}


def _split(endpoint: str) -> Address:
    """Returns host and port; of a socket the endpoint and 0.

    Raises:
        ValueError: it has another form.
    """
    if endpoint.startswith(SOCKET):
        return endpoint, 0
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"etcd endpoint {endpoint!r}: takes host:port")
    return host.strip("[]"), int(port)
