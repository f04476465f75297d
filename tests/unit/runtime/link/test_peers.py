"""Confirmations between processes."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.runtime.link.echo import NAME, SERVICE, Text, table

from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link.client import RemoteCaller, response_classes
from strongroom_runtime.link.peers import PeerClient, PeerHandlers
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.credentials import Identities
from strongroom_runtime.transport.names import MEMBER
from strongroom_runtime.transport.server import InternalServer

DOMAIN = "example.test"


async def test_a_writer_waits_until_the_peer_has_applied(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "auth"])
    applied = asyncio.Event()
    asked: list[tuple[str, int]] = []

    async def wait(prefix: str, revision: int) -> None:
        asked.append((prefix, revision))
        await applied.wait()

    handlers = table()
    PeerHandlers(wait).register(handlers)
    server = InternalServer(handlers, Identities(tmp_path, DOMAIN, ["kv"]), 1)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    client = PeerClient(Identities(tmp_path, DOMAIN, ["auth"]).connector("auth", MEMBER))
    with pytest.raises(ServiceError) as caught:
        await client.confirm(address, "kv/", 7, timeout_seconds=0.1)
    assert caught.value.kind is Kind.UNAVAILABLE
    applied.set()
    await client.confirm(address, "kv/", 7)
    assert asked == [("kv/", 7), ("kv/", 7)]
    await client.close()
    await server.stop()


async def test_a_member_confirms_before_it_takes_calls_and_while_it_drains(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "echo"])

    async def wait(prefix: str, revision: int) -> None:
        return

    handlers = table()
    PeerHandlers(wait).register(handlers)
    # Without keys: two that start together, and write, would else wait for each other.
    server = InternalServer(
        handlers, Identities(tmp_path, DOMAIN, ["echo"]), 1, takes=lambda: False
    )
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    connect = Identities(tmp_path, DOMAIN, ["kv"]).connector("kv", MEMBER)
    before, after = PeerClient(connect), PeerClient(connect)
    await before.confirm(address, "kv/", 1)
    await server.drain()
    # Streams that are still open may keep it for minutes.
    await before.confirm(address, "kv/", 2)
    await after.confirm(address, "kv/", 3)
    for client in (before, after):
        await client.close()
    await server.stop()


async def test_a_members_stream_carries_nothing_else(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["gateway", "echo"])
    server = InternalServer(table(), Identities(tmp_path, DOMAIN, ["echo"]), 1, takes=lambda: False)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    connect = Identities(tmp_path, DOMAIN, ["gateway"]).connector("gateway", "echo")
    member = RemoteCaller(connect, [address], response_classes(SERVICE), as_member=True)
    with pytest.raises(ServiceError) as caught:
        await member.call(f"/{NAME}/Echo", Text(value="x"), RequestContext("r"))
    assert caught.value.kind is Kind.UNSUPPORTED
    await member.close()
    await server.stop()


async def test_a_peer_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv"])
    client = PeerClient(Identities(tmp_path, DOMAIN, ["kv"]).connector("kv", MEMBER))
    with pytest.raises(ServiceError) as caught:
        await client.confirm("127.0.0.1:1", "kv/", 7, timeout_seconds=1)
    assert caught.value.kind is Kind.UNAVAILABLE
    await client.close()


async def test_a_link_that_is_not_used_is_ended_and_made_again(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "auth"])

    async def wait(prefix: str, revision: int) -> None:
        return

    handlers = table()
    PeerHandlers(wait).register(handlers)
    server = InternalServer(handlers, Identities(tmp_path, DOMAIN, ["kv"]), 1)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    client = PeerClient(
        Identities(tmp_path, DOMAIN, ["auth"]).connector("auth", MEMBER), idle_seconds=0.1
    )
    for _ in range(2):
        await client.confirm(address, "kv/", 7, timeout_seconds=60)
        assert client._links
        async with asyncio.timeout(60):
            while client._links:
                await asyncio.sleep(0.02)
    await client.close()
    await server.stop()


async def test_a_link_over_which_somebody_waits_is_in_use(tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["kv", "auth"])

    async def wait(prefix: str, revision: int) -> None:
        await asyncio.sleep(0.5)

    handlers = table()
    PeerHandlers(wait).register(handlers)
    server = InternalServer(handlers, Identities(tmp_path, DOMAIN, ["kv"]), 1)
    address = f"127.0.0.1:{await server.start('127.0.0.1:0')}"
    client = PeerClient(
        Identities(tmp_path, DOMAIN, ["auth"]).connector("auth", MEMBER), idle_seconds=0.1
    )
    await client.confirm(address, "kv/", 7, timeout_seconds=60)
    await client.close()
    await server.stop()
