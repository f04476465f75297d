"""Finding services through the records of the members, on a real etcd."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.waiting import until

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.directory import Directory
from strongroom_runtime.etcd.members import MEMBERS, ask_to_withdraw
from strongroom_runtime.etcd.server import EmbeddedEtcd


async def _never(address: str, prefix: str, revision: int, timeout: float) -> None:
    raise AssertionError("nobody caches anything")


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(etcd: EmbeddedEtcd) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(etcd.config)
    yield client
    await client.close()


async def member(client: EtcdClient, address: str, *services: str, ttl_seconds: int = 6) -> Cluster:
    cluster = Cluster(client, _never, ttl_seconds=ttl_seconds)
    await cluster.start(address, services[0])
    await cluster.announce(services)
    return cluster


async def test_members_are_found_while_they_serve(client: EtcdClient) -> None:
    first = await member(client, "a:1", "transit", "kv")
    directory = Directory(client)
    seen: list[frozenset[str]] = []
    directory.subscribe("transit", seen.append)
    directory.start()
    await until(lambda: directory.addresses("transit") == {"a:1"})
    assert directory.addresses("kv") == {"a:1"}
    assert directory.addresses("auth") == frozenset()
    second = await member(client, "b:1", "transit")
    await until(lambda: directory.addresses("transit") == {"a:1", "b:1"})
    await first.announce(())
    await until(lambda: directory.addresses("transit") == {"b:1"})
    await second.stop()
    await until(lambda: not directory.addresses("transit"))
    assert seen == [{"a:1"}, {"a:1", "b:1"}, {"b:1"}, frozenset()]
    await first.stop()
    await directory.stop()


async def test_one_that_died_is_gone_with_its_lease(client: EtcdClient) -> None:
    dead = await member(client, "a:1", "transit", ttl_seconds=1)
    directory = Directory(client)
    directory.start()
    await until(lambda: directory.addresses("transit") == {"a:1"})
    assert dead._task is not None
    dead._task.cancel()  # no keep-alive goes out any more
    await until(lambda: not directory.addresses("transit"))
    await directory.stop()


async def test_one_that_is_asked_to_withdraw_comes_back_with_its_services(
    client: EtcdClient,
) -> None:
    cluster = await member(client, "a:1", "transit")
    directory = Directory(client)
    directory.start()
    await until(lambda: directory.addresses("transit") == {"a:1"})
    before = cluster._key
    await ask_to_withdraw(client, before)
    await until(lambda: cluster._key != before)
    await until(lambda: directory.addresses("transit") == {"a:1"})
    await cluster.stop()
    await directory.stop()


async def test_what_was_known_stands_while_etcd_is_away(
    client: EtcdClient, etcd: EmbeddedEtcd
) -> None:
    cluster = await member(client, "a:1", "transit")
    directory = Directory(client)
    directory.start()
    await until(lambda: directory.addresses("transit") == {"a:1"})
    await etcd.kill()
    await asyncio.sleep(0.5)
    assert directory.addresses("transit") == {"a:1"}
    await etcd.start()
    other = await member(client, "b:1", "transit")
    await until(lambda: directory.addresses("transit") == {"a:1", "b:1"})
    for each in (cluster, other):
        await each.stop()
    await directory.stop()


async def test_a_record_that_cannot_be_read_hides_no_other(client: EtcdClient) -> None:
    await put(client, MEMBERS + b"transit/broken", b"no record")
    first = await member(client, "a:1", "transit")
    directory = Directory(client)
    directory.start()
    await until(lambda: directory.addresses("transit") == {"a:1"})
    await put(client, MEMBERS + b"transit/other", b"\xff")
    second = await member(client, "b:1", "transit")
    await until(lambda: directory.addresses("transit") == {"a:1", "b:1"})
    # What was a member's record, and is none any more, names nobody; the member comes back under another name.
    before = second._key
    await put(client, before, b"no record")
    await until(lambda: second._key != before)
    await until(lambda: directory.addresses("transit") == {"a:1", "b:1"})
    for each in (first, second):
        await each.stop()
    await directory.stop()


async def put(client: EtcdClient, key: bytes, value: bytes) -> None:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_put.MergeFrom(etcd_pb2.PutRequest(key=key, value=value))
    await client.transaction(request)
