"""The HTTP server with streams that have no end of their own."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from tests.ports import free_port

from strongroom_gateway.http.server import HttpServer
from strongroom_gateway.http.wire import HttpRequest, HttpResponse


class Endless:
    """Answers with lines for as long as anybody listens."""

    def __init__(self) -> None:
        self.open = 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, b"begun\n", content_type="text/plain", stream=self._lines())

    async def _lines(self) -> AsyncGenerator[bytes]:
        self.open += 1
        try:
            while True:
                yield b"line\n"
                await asyncio.sleep(0.01)
        finally:
            self.open -= 1


@pytest.fixture
async def listening() -> AsyncIterator[tuple[Endless, HttpServer, int]]:
    wire, port = Endless(), free_port()
    server = HttpServer(wire, "127.0.0.1", port, None)  # type: ignore[arg-type]
    await server.start()
    yield wire, server, port
    await server.stop()


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a request and returns once the stream has begun."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"begun\n" in await reader.readuntil(b"line\n")
        return reader, writer


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_stream_ends_when_the_client_leaves(
    listening: tuple[Endless, HttpServer, int],
) -> None:
    wire, _, port = listening
    _, writer = await ask(port)
    assert wire.open == 1
    writer.close()
    await until(lambda: wire.open == 0)


async def test_a_stream_does_not_keep_the_server_from_ending(
    listening: tuple[Endless, HttpServer, int],
) -> None:
    wire, server, port = listening
    reader, _ = await ask(port)
    async with asyncio.timeout(10):
        await server.stop()
        while await reader.read(1000):
            pass
    assert wire.open == 0
