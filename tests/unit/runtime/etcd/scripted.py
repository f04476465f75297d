"""A server of HTTP/2 that does what a test tells it, well-behaved or not."""

import asyncio
from collections.abc import Awaitable, Callable

from hpack import Encoder

from strongroom_runtime.etcd.http2 import frames
from strongroom_runtime.etcd.http2.frames import Frame, FrameReader, frame

ANSWER = [(":status", "200"), ("content-type", "application/grpc")]
WELL = [("grpc-status", "0")]


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._pending: list[Frame] = []
        self.sent_to_us = 0  # bytes of DATA

    async def greet(self, settings: dict[int, int] | None = None) -> None:
        """Takes the preface and says the settings."""
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        self.write(frames.settings(settings or {}))

    def write(self, data: bytes, *, step: int = 0) -> None:
        """Sends bytes, so many at a time."""
        for at in range(0, len(data), step or len(data) or 1):
            self._writer.write(data[at : at + (step or len(data))])

    async def next(self, *kinds: int) -> Frame:
        """Returns the next frame of some kinds; others are passed over."""
        while True:
            while not self._pending:
                data = await self._reader.read(1 << 16)
                if not data:
                    raise ConnectionResetError
                self._pending += self._frames.feed(data)
            found = self._pending.pop(0)
            self.sent_to_us += len(found.payload) if found.kind == frames.DATA else 0
            if found.kind in kinds:
                return found

    async def request(self) -> int:
        """Returns the number of the next stream that was sent completely."""
        while True:
            found = await self.next(frames.DATA, frames.HEADERS)
            if found.flags & frames.END_STREAM:
                return found.stream

    def answer(self, stream: int, message: bytes = b"", *, step: int = 0) -> None:
        """Answers a call."""
        data = b"\0" + len(message).to_bytes(4, "big") + message
        self.write(
            frame(frames.HEADERS, frames.END_HEADERS, stream, block(ANSWER))
            + frame(frames.DATA, 0, stream, data)
            + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, block(WELL)),
            step=step,
        )

    async def serve(self) -> None:
        """Answers everything from here on."""
        while True:
            self.answer(await self.request())

    def close(self) -> None:
        self._writer.close()


Script = Callable[[Peer], Awaitable[None]]


class ScriptedServer:
    """Runs one script for each connection, in order; the last one for all further ones."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.endpoint = ""

    async def __aenter__(self) -> "ScriptedServer":
        self._server = await asyncio.start_server(self._run, "127.0.0.1", 0)
        self.endpoint = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        peer = Peer(reader, writer)
        try:
            await script(peer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            peer.close()


def block(headers: list[tuple[str, str]], *, table: bool = False) -> bytes:
    """Returns headers as a block, without the dynamic table or with it."""
    encoder = Encoder()
    if not table:
        encoder.header_table_size = 0
    encoded = encoder.encode(headers)
    return encoded if not table else encoder.encode(headers)


async def well_behaved(peer: Peer) -> None:
    await peer.greet()
    await peer.serve()
