"""Connections beside the stream: who may come in, what becomes of calls when one breaks, and broken frames."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.direct import (
    CallFrames,
    DirectListener,
    Frames,
    ReplyFrames,
    calls_in_a_frame,
    connect,
)
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.credentials import Connector, Identities, Identity
from strongroom_runtime.transport.server import InternalServer

DOMAIN = "example.test"
ECHO = f"echo.{DOMAIN}"
GATEWAY = f"spiffe://{DOMAIN}/service/gateway"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.initialise(folder, DOMAIN, ["gateway", "auth", "echo"])
    return folder


@pytest.fixture
async def listener(folder: Path) -> AsyncIterator[DirectListener]:
    listener = DirectListener(Identities(folder, DOMAIN, ["echo"]).server_context())
    await listener.start("127.0.0.1")
    yield listener
    listener.stop()


def answer(frame: link_pb2.ExchangeRequest, connection: ReplyFrames) -> None:
    for call in frame.calls:
        connection.put(link_pb2.Reply(id=call.id, response=call.request))


class Client:
    """A calling end that collects what it gets."""

    def __init__(self) -> None:
        self.replies: asyncio.Queue[link_pb2.Reply] = asyncio.Queue()
        self.closed = asyncio.Event()
        self.frames: CallFrames

    async def connect(self, folder: Path, name: str, direct: link_pb2.Direct) -> "Client":
        connector = Identities(folder, DOMAIN, [name]).connector(name, "echo")
        self.frames = await connect("127.0.0.1", direct, connector, self._take, self.closed.set)
        return self

    def _take(self, data: bytes) -> None:
        for reply in link_pb2.ExchangeResponse.FromString(data).replies:
            self.replies.put_nowait(reply)


async def test_frames_of_any_size_arrive_whole(folder: Path, listener: DirectListener) -> None:
    client = await Client().connect(folder, "gateway", listener.admit(GATEWAY, answer))
    sizes = [0, 1, 70_000, 5_000_000, 3]
    for number, size in enumerate(sizes):
        client.frames.put(link_pb2.Call(id=number, request=b"x" * size))
    answers = [await client.replies.get() for _ in sizes]
    assert [(a.id, len(a.response)) for a in answers] == list(enumerate(sizes))


@pytest.mark.parametrize("chunk", [1, 3, 7, 1_000])
def test_frames_that_come_in_pieces(chunk: int) -> None:
    async def receive() -> list[bytes]:
        got: list[bytes] = []
        frames: CallFrames = Frames(got.append, lambda: None, calls_in_a_frame)
        whole = [b"", b"a", b"b" * 300, b"c" * 70_000]
        data = b"".join(len(each).to_bytes(4, "big") + each for each in whole)
        for start in range(0, len(data), chunk):
            frames.data_received(data[start : start + chunk])
        assert got == whole
        return got

    asyncio.run(receive())


async def test_a_ticket_is_good_once(folder: Path, listener: DirectListener) -> None:
    direct = listener.admit(GATEWAY, answer)
    first = await Client().connect(folder, "gateway", direct)
    first.frames.put(link_pb2.Call(id=1))
    await first.replies.get()
    second = await Client().connect(folder, "gateway", direct)
    await second.closed.wait()
    assert not first.closed.is_set()


def forged(direct: link_pb2.Direct) -> link_pb2.Direct:
    return link_pb2.Direct(port=direct.port, ticket=b"x" * 32)


@pytest.mark.parametrize(("name", "change"), [("auth", lambda direct: direct), ("gateway", forged)])
async def test_without_the_ticket_and_the_certificate_of_the_stream_nobody_comes_in(
    folder: Path,
    listener: DirectListener,
    name: str,
    change: Callable[[link_pb2.Direct], link_pb2.Direct],
) -> None:
    taken: list[link_pb2.ExchangeRequest] = []
    direct = listener.admit(GATEWAY, lambda frame, _: taken.append(frame))
    client = await Client().connect(folder, name, change(direct))
    client.frames.put(link_pb2.Call(id=1))
    await client.closed.wait()
    assert not taken


async def test_a_certificate_of_another_authority_is_refused(
    folder: Path, listener: DirectListener, tmp_path: Path
) -> None:
    pki.initialise(tmp_path, DOMAIN, ["gateway"])
    stranger = Identity(folder / "ca.pem", tmp_path / "gateway.pem", tmp_path / "gateway.key")
    client = Client()
    direct = listener.admit(GATEWAY, answer)
    try:
        client.frames = await connect(
            "127.0.0.1", direct, Connector(stranger, ECHO), client._take, client.closed.set
        )
    except OSError:
        return
    await client.closed.wait()  # TLS 1.3: the client learns it with its first read
    assert client.replies.empty()


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc"])
async def test_a_broken_frame_ends_the_connection(
    folder: Path, listener: DirectListener, data: bytes
) -> None:
    client = await Client().connect(folder, "gateway", listener.admit(GATEWAY, answer))
    assert client.frames._transport is not None
    client.frames._transport.write(data)
    await client.closed.wait()


async def test_what_a_stream_offered_ends_with_it(folder: Path, listener: DirectListener) -> None:
    direct = listener.admit(GATEWAY, answer)
    client = await Client().connect(folder, "gateway", direct)
    client.frames.put(link_pb2.Call(id=1))
    await client.replies.get()
    listener.dismiss(direct)
    await client.closed.wait()
    late = await Client().connect(folder, "gateway", direct)
    await late.closed.wait()


async def test_calls_take_it_and_fall_back_to_the_stream(folder: Path) -> None:
    echo = Echo()
    server = InternalServer(table(echo), Identities(folder, DOMAIN, ["echo"]), drain_seconds=1)
    port = await server.start("127.0.0.1:0")
    connector = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    remote = RemoteCaller(connector, [f"127.0.0.1:{port}"], response_classes(SERVICE))

    async def call(method: str, text: str = "") -> str:
        answer = await remote.call(f"/{NAME}/{method}", Text(value=text), RequestContext("r"))
        return str(answer.value)

    assert await call("Echo", "first") == "first"
    replica = next(iter(remote._replicas.values()))
    async with asyncio.timeout(10):
        while replica._direct is None:
            await asyncio.sleep(0.01)
    assert await call("WhoAmI") == "gateway r  "
    waiting = asyncio.create_task(call("Wait"))
    await echo.waiting.wait()
    transport = replica._direct._transport
    assert transport is not None
    transport.abort()
    with pytest.raises(ServiceError) as caught:
        await waiting
    assert caught.value.kind is Kind.UNAVAILABLE
    assert replica._direct is None
    assert await call("Echo", "over the stream") == "over the stream"
    echo.release.set()
    await remote.close()
    await server.stop()
