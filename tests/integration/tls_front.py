"""TLS in front of a PostgreSQL server that has none, by its own protocol ("Message Flow", section "SSL")."""

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.containers.certificates import Pair

_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


@contextlib.asynccontextmanager
async def tls_front(port: int, pair: Pair) -> AsyncIterator[int]:
    """Speaks TLS with clients that ask for it, and refuses others; returns where it listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(Path(file.name))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            if await reader.readexactly(8) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(context)
                behind = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(_pump(reader, behind[1]), _pump(behind[0], writer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
