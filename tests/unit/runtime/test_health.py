"""The health of a process, over plain HTTP."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from strongroom_runtime.health import HealthServer


@dataclass
class Served:
    port: int
    ready: bool = False

    async def send(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        with contextlib.suppress(ConnectionError):  # what is too much is not read to its end
            writer.write(data)
            writer.write_eof()
            answer = await reader.read()
        writer.close()
        return answer

    async def get(self, path: str) -> int:
        answer = await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return int(answer.split()[1])


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served(0)
    server = HealthServer(lambda: served.ready)
    served.port = await server.start("127.0.0.1:0")
    yield served
    server.stop()


async def test_it_tells_life_from_readiness(served: Served) -> None:
    assert (await served.get("/live"), await served.get("/ready")) == (200, 503)
    served.ready = True
    assert (await served.get("/live"), await served.get("/ready")) == (200, 200)
    assert await served.get("/other") == 404


@pytest.mark.parametrize("nonsense", [b"", b"GET", b"\r\n\r\n", b"POST /ready HTTP/1.1\r\n\r\n"])
async def test_nonsense_does_it_no_harm(served: Served, nonsense: bytes) -> None:
    served.ready = True
    assert b" 200 " not in await served.send(nonsense)
    assert b" 200 " not in await served.send(b"x" * 100_000)
    assert await served.get("/live") == 200
