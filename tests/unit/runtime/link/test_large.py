"""Calls that are large together, or by themselves: in the stream, and on the connection beside it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table
from tests.unit.runtime.link.test_link import Served, caller, identities, served

from strongroom.link.v1 import link_pb2
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import RemoteCaller
from strongroom_runtime.link import direct as module
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.direct import parted
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.server import InternalServer

__all__ = ["identities", "served"]

DOMAIN = "example.test"
MEGABYTES = 1 << 20
# So much at once may stop the loop for longer than a connection's pings wait: it is made again then.
PATIENCE = 60.0


@pytest.fixture(params=["stream", "direct"])
async def remote(
    request: pytest.FixtureRequest, served: Served, identities: Path
) -> AsyncIterator[RemoteCaller]:
    if request.param == "stream":
        remote = caller(identities, "gateway", served.port, wait_seconds=PATIENCE)
        yield remote
        await remote.close()
        return
    server = InternalServer(table(Echo()), Identities(identities, DOMAIN, ["echo"]))
    port = await server.start("127.0.0.1:0")
    connector = Identities(identities, DOMAIN, ["gateway"]).connector("gateway", "echo")
    addresses, responses = [f"127.0.0.1:{port}"], response_classes(SERVICE)
    remote = RemoteCaller(connector, addresses, responses, wait_seconds=PATIENCE)
    replica = next(iter(remote._replicas.values()))
    async with asyncio.timeout(PATIENCE):
        while replica._direct is None:
            await asyncio.sleep(0.01)
    yield remote
    await remote.close()
    await server.stop()


async def ask(remote: RemoteCaller, method: str, size: int) -> int:
    text = Text(value="x" * size)
    answer = await remote.call(f"/{NAME}/{method}", text, RequestContext("r"))
    return len(answer.value)


async def test_large_calls_of_one_moment_harm_no_other(remote: RemoteCaller) -> None:
    sizes = [25 * MEGABYTES, 25 * MEGABYTES, 25 * MEGABYTES, 1, 2]
    assert await asyncio.gather(*(ask(remote, "Echo", size) for size in sizes)) == sizes


@pytest.mark.parametrize(
    ("method", "size", "text"),
    [
        ("Echo", 64 * MEGABYTES, "the request is too large"),
        ("Double", 33 * MEGABYTES, "the answer is too large"),
    ],
)
async def test_what_is_too_large_by_itself_fails_alone(
    remote: RemoteCaller, method: str, size: int, text: str
) -> None:
    found = await asyncio.gather(
        ask(remote, method, size), ask(remote, "Echo", 1), return_exceptions=True
    )
    assert isinstance(found[0], ServiceError)
    assert (found[0].kind, found[0].message, found[1]) == (Kind.TOO_LARGE, text, 1)
    assert await ask(remote, "Echo", 2) == 2


def test_items_are_parted_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FRAME", 1_000)
    sizes = [10, 900, 900, 5, 5, 5, 2_000, 1, 300, 300, 300, 300]
    items = [link_pb2.Call(id=n, request=b"x" * size) for n, size in enumerate(sizes)]
    parts = list(parted(items))
    assert [call.id for part in parts for call in part] == list(range(len(sizes)))
    for part in parts:
        frame = link_pb2.ExchangeRequest(calls=part)
        assert len(part) == 1 or frame.ByteSize() <= 1_000
