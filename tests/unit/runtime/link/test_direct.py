"""Connections beside the stream: who may come in, what becomes of calls when one breaks, and broken frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link import direct as module
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.direct import (
    CallFrames,
    DirectListener,
    Frames,
    ReplyFrames,
    calls_in_a_frame,
    connect,
)
from strongroom_runtime.link.replica import Replica
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity, Renewable
from strongroom_runtime.transport.credentials import Connector, Identities
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
    await listener.start("127.0.0.1:0")
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
    with pytest.raises(ConnectionRefusedError):
        await Client().connect(folder, "gateway", direct)
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
    with pytest.raises(ConnectionRefusedError):
        await Client().connect(folder, name, change(direct))
    assert not taken


async def test_a_certificate_of_another_authority_is_refused(
    folder: Path, listener: DirectListener, tmp_path: Path
) -> None:
    pki.initialise(tmp_path, DOMAIN, ["gateway"])
    stranger = Identity(folder / "ca.pem", tmp_path / "gateway.pem", tmp_path / "gateway.key")
    direct = listener.admit(GATEWAY, answer)
    with pytest.raises(OSError):  # TLS 1.3: the client learns it with its first read
        await connect(
            "127.0.0.1",
            direct,
            Connector(Renewable(stranger), ECHO),
            lambda data: None,
            lambda: None,
        )


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
    with pytest.raises(ConnectionRefusedError):
        await Client().connect(folder, "gateway", direct)


async def test_calls_take_it_and_fall_back_to_the_stream(folder: Path) -> None:
    echo = Echo()
    server = InternalServer(table(echo), Identities(folder, DOMAIN, ["echo"]), drain_seconds=1)
    port = await server.start("127.0.0.1:0")
    connector = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    responses = response_classes(SERVICE)
    remote = RemoteCaller(connector, [f"127.0.0.1:{port}"], responses, wait_seconds=60)

    async def call(method: str, text: str = "") -> str:
        answer = await remote.call(f"/{NAME}/{method}", Text(value=text), RequestContext("r"))
        return str(answer.value)

    assert await call("Echo", "first") == "first"
    replica = next(iter(remote._replicas.values()))
    async with asyncio.timeout(60):
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


@contextlib.asynccontextmanager
async def called(folder: Path, **direct: str) -> AsyncIterator[tuple[RemoteCaller, Replica]]:
    """Runs a server whose direct connections are where the arguments say, and calls it."""
    server = InternalServer(table(), Identities(folder, DOMAIN, ["echo"]), drain_seconds=1)
    port = await server.start("127.0.0.1:0", **direct)
    connector = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    responses = response_classes(SERVICE)
    remote = RemoteCaller(connector, [f"127.0.0.1:{port}"], responses, wait_seconds=60)
    yield remote, next(iter(remote._replicas.values()))
    await remote.close()
    await server.stop()


async def ask(remote: RemoteCaller) -> str:
    answer = await remote.call(f"/{NAME}/Echo", Text(value="asked"), RequestContext("r"))
    return str(answer.value)


async def joined(replica: Replica) -> tuple[str, int]:
    """Returns where the connection beside the stream goes, once there is one."""
    async with asyncio.timeout(60):
        while replica._direct is None or replica._direct._transport is None:
            await asyncio.sleep(0.01)
    host, port = replica._direct._transport.get_extra_info("peername")[:2]
    return str(host), int(port)


async def test_it_is_where_the_operator_says(folder: Path) -> None:
    port = free_port()
    async with called(folder, direct=f"127.0.0.3:{port}", direct_reached="127.0.0.3:0") as (
        remote,
        replica,
    ):
        assert await ask(remote) == "asked"
        assert await joined(replica) == ("127.0.0.3", port)
        assert await ask(remote) == "asked"


@pytest.mark.parametrize("everywhere", ["0.0.0.0", "[::]"])
async def test_it_listens_on_all_addresses_as_the_stream_does(
    folder: Path, everywhere: str
) -> None:
    async with called(folder, direct=f"{everywhere}:0") as (remote, replica):
        assert await ask(remote) == "asked"
        assert (await joined(replica))[0] == "127.0.0.1"


async def test_a_port_that_is_mapped_is_reached_by_its_other_name(
    folder: Path, relay: "Relay"
) -> None:
    """As through NAT: the port that is listened on is not the one by which callers reach it."""
    relay.towards = free_port()
    address = f"localhost:{relay.port}"
    async with called(folder, direct=f"127.0.0.1:{relay.towards}", direct_reached=address) as (
        remote,
        replica,
    ):
        assert await ask(remote) == "asked"
        assert (await joined(replica))[1] == relay.port
        assert await ask(remote) == "asked"


async def test_a_port_in_use_is_named(folder: Path, listener: DirectListener) -> None:
    server = InternalServer(table(), Identities(folder, DOMAIN, ["echo"]))
    address = f"127.0.0.1:{listener.port}"
    with pytest.raises(OSError, match=f"cannot listen on {address}"):
        await server.start("127.0.0.1:0", address)
    await server.stop()


class Relay:
    """Something on the way: passes bytes on to a port, or takes connections and says nothing."""

    def __init__(self) -> None:
        self.towards = 0
        self.taken = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        self._writers.append(writer)
        if self.towards:
            back, forth = await asyncio.open_connection("127.0.0.1", self.towards)
            self._writers.append(forth)
            await asyncio.gather(_pass_on(reader, forth), _pass_on(back, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay() as relay:
        yield relay


async def test_what_swallows_it_delays_nothing(
    folder: Path, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a firewall that drops packets, or a host that is not there."""
    monkeypatch.setattr(module, "_JOIN_SECONDS", 1.0)
    async with called(folder, direct_reached=f"127.0.0.1:{relay.port}") as (remote, replica):
        answers = 0
        async with asyncio.timeout(60):
            while replica._joining is None or not replica._joining.done():
                assert await ask(remote) == "asked"
                answers += 1
                await asyncio.sleep(0.01)
        assert relay.taken == 1
        assert answers > 1
        assert replica._direct is None
        assert await ask(remote) == "asked"


async def test_what_leads_to_another_replica_fails_no_call(
    folder: Path, listener: DirectListener
) -> None:
    """As a name that stands for all replicas of a service: the other one does not know the ticket."""
    reached = f"127.0.0.1:{listener.port}"
    async with called(folder, direct_reached=reached) as (remote, replica):
        async with asyncio.timeout(60):
            while replica._joining is None or not replica._joining.done():
                assert await ask(remote) == "asked"
        assert replica._direct is None
        assert await ask(remote) == "asked"
