"""Callers check whom they reach: the stream, the connection beside it, and confirmations."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.runtime.link.echo import NAME, SERVICE, Text, table

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.direct import DirectListener, connect
from strongroom_runtime.link.peers import PeerClient, PeerHandlers
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.credentials import Connector, Identities
from strongroom_runtime.transport.names import MEMBER
from strongroom_runtime.transport.server import InternalServer

DOMAIN = "example.test"
CONTEXT = RequestContext("r")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.initialise(folder, DOMAIN, ["gateway", "kv", "transit", "audit", "client"])
    return folder


def towards(folder: Path, called: str) -> Connector:
    return Identities(folder, DOMAIN, ["gateway"]).connector("gateway", called)


async def applied(prefix: str, revision: int) -> None:
    return


@contextlib.asynccontextmanager
async def serving(folder: Path, *services: str) -> AsyncIterator[str]:
    """Runs a process with some services, and gives its address."""
    handlers = table()
    PeerHandlers(applied).register(handlers)
    server = InternalServer(handlers, Identities(folder, DOMAIN, services), drain_seconds=1)
    yield f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    await server.stop()


@contextlib.asynccontextmanager
async def calling(folder: Path, called: str, *addresses: str) -> AsyncIterator[RemoteCaller]:
    connector = towards(folder, called)
    remote = RemoteCaller(connector, addresses, response_classes(SERVICE), wait_seconds=1)
    yield remote
    await remote.close()


async def ask(remote: RemoteCaller) -> str:
    answer = await remote.call(f"/{NAME}/Echo", Text(value="asked"), CONTEXT)
    return str(answer.value)


async def joined(remote: RemoteCaller) -> None:
    """Returns once the connection beside the stream is there."""
    (replica,) = remote._replicas.values()
    async with asyncio.timeout(60):
        while replica._direct is None:
            await asyncio.sleep(0.01)


async def test_a_process_gets_no_calls_for_a_service_that_its_certificate_does_not_name(
    folder: Path,
) -> None:
    async with serving(folder, "kv") as address, calling(folder, "transit", address) as remote:
        with pytest.raises(ServiceError) as caught:
            await ask(remote)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert not remote.usable


async def test_calls_go_to_the_replica_that_is_what_it_says(folder: Path) -> None:
    async with (
        serving(folder, "kv") as false,
        serving(folder, "transit") as true,
        calling(folder, "transit", false, true) as remote,
    ):
        for _ in range(20):
            assert await ask(remote) == "asked"
        assert not remote._replicas[false].usable
        assert remote._replicas[true].usable


@pytest.mark.parametrize("called", ["kv", "transit", "audit"])
async def test_a_process_of_several_services_is_known_as_each(folder: Path, called: str) -> None:
    async with (
        serving(folder, "kv", "transit", "audit") as address,
        calling(folder, called, address) as remote,
    ):
        assert await ask(remote) == "asked"
        await joined(remote)
        assert await ask(remote) == "asked"


@pytest.mark.parametrize("services", [("kv",), ("transit",), ("kv", "transit")])
async def test_any_service_confirms_as_a_member(folder: Path, services: tuple[str, ...]) -> None:
    async with serving(folder, *services) as address:
        client = PeerClient(towards(folder, MEMBER))
        await client.confirm(address, "kv/", 7)
        await client.close()


@pytest.mark.parametrize("called", [MEMBER, "kv", "client"])
async def test_a_certificate_for_etcds_clients_is_no_service(folder: Path, called: str) -> None:
    async with serving(folder, "client") as address, calling(folder, called, address) as remote:
        with pytest.raises(ServiceError) as caught:
            await ask(remote)
        assert caught.value.kind is Kind.UNAVAILABLE


@pytest.mark.parametrize(
    ("called", "shown", "joins"),
    [
        ("transit", ("kv",), False),
        ("transit", ("transit",), True),
        ("transit", ("kv", "transit"), True),
        (MEMBER, ("kv",), True),
        (MEMBER, ("client",), False),
    ],
)
async def test_beside_the_stream_too(
    folder: Path, called: str, shown: tuple[str, ...], joins: bool
) -> None:
    listener = DirectListener(Identities(folder, DOMAIN, shown).server_context())
    await listener.start("127.0.0.1:0")
    answered = asyncio.Event()

    def answer(frame: link_pb2.ExchangeRequest, connection: object) -> None:
        answered.set()

    direct = listener.admit(f"spiffe://{DOMAIN}/service/gateway", answer)
    try:
        frames = await connect(
            "127.0.0.1", direct, towards(folder, called), lambda data: None, lambda: None
        )
    except OSError:
        assert not joins
    else:
        assert joins
        frames.put(link_pb2.Call(id=1))
        await answered.wait()
        frames.close()
    finally:
        listener.stop()


async def test_where_it_is_refused_beside_the_stream_calls_stay_in_it(folder: Path) -> None:
    """As where someone else has got hold of the announced port."""
    async with serving(folder, "transit") as address, calling(folder, "transit", address) as remote:
        stranger = DirectListener(Identities(folder, DOMAIN, ["kv"]).server_context())
        await stranger.start("127.0.0.1:0")
        (replica,) = remote._replicas.values()
        assert await ask(remote) == "asked"
        await joined(remote)
        replica._direct = None
        await replica._join(link_pb2.Direct(port=stranger.port, ticket=b"x" * 32))
        assert replica._direct is None
        assert await ask(remote) == "asked"
        stranger.stop()
