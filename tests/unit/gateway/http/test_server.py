"""The HTTP server with streams that have no end of their own."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from tests.ports import free_port
from tests.waiting import until

from strongroom_gateway.contract.bodies import MAX_BODY
from strongroom_gateway.http import server as module
from strongroom_gateway.http.server import HttpServer
from strongroom_gateway.http.wire import HttpRequest, HttpResponse
from strongroom_runtime.errors import Kind, ServiceError

SETTINGS, PING = 4, 6  # types of frames


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
    reader, writer = await connected(port)
    writer.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"begun\n" in await reader.readuntil(b"line\n")
    return reader, writer


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)


async def test_a_stream_ends_when_the_client_leaves(
    listening: tuple[Endless, HttpServer, int],
) -> None:
    wire, _, port = listening
    _, writer = await ask(port)
    assert wire.open == 1
    writer.close()
    await until(lambda: wire.open == 0)


async def test_a_client_of_http2_that_says_nothing_is_asked_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_PING_MILLISECONDS", 50)
    port = free_port()
    server = HttpServer(Endless(), "127.0.0.1", port, None)  # type: ignore[arg-type]
    await server.start()
    reader, writer = await connected(port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
    async with asyncio.timeout(60):
        seen = SETTINGS
        while seen != PING:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
            seen = head[3]
    writer.close()
    await server.stop()


async def test_a_stream_does_not_keep_the_server_from_ending(
    listening: tuple[Endless, HttpServer, int],
) -> None:
    wire, server, port = listening
    reader, _ = await ask(port)
    async with asyncio.timeout(60):
        await server.stop()
        while await reader.read(1000):
            pass
    assert wire.open == 0


class Echo:
    """Answers with the body."""

    async def handle(self, request: HttpRequest) -> HttpResponse:
        try:
            return HttpResponse(200, await request.body() or b"nothing")
        except ServiceError as error:
            return HttpResponse(504 if error.kind is Kind.DEADLINE else 413, b"refused")


@pytest.fixture
async def echoing() -> AsyncIterator[int]:
    port = free_port()
    server = HttpServer(Echo(), "127.0.0.1", port, None)  # type: ignore[arg-type]
    await server.start()
    yield port
    await server.stop()


@pytest.fixture
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those tests alone that wait for its end: a busy machine may need more for any body."""
    monkeypatch.setattr("strongroom_gateway.http.server.MAX_SECONDS", 0.3)
    monkeypatch.setattr("strongroom_gateway.http.arrivals._TICK_SECONDS", 0.05)


async def send(
    port: int, *parts: bytes, host: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends parts of a request, each by itself."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            break
        except OSError:
            await asyncio.sleep(0.02)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


class Addresses:
    """Answers with the client's address."""

    async def handle(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, request.client_address.encode())


@pytest.mark.parametrize(
    ("listen", "connect", "address"),
    [
        ("127.0.0.1", "127.0.0.1", b"127.0.0.1"),
        ("::1", "::1", b"::1"),
        ("::ffff:127.0.0.1", "127.0.0.1", b"127.0.0.1"),  # as of a server that listens for both
    ],
)
async def test_clients_have_the_address_that_they_come_from(
    listen: str, connect: str, address: bytes
) -> None:
    port = free_port()
    server = HttpServer(Addresses(), listen, port, None)  # type: ignore[arg-type]
    await server.start()
    try:
        reader, writer = await send(port, b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n", host=connect)
        assert await answer(reader) == (200, address)
        writer.close()
    finally:
        await server.stop()


POST = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ((POST % 5 + b"hello",), b"hello"),
        ((POST % 5, b"hel", b"lo"), b"hello"),
        ((POST % 0,), b"nothing"),
        ((CHUNKED, b"3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n\r\n"), b"hello"),
    ],
)
async def test_bodies_arrive_whole(echoing: int, parts: tuple[bytes, ...], body: bytes) -> None:
    reader, writer = await send(echoing, *parts)
    assert await answer(reader) == (200, body)
    writer.close()


async def test_requests_of_one_connection_keep_their_order(echoing: int) -> None:
    reader, writer = await send(echoing, POST % 1 + b"a" + POST % 2 + b"bb" + POST % 3 + b"ccc")
    assert [await answer(reader) for _ in range(3)] == [(200, b"a"), (200, b"bb"), (200, b"ccc")]
    writer.close()


@pytest.mark.usefixtures("little_time")
@pytest.mark.parametrize("begun", [POST % 5 + b"hel", CHUNKED + b"3\r\nhel\r\n"])
async def test_a_body_that_does_not_arrive_ends_its_request(echoing: int, begun: bytes) -> None:
    reader, writer = await send(echoing, begun)
    assert await asyncio.wait_for(answer(reader), 60) == (504, b"refused")
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing(echoing: int) -> None:
    for begun in (POST % 5 + b"hel", CHUNKED + b"3\r\nhel\r\n"):
        _, writer = await send(echoing, begun)
        writer.transport.abort()
    reader, writer = await send(echoing, POST % 5 + b"hello")
    assert await answer(reader) == (200, b"hello")
    writer.close()


async def test_a_body_that_is_too_large_is_refused(echoing: int) -> None:
    reader, writer = await send(echoing, POST % (MAX_BODY + 1))
    chunk = bytes(1 << 20)
    for _ in range((MAX_BODY >> 20) + 1):
        writer.write(chunk)
        await writer.drain()
    assert (await answer(reader))[0] == 413
    writer.close()
