"""Granian in front of the HTTP wire, in the event loop of the process (RSGI)."""

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.server.embed import Server

from strongroom_gateway.contract.decode import MAX_BODY
from strongroom_gateway.http import envelope
from strongroom_gateway.http.wire import JSON, MAX_SECONDS, HttpRequest, HttpWire
from strongroom_runtime.errors import Kind, ServiceError

log = logging.getLogger(__name__)

_JSON = [("content-type", JSON), ("cache-control", "no-store")]
_EMPTY = [("cache-control", "no-store")]
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
        self._server = Server(
            self._answer,
            address=host,
            port=port,
            interface=Interfaces.RSGI,
            log_enabled=False,
            websockets=False,
            backlog=1024,
            ssl_cert=certificate[0] if certificate else None,
            ssl_key=certificate[1] if certificate else None,
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen."""
        self._task = asyncio.create_task(self._server.serve(), name="http")

    async def stop(self) -> None:
        """Answers what is under way and stops."""
        if self._task is not None:
            self._server.stop()  # type: ignore[no-untyped-call]
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _answer(self, scope: Any, protocol: Any) -> None:
        if scope.proto != "http":
            protocol.close(404)
            return
        headers = scope.headers
        request = HttpRequest(
            method=scope.method,
            path=scope.path,
            query=scope.query_string,
            header=headers.get,
            body=lambda: _body(headers.get("content-length"), protocol),
            client_address=scope.client.rpartition(":")[0].strip("[]"),
        )
        try:
            response = await self._wire.handle(request)
        except Exception:
            log.exception("a request failed")
            protocol.response_bytes(500, _JSON, _INTERNAL)
            return
        headers = _JSON if response.body else _EMPTY
        if response.headers or response.content_type != JSON:
            headers = [*_EMPTY, *response.headers]
            if response.body:
                headers.append(("content-type", response.content_type))
        if response.body and request.method != "HEAD":
            protocol.response_bytes(response.status, headers, response.body)
        else:
            protocol.response_empty(response.status, headers)


async def _body(length: str | None, protocol: Any) -> bytes:
    """Reads a body within bounds of size and time."""
    too_large = ServiceError(Kind.TOO_LARGE, "http: request body too large")
    if length is not None and length.isdigit() and int(length) <= MAX_BODY:
        try:
            async with asyncio.timeout(MAX_SECONDS):
                return bytes(await protocol())
        except TimeoutError:
            raise ServiceError(Kind.DEADLINE, "the body did not arrive in time") from None
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_SECONDS):
            size = 0
            async for chunk in protocol:
                size += len(chunk)
                # Read on a while, and keep nothing: a client that is cut off in the middle of its body would not see
                # the answer.
                if size > 2 * MAX_BODY:
                    raise too_large
                if size <= MAX_BODY:
                    body += chunk
            if size > MAX_BODY:
                raise too_large
    except TimeoutError:
        raise ServiceError(Kind.DEADLINE, "the body did not arrive in time") from None
    return bytes(body)
