"""Tells over plain HTTP whether a process lives and whether it is ready, to whatever starts and watches it.

gRPC's own health service stands behind mutual TLS, for which probes have no certificate. Nothing is told here that
a connection to the port of a service would not tell as well.
"""

import asyncio
import contextlib
from collections.abc import Callable

_MAX_BYTES = 8192
_SECONDS = 5.0


class HealthServer:
    """Answers `GET /live` with 200 while the event loop runs, and `GET /ready` with 200 or 503.

    Args:
        ready: whether the process takes calls.
    """

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> int:
        """Listens on host:port (0 for any free port) and returns the port.

        Raises:
            OSError: it is in use or not of this machine.
        """
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(
            self._answer, host.strip("[]"), int(port), limit=_MAX_BYTES
        )
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        """Takes no more."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks may go away, say nothing, or say too much.
        with contextlib.suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = self._judge(head.split(b" ")[:2])
                body = f"{text}\n".encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        writer.close()

    def _judge(self, request: list[bytes]) -> tuple[str, str]:
        if request == [b"GET", b"/live"]:
            return "200 OK", "alive"
        if request != [b"GET", b"/ready"]:
            return "404 Not Found", "GET /live or /ready"
        return ("200 OK", "ready") if self._ready() else ("503 Service Unavailable", "not ready")
