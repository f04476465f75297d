"""Granian in front of the HTTP wire, in the event loop of the process (RSGI)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP2Settings
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from strongroom_gateway.contract.bodies import MAX_BODY
from strongroom_gateway.http import envelope
from strongroom_gateway.http.arrivals import Arrivals, Connections, EmbeddedServer
from strongroom_gateway.http.wire import JSON, MAX_SECONDS, HttpRequest, HttpWire
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.tasks import ended

log = logging.getLogger(__name__)

_PING_MILLISECONDS = 60_000
_NO_STORE = ("cache-control", "no-store")
# Said over TLS alone: browsers must not believe it elsewhere (RFC 6797, section 7.2).
_STRICT_TRANSPORT = ("strict-transport-security", "max-age=31536000; includeSubDomains")
_INTERNAL = envelope.error_document(ServiceError(Kind.INTERNAL, "internal error"))


class HttpServer:
    """Listens for HTTP.

    Args:
        wire: answers.
        host: the address to listen on.
        port: several processes may listen on one.
        certificate: PEM files of certificate and key; None for plain text.
    """

    def __init__(
        self, wire: HttpWire, host: str, port: int, certificate: tuple[Path, Path] | None
    ) -> None:
        self._wire = wire
        self._empty = [_NO_STORE, _STRICT_TRANSPORT] if certificate else [_NO_STORE]
        self._json = [("content-type", JSON), *self._empty]
        self._arrivals = Arrivals(self._answer, MAX_SECONDS)
        self._server = EmbeddedServer(
            self._arrivals,
            address=host,
            port=port,
            interface=Interfaces.RSGI,
            log_enabled=False,
            websockets=False,
            backlog=1024,
            ssl_cert=certificate[0] if certificate else None,
            ssl_key=certificate[1] if certificate else None,
            ssl_protocol_min=SSLProtocols.tls12,  # some clients in Java know no other
            # Those of HTTP/1.1 end when they are not used. These are asked whether the client is still there.
            http2_settings=HTTP2Settings(keep_alive_interval=_PING_MILLISECONDS),
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins to listen."""
        self._tasks = [
            asyncio.create_task(self._server.run(), name="http"),
            asyncio.create_task(self._arrivals.watch(), name="http-bodies"),
        ]

    async def renew(self, certificate: bytes, key: bytes) -> None:
        """Shows another certificate from now on, and drops no request; see `EmbeddedServer.renew`.

        Raises:
            OSError: it cannot be used, and nothing has changed.
        """
        await self._server.renew(certificate, key)

    async def stop(self) -> None:
        """Answers what is under way and stops."""
        for sending in self._sending:
            sending.cancel()
        if self._tasks:
            self._server.stop()  # type: ignore[no-untyped-call]
            serving, watching = self._tasks
            await ended(serving)
            watching.cancel()

    async def _send(
        self, begin: bytes, stream: AsyncGenerator[bytes], transport: Any, protocol: Any
    ) -> None:
        """Sends what comes until there is no more, the client leaves, or the server stops."""
        sending = asyncio.create_task(_pass_on(begin, stream, transport), name="http-stream")
        self._sending.add(sending)
        leaving = asyncio.create_task(_gone(protocol), name="http-client")
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._sending.discard(sending)
            for task in (sending, leaving):
                task.cancel()
            # How a stream ended is of no use to anybody: the client is gone, or has all there was.
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _answer(self, watcher: Any, body: Any, connections: Connections) -> None:
        try:
            await self._respond(watcher.scope, watcher.proto, body, connections)
        except ProtocolClosed:
            pass  # the client left in the middle of its body
        except Exception:
            log.exception("a request failed")
            watcher.proto.response_bytes(500, self._json, _INTERNAL)
        finally:
            watcher.done()

    async def _respond(
        self, scope: Any, protocol: Any, body: Any, connections: Connections
    ) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        headers = scope.headers
        request = HttpRequest(
            method=scope.method,
            path=scope.path,
            query=scope.query_string,
            header=headers.get,
            body=lambda: _arrived(body) if body is not None else _parts(protocol),
            client_address=_address(scope.client),
        )
        response = await self._wire.handle(request)
        headers = self._json if response.body else self._empty
        if response.headers or response.content_type != JSON:
            headers = [*self._empty, *response.headers]
            if response.body or response.stream is not None:
                headers.append(("content-type", response.content_type))
        if connections.leaving and scope.http_version.startswith("1"):  # HTTP/2 has its own way
            headers = [*headers, ("connection", "close")]
        if response.stream is not None:
            await self._send(
                response.body,
                response.stream,
                protocol.response_stream(response.status, headers),
                protocol,
            )
        elif response.body and request.method != "HEAD":
            protocol.response_bytes(response.status, headers, response.body)
        else:
            protocol.response_empty(response.status, headers)


async def _pass_on(begin: bytes, stream: AsyncGenerator[bytes], transport: Any) -> None:
    """Sends what comes. However it ends, the transport is let go: Granian ends the response when nobody has it."""
    try:
        async with contextlib.aclosing(stream):
            if begin:
                await transport.send_bytes(begin)
            async for part in stream:
                await transport.send_bytes(part)
    finally:
        del transport


async def _gone(protocol: Any) -> None:
    """Returns when the client has left. What Granian gives to wait for is a future in name only."""
    await protocol.client_disconnect()


def _address(client: str) -> str:
    """Returns the IP address of what Granian calls 10.0.0.1:50000 or [::1]:50000.

    An IPv4 client of a server that listens for IPv6 too comes as ::ffff:10.0.0.1.
    """
    address = client.rpartition(":")[0].strip("[]")
    return address.removeprefix("::ffff:") if "." in address else address


async def _arrived(body: Any) -> bytes:
    """Returns a body that has arrived, or was waited for in vain."""
    if body.cancelled():
        raise _late()
    return bytes(body.result())


async def _parts(protocol: Any) -> bytes:
    """Reads a body of unknown length, or of too large a one, within bounds of size and time."""
    try:
        async with asyncio.timeout(MAX_SECONDS):
            return await _bounded(protocol)
    except TimeoutError:
        raise _late() from None


def _late() -> ServiceError:
    return ServiceError(Kind.DEADLINE, "the body did not arrive in time")


async def _bounded(protocol: Any) -> bytes:
    """Reads a body that may be too large.

    Raises:
        ServiceError: TOO_LARGE.
    """
    body, size = bytearray(), 0
    async for chunk in protocol:
        size += len(chunk)
        # Read on a while, and keep nothing: a client that is cut off in the middle of its body would not see
        # the answer.
        if size > 2 * MAX_BODY:
            break
        if size <= MAX_BODY:
            body += chunk
    if size > MAX_BODY:
        raise ServiceError(Kind.TOO_LARGE, "http: request body too large")
    return bytes(body)
