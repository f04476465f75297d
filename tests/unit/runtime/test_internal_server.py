"""The internal server: health, drain, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table

from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.leaving import Patience
from strongroom_runtime.transport.server import InternalServer

DOMAIN = "example.test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.initialise(tmp_path, DOMAIN, ["gateway", "echo"])
    return tmp_path


@pytest.fixture
async def echo(folder: Path) -> AsyncIterator[tuple[Echo, InternalServer, int]]:
    echo = Echo()
    server = InternalServer(table(echo), Identities(folder, DOMAIN, ["echo"]), drain_seconds=5)
    port = await server.start("127.0.0.1:0")
    yield echo, server, port
    await server.stop()


async def test_health_says_serving(folder: Path, echo: tuple[Echo, InternalServer, int]) -> None:
    channel = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")(
        f"127.0.0.1:{echo[2]}"
    )
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await channel.close()


async def test_stopping_answers_what_is_under_way(
    folder: Path, echo: tuple[Echo, InternalServer, int]
) -> None:
    implementation, server, port = echo
    connect = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    remote = RemoteCaller(connect, [f"127.0.0.1:{port}"], response_classes(SERVICE))
    call = asyncio.create_task(
        remote.call(f"/{NAME}/Wait", Text(value="kept"), RequestContext("r"))
    )
    await implementation.waiting.wait()
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    implementation.release.set()
    assert (await call).value == "kept"
    await remote.close()
    await stopping


async def test_an_address_in_use_is_named(
    folder: Path, echo: tuple[Echo, InternalServer, int]
) -> None:
    second = InternalServer(table(), Identities(folder, DOMAIN, ["echo"]))
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{echo[2]}"):
        await second.start(f"127.0.0.1:{echo[2]}")
    await second.stop()


async def numbers(*values: str, then: asyncio.Event) -> AsyncIterator[Text]:
    for value in values:
        yield Text(value=value)
    await then.wait()
    yield Text(value="100")


async def test_a_stream_goes_on_at_a_server_that_leaves_and_new_ones_are_refused(
    folder: Path,
) -> None:
    server = InternalServer(table(), Identities(folder, DOMAIN, ["echo"]), drain_seconds=5)
    port = await server.start("127.0.0.1:0")
    connect = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    remote = RemoteCaller(connect, [f"127.0.0.1:{port}"], response_classes(SERVICE))
    go_on = asyncio.Event()
    stream = remote.duplex(f"/{NAME}/Sum", numbers("1", "2", then=go_on), RequestContext("r"))
    assert [(await anext(stream)).value for _ in range(2)] == ["1", "3"]
    stopping = asyncio.create_task(server.stop())
    with pytest.raises(ServiceError) as caught:
        while True:
            await remote.call(f"/{NAME}/Echo", Text(value="x"), RequestContext("r"))
    assert caught.value.kind is Kind.UNAVAILABLE
    go_on.set()
    assert [message.value async for message in stream] == ["103"]
    await stopping
    await remote.close()


@pytest.mark.parametrize("seconds", [0.2, 600])
async def test_a_stream_is_ended_when_patience_is_over(folder: Path, seconds: float) -> None:
    patience = Patience(seconds)
    server = InternalServer(table(), Identities(folder, DOMAIN, ["echo"]), patience=patience)
    port = await server.start("127.0.0.1:0")
    connect = Identities(folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    remote = RemoteCaller(connect, [f"127.0.0.1:{port}"], response_classes(SERVICE))
    stream = remote.duplex(f"/{NAME}/Sum", numbers("1", then=asyncio.Event()), RequestContext("r"))
    assert (await anext(stream)).value == "1"
    stopping = asyncio.create_task(server.stop())
    if seconds > 1:
        patience.lose()
    with pytest.raises(ServiceError, match="the process that had this stream is leaving") as caught:
        await anext(stream)
    assert caught.value.kind is Kind.UNAVAILABLE
    await stopping
    await remote.close()
