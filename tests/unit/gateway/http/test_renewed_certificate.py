"""The HTTP server takes another certificate while requests are on their way."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.ports import free_port

from strongroom_gateway.http.server import HttpServer
from strongroom_gateway.http.wire import HttpRequest, HttpResponse
from strongroom_runtime.transport import pki

DOMAIN = "example.test"
GET = b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\n"


class Gate:
    """Answers at once, or when it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = 0

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.waiting += 1
        await self.open.wait()
        self.waiting -= 1
        return HttpResponse(200, b"answered")


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, Path]]:
    """Two certificates of one CA."""
    pki.initialise(tmp_path, DOMAIN, ["gateway", "other"])
    return [(tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in ("gateway", "other")]


@pytest.fixture
async def served(pairs: list[tuple[Path, Path]]) -> AsyncIterator[tuple[HttpServer, Gate, int]]:
    gate, port = Gate(), free_port()
    server = HttpServer(gate, "127.0.0.1", port, pairs[0])  # type: ignore[arg-type]
    await server.start()
    yield server, gate, port
    gate.open.set()
    await server.stop()


class Client:
    """A connection, and the certificate that it was shown."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.shown = x509.load_der_x509_certificate(shown)

    async def ask(self) -> str:
        self.writer.write(GET)
        return await self.answer()

    async def answer(self) -> str:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert await self._reader.readexactly(len(b"answered")) == b"answered"
        return head

    async def ended(self) -> bool:
        return await self._reader.read() == b""


async def connect(folder: Path, port: int) -> Client:
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    async with asyncio.timeout(60):
        while True:
            try:
                streams = await asyncio.open_connection("localhost", port, ssl=context)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            return Client(*streams)


def read(pair: tuple[Path, Path]) -> tuple[bytes, bytes]:
    return pair[0].read_bytes(), pair[1].read_bytes()


def certificate(pair: tuple[Path, Path]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair[0].read_bytes())


async def test_connections_from_now_on_see_it_and_those_before_get_their_answers(
    served: tuple[HttpServer, Gate, int], pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    server, gate, port = served
    idle, busy = await connect(tmp_path, port), await connect(tmp_path, port)
    assert "connection: close" not in await idle.ask()
    gate.open.clear()
    busy.writer.write(GET)
    while not gate.waiting:
        await asyncio.sleep(0.01)
    await server.renew(*read(pairs[1]))
    gate.open.set()
    for _ in range(20):
        client = await connect(tmp_path, port)
        assert client.shown == certificate(pairs[1])
        assert "connection: close" not in await client.ask()
    for before in (busy.answer(), idle.ask()):
        assert "connection: close" in await before
    assert await busy.ended()
    assert await idle.ended()
    assert idle.shown == certificate(pairs[0])


async def test_no_request_is_lost_under_load(
    served: tuple[HttpServer, Gate, int], pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    server, _, port = served
    done = asyncio.Event()
    answered = 0

    async def load() -> None:
        nonlocal answered
        client = await connect(tmp_path, port)
        while not done.is_set():
            head = await client.ask()
            answered += 1
            if "connection: close" in head:
                client = await connect(tmp_path, port)

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(load())
        for number in range(6):
            before = answered
            while answered < before + 100:
                await asyncio.sleep(0.01)
            await server.renew(*read(pairs[(number + 1) % 2]))
        done.set()


async def test_connections_that_are_not_used_are_ended_in_the_end(
    served: tuple[HttpServer, Gate, int],
    pairs: list[tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("strongroom_gateway.http.arrivals.LEAVE_SECONDS", 0.1)
    server, _, port = served
    client = await connect(tmp_path, port)
    await server.renew(*read(pairs[1]))
    async with asyncio.timeout(60):
        assert await client.ended()
    assert "200" in await (await connect(tmp_path, port)).ask()


async def test_a_key_of_another_certificate_changes_nothing(
    served: tuple[HttpServer, Gate, int], pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    server, _, port = served
    client = await connect(tmp_path, port)
    with pytest.raises(OSError, match="takes no such"):
        await server.renew(pairs[1][0].read_bytes(), pairs[0][1].read_bytes())
    assert "connection: close" not in await client.ask()
    again = await connect(tmp_path, port)
    assert again.shown == certificate(pairs[0])
    assert "connection: close" not in await again.ask()
    await server.renew(*read(pairs[1]))
    assert (await connect(tmp_path, port)).shown == certificate(pairs[1])


async def test_who_stops_in_the_middle_of_it_leaves_nothing_listening(
    served: tuple[HttpServer, Gate, int], pairs: list[tuple[Path, Path]], tmp_path: Path
) -> None:
    server, _, port = served
    await connect(tmp_path, port)
    await server.renew(*read(pairs[1]))
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
