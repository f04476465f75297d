"""An etcd that is restored from a backup, or replaced by another, under a process that runs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests import snapshots
from tests.waiting import until

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.codec import RawCodec
from strongroom_runtime.etcd.lineage import Lineage
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.storage import Plain, Transaction

A = (Plain("a"),)


class Process:
    """What a process has of etcd."""

    def __init__(self, etcd: EmbeddedEtcd) -> None:
        self.lineage = Lineage()
        self.breaks = 0
        self.lineage.on_break(self._broke)
        self.client = EtcdClient(replace(etcd.config, timeout_seconds=30), self.lineage)
        self.cluster = Cluster(self.client, _confirm)
        self.store = EtcdStore(self.client, RawCodec("kv"), self.cluster)

    async def start(self) -> "Process":
        await self.cluster.start("a:1", "kv")
        await until(lambda: self.cluster.certain() and self.cluster.view("kv/").live)
        return self

    async def stop(self) -> None:
        await self.cluster.stop()
        await self.client.close()

    async def write(self, value: bytes) -> None:
        await self.store.commit(Transaction(puts={A: value}))

    async def value(self) -> bytes | None:
        entry = await self.store.get(A)
        return entry.value if entry is not None else None

    def _broke(self) -> None:
        self.breaks += 1


async def _confirm(address: str, prefix: str, revision: int, timeout: float) -> None:
    raise ServiceError(Kind.UNAVAILABLE, "nobody answers")


@pytest.fixture
async def etcd(tmp_path: Path) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    yield server
    await server.stop()


@pytest.mark.parametrize("token", ["etcd-cluster", "restored"])
async def test_what_rests_on_a_restored_etcd_is_served_no_more(
    etcd: EmbeddedEtcd, tmp_path: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = await Process(etcd).start()
    await process.write(b"1")
    snapshots.save(etcd.config, tmp_path / "snapshot")
    for number in range(2, 20):
        await process.write(b"%d" % number)
    assert await process.value() == b"19"
    await etcd.stop()
    snapshots.restore(tmp_path / "snapshot", etcd.folder, token)
    await etcd.start()
    # The keep-alive of the membership finds it out, whether or not there are requests.
    await until(lambda: process.breaks == 1)
    assert not process.cluster.certain()
    for ask in (process.value, process.store.revision, lambda: process.write(b"lost")):
        with pytest.raises(ServiceError, match="restored or replaced") as caught:
            await ask()
        assert caught.value.kind is Kind.UNAVAILABLE
    async with asyncio.timeout(60):
        await process.stop()
    assert process.breaks == 1
    (said,) = (vars(each) for each in caplog.records if each.levelname == "CRITICAL")
    if said["reason"] == "its revision went back":
        assert said["revision"] < said["seen_revision"]
        assert said["member"] == said["seen_at_member"] != "0"
    # Who begins anew has what was restored, and nothing of what came after.
    anew = await Process(etcd).start()
    assert await anew.value() == b"1"
    await anew.write(b"2")
    assert (await anew.value(), anew.breaks) == (b"2", 0)
    await anew.stop()


async def test_a_crash_of_etcd_is_no_restore(etcd: EmbeddedEtcd) -> None:
    process = await Process(etcd).start()
    for number in range(3):
        await process.write(b"%d" % number)
        await etcd.kill()
        await etcd.start()
        assert await process.value() == b"%d" % number
    await until(process.cluster.certain)
    assert process.breaks == 0
    await process.stop()


async def test_answers_that_overtake_each_other_are_no_restore(etcd: EmbeddedEtcd) -> None:
    process = await Process(etcd).start()

    async def write(number: int) -> None:
        await process.store.commit(Transaction(puts={(Plain(f"k{number}"),): b"x" * 20_000}))

    async def read(number: int) -> None:
        await asyncio.sleep(number % 7 / 1000)
        # Large and small answers, of different connections' turns, beside transactions.
        await process.client.range(b"kv/", b"kv0" if number % 2 else b"", limit=200)

    await asyncio.gather(*(write(n) for n in range(300)), *(read(n) for n in range(300)))
    assert process.breaks == 0
    await process.stop()


def test_only_what_was_asked_for_later_has_to_be_as_new() -> None:
    lineage = Lineage()
    first, second = lineage.begin(), lineage.begin()
    lineage.take(_header(7), first)
    lineage.take(_header(5), second)
    lineage.take(_header(4))  # of a member that is behind
    third = lineage.begin()
    assert third == 7
    with pytest.raises(ServiceError):
        lineage.take(_header(6), third)
    with pytest.raises(ServiceError):
        lineage.take(_header(8), third)
    with pytest.raises(ServiceError):
        lineage.begin()


def test_another_cluster_is_noticed_whatever_its_revision() -> None:
    lineage = Lineage()
    lineage.take(_header(7))
    with pytest.raises(ServiceError):
        lineage.take(_header(100, cluster=2))


def _header(revision: int, cluster: int = 1) -> etcd_pb2.ResponseHeader:
    return etcd_pb2.ResponseHeader(cluster_id=cluster, revision=revision)
