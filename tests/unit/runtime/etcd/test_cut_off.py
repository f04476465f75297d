"""A member of etcd that is cut off from the others, while its clients still reach it."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from tests.unit.runtime.etcd.trio import Trio

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.watch import watch, watch_once


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[Trio]:
    trio = Trio(tmp_path)
    await trio.start()
    yield trio
    await trio.stop()


async def put(client: EtcdClient, key: bytes) -> None:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_put.key = key
    await client.transaction(request)


async def put_at_last(client: EtcdClient, name: bytes) -> bytes:
    """Returns the key that was put: of each attempt another. Members of a busy machine may lose their leader."""
    async with asyncio.timeout(60):
        for attempt in itertools.count():
            key = b"%b-%d" % (name, attempt)
            with contextlib.suppress(ServiceError):
                await put(client, key)
                return key
    raise AssertionError


async def test_a_watch_at_a_member_that_is_cut_off_ends(trio: Trio) -> None:
    client = EtcdClient(EtcdConfig(trio.endpoints[:1]))
    begun = asyncio.Event()

    async def follow() -> None:
        async for _ in watch_once(client, b"k/", 1, begun.set):
            pass

    following = asyncio.create_task(follow())
    await begun.wait()
    trio.cut_off(0)
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError):
            await following
    with pytest.raises(grpc.aio.AioRpcError):  # and no other begins there
        await follow()
    await client.close()


@pytest.mark.parametrize("number", range(3))
async def test_work_goes_on_at_the_others_and_no_watch_misses_anything(
    trio: Trio, number: int
) -> None:
    client = EtcdClient(EtcdConfig(trio.endpoints))
    seen: list[list[bytes]] = [[] for _ in range(6)]  # two watches at each member

    async def follow(into: list[bytes]) -> None:
        async for each in watch(client, b"k/", 1):
            into += [event.kv.key for event in each.events]

    following = [asyncio.create_task(follow(into)) for into in seen]
    await put_at_last(client, b"k/first")
    async with asyncio.timeout(60):
        while not all(seen):
            await asyncio.sleep(0.01)
    trio.cut_off(number)
    for each in range(5):  # what was under way when its leader went may be lost
        with contextlib.suppress(ServiceError):
            await put(client, b"k/%d" % each)
    for each in range(30):
        key = await put_at_last(client, b"k/later-%d" % each)
        assert (await client.range(key)).count == 1
    found = await client.range(b"k/", b"k0")
    written = {kv.key for kv in found.kvs}
    async with asyncio.timeout(60):
        while not all(set(into) == written for into in seen):
            await asyncio.sleep(0.01)
    trio.heal()
    last = await put_at_last(client, b"k/last")
    async with asyncio.timeout(60):
        while not all(into[-1] == last for into in seen):
            await asyncio.sleep(0.01)
    assert all(len(set(into)) == len(into) for into in seen)
    for task in following:
        task.cancel()
    await client.close()
