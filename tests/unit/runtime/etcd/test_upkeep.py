"""An etcd with a small quota that is written many times over, that is full, and whose history is kept for a time."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.etcd_tools import etcdctl

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.upkeep import History, Upkeep
from strongroom_runtime.etcd.watch import watch_once
from strongroom_runtime.storage import CompactedError

QUOTA_MIB = 16
MIB = 1 << 20
SIZE = 100_000
# What is freed can be written again after etcd's next commit, which may be 0.1 s away. So small a quota has no room
# for all that is written meanwhile.
PACE_SECONDS = 0.02


class Time:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd", quota_mib=QUOTA_MIB)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: EmbeddedEtcd) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(server.config)
    yield client
    await client.close()


@pytest.fixture
async def upkeep(server: EmbeddedEtcd, time: Time) -> AsyncIterator[Upkeep]:
    upkeep = Upkeep(server.config, server.quota_bytes, time)
    yield upkeep
    await upkeep.close()


async def put(client: EtcdClient, key: bytes, value: bytes = b"") -> int:
    request = etcd_pb2.TxnRequest()
    operation = request.success.add().request_put
    operation.key, operation.value = key, value
    return (await client.transaction(request)).header.revision


async def delete(client: EtcdClient, key: bytes) -> int:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_delete_range.key = key
    return (await client.transaction(request)).header.revision


async def fill(client: EtcdClient, key: bytes) -> None:
    """Writes a key until etcd is full."""
    with pytest.raises(ServiceError, match="etcd is full"):
        for number in range(2 * QUOTA_MIB * MIB // SIZE):
            await put(client, key % number if b"%" in key else key, os.urandom(SIZE))


async def changes(client: EtcdClient, from_revision: int) -> list[etcd_pb2.Event]:
    """Returns the changes of the first revision that a watch from a revision on tells of."""
    async for seen in watch_once(client, b"", from_revision):
        return seen.events
    raise AssertionError("the watch ended")


@pytest.mark.parametrize(("quota_mib", "size"), [(16, 10_000), (48, 100_000)])
async def test_etcd_is_written_many_times_its_quota(
    tmp_path: Path, quota_mib: int, size: int
) -> None:
    server = EmbeddedEtcd(tmp_path / "etcd", quota_mib=quota_mib)
    await server.start()
    client, upkeep = EtcdClient(server.config), Upkeep(server.config, server.quota_bytes)
    try:
        await upkeep.begin()
        for _ in range(4 * quota_mib):
            value = os.urandom(size)
            await asyncio.gather(*(put(client, b"k%d" % n, value) for n in range(-(-MIB // size))))
            await upkeep.look()
            await asyncio.sleep(2 * PACE_SECONDS)
        assert not (await client.status()).errors
    finally:
        await upkeep.close()
        await client.close()
        await server.stop()


async def test_data_that_leave_little_room_leave_little_history(
    client: EtcdClient, upkeep: Upkeep
) -> None:
    for number in range(9 * MIB // SIZE):
        await put(client, b"kept%d" % number, os.urandom(SIZE))
    await upkeep.begin()
    for _ in range(2 * QUOTA_MIB * MIB // SIZE):
        await put(client, b"changed", os.urandom(SIZE))
        await upkeep.look()
        await asyncio.sleep(PACE_SECONDS)
    assert not (await client.status()).errors


async def test_a_full_etcd_takes_changes_again_once_its_history_is_forgotten(
    server: EmbeddedEtcd, client: EtcdClient, upkeep: Upkeep
) -> None:
    await fill(client, b"changed")
    await server.stop()
    await server.start()
    with pytest.raises(ServiceError, match="etcd is full"):
        await put(client, b"changed")
    await upkeep.begin()
    await put(client, b"changed")
    assert (await client.status()).db_size < 3 * MIB


async def test_a_running_etcd_that_is_full_is_mended(client: EtcdClient, upkeep: Upkeep) -> None:
    await upkeep.begin()
    await fill(client, b"changed")
    await upkeep.look()
    await put(client, b"changed")


async def test_an_etcd_full_of_data_says_so_and_is_mended_once_some_are_gone(
    server: EmbeddedEtcd,
    client: EtcdClient,
    upkeep: Upkeep,
    time: Time,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await fill(client, b"data%d")
    await upkeep.look()
    assert "full of data" in caplog.text
    with pytest.raises(ServiceError, match="etcd is full"):
        await put(client, b"more")
    # By etcd's own tool: a transaction of deletions is refused where the last writes went beyond the quota.
    await asyncio.to_thread(etcdctl, server.config, "del", "data1", "data2")
    time.seconds += 60
    await upkeep.look()
    await put(client, b"more")


async def test_a_file_that_is_nearly_full_of_nothing_is_given_back(
    client: EtcdClient, upkeep: Upkeep
) -> None:
    while (await client.status()).db_size < QUOTA_MIB * MIB * 0.9:
        await put(client, b"changed", os.urandom(SIZE // 4))
    await client.compact((await client.status()).header.revision)
    while (await client.status()).db_size_in_use > 3 * MIB:
        await put(client, b"changed")  # etcd counts what it freed with a later change
    await upkeep.look()
    assert (await client.status()).db_size < 3 * MIB


async def test_history_is_kept_for_an_hour(client: EtcdClient, upkeep: Upkeep, time: Time) -> None:
    first = await put(client, b"watched", b"1")
    await upkeep.look()
    time.seconds += 3599
    second = await put(client, b"watched", b"2")
    await upkeep.look()
    assert (await changes(client, first))[0].kv.value == b"1"
    time.seconds += 600
    await upkeep.look()
    with pytest.raises(CompactedError):
        await changes(client, first)
    assert (await changes(client, second))[0].kv.value == b"2"


async def test_a_watch_goes_on_without_a_gap_or_is_refused(
    client: EtcdClient, upkeep: Upkeep, time: Time
) -> None:
    """Wherever the history is cut: a watch from there on must tell of a deletion just before it, or not begin."""
    await put(client, b"watched", b"1")
    deleted = await delete(client, b"watched")
    await upkeep.look()
    time.seconds += 4000
    await upkeep.look()
    with pytest.raises(CompactedError):
        await changes(client, deleted)


async def test_who_is_idle_writes_nothing(client: EtcdClient, upkeep: Upkeep, time: Time) -> None:
    await put(client, b"once")
    await upkeep.look()
    before = (await client.status()).header.revision
    for _ in range(100):
        time.seconds += 100
        await upkeep.look()
    assert (await client.status()).header.revision == before


def test_what_was_known_of_an_etcd_before_it_was_restored_is_forgotten() -> None:
    history = History(kept_seconds=10)
    history.add(1.0, 5000)
    history.add(2.0, 70)
    assert history.half() == 70
    assert history.outdated(20.0) == 70


def test_half_of_the_history_is_by_revisions() -> None:
    history = History()
    for now, revision in ((1.0, 10), (2.0, 20), (3.0, 900), (4.0, 1000)):
        history.add(now, revision)
    assert history.half() == 900
    history.forget(900)
    assert history.half() == 1000
    history.forget(1000)
    assert history.half() == 0
    assert history.newest == 1000
