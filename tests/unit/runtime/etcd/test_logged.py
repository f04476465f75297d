"""A transaction that has returned survives a crash of etcd, whichever release it is of."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from strongroom.etcd.v3 import etcd_pb2, etcd_pb2_grpc
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig
from strongroom_runtime.etcd.releases import answers_before_logging
from strongroom_runtime.etcd.server import EmbeddedEtcd

EARLY, LATER = "3.5.1", "3.5.30"


class FakeEtcd(etcd_pb2_grpc.KVServicer, etcd_pb2_grpc.MaintenanceServicer):
    """Answers transactions at once, and reads when it is told to."""

    def __init__(self) -> None:
        self.version = EARLY
        self.term = 2
        self.reads = 0
        self.tells_root_alone = False
        self.logged = asyncio.Event()

    async def Status(self, request: Any, context: Any) -> Any:
        if self.tells_root_alone:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        return etcd_pb2.StatusResponse(version=self.version)

    async def Txn(self, request: Any, context: Any) -> Any:
        header = etcd_pb2.ResponseHeader(raft_term=self.term, revision=7)
        return etcd_pb2.TxnResponse(header=header, succeeded=True)

    async def _nothing_else(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    Compact = Alarm = Defragment = _nothing_else

    async def Range(self, request: Any, context: Any) -> Any:
        self.reads += 1
        await self.logged.wait()
        header = etcd_pb2.ResponseHeader(raft_term=self.term, revision=7)
        return etcd_pb2.RangeResponse(header=header)


@pytest.fixture
async def fake() -> AsyncIterator[FakeEtcd]:
    fake = FakeEtcd()
    server = grpc.aio.server()
    etcd_pb2_grpc.add_KVServicer_to_server(fake, server)
    etcd_pb2_grpc.add_MaintenanceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    fake.client = EtcdClient(EtcdConfig((f"127.0.0.1:{port}",)))  # type: ignore[attr-defined]
    yield fake
    await fake.client.close()  # type: ignore[attr-defined]
    await server.stop(None)


def put(value: bytes) -> etcd_pb2.TxnRequest:
    request = etcd_pb2.TxnRequest()
    request.success.add().request_put.MergeFrom(etcd_pb2.PutRequest(key=b"k", value=value))
    return request


@pytest.mark.parametrize(
    ("version", "early"),
    [
        ("3.3.27", True), ("3.4.20", True), ("3.4.21", False), ("3.5.1", True), ("3.5.4", True), ("3.5.5", False),
        ("3.5.30", False), ("3.6.0", False), ("4.0.0", False), ("3.5.0-rc.1", True), ("unknown", True),
        ("3.5.5+built.here", False), ("", True), ("3.6", True),
    ],
)  # fmt: skip
def test_releases_are_known(version: str, early: bool) -> None:
    assert answers_before_logging(version) is early


async def test_a_transaction_returns_once_it_is_logged(fake: FakeEtcd) -> None:
    client: EtcdClient = fake.client  # type: ignore[attr-defined]
    running = asyncio.create_task(client.transaction(put(b"1")))
    async with asyncio.timeout(60):
        while not fake.reads:
            await asyncio.sleep(0.01)
        assert not running.done()
        fake.logged.set()
        assert (await running).succeeded


async def test_an_etcd_that_was_started_again_meanwhile_has_acknowledged_nothing(
    fake: FakeEtcd,
) -> None:
    client: EtcdClient = fake.client  # type: ignore[attr-defined]
    running = asyncio.create_task(client.transaction(put(b"1")))
    async with asyncio.timeout(60):
        while not fake.reads:
            await asyncio.sleep(0.01)
        fake.term += 1
        fake.logged.set()
        with pytest.raises(ServiceError) as caught:
            await running
    assert caught.value.kind is Kind.UNAVAILABLE


async def test_nothing_is_asked_of_releases_that_log_first(fake: FakeEtcd) -> None:
    fake.version = LATER
    client: EtcdClient = fake.client  # type: ignore[attr-defined]
    assert (await client.transaction(put(b"1"))).succeeded
    assert fake.reads == 0


async def test_releases_that_tell_theirs_to_root_alone_log_first(fake: FakeEtcd) -> None:
    fake.version, fake.tells_root_alone = LATER, True
    client: EtcdClient = fake.client  # type: ignore[attr-defined]
    for value in (b"1", b"2"):
        assert (await client.transaction(put(value))).succeeded
    assert fake.reads == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="slows the disk down with strace")
async def test_what_has_returned_is_there_after_a_crash_on_a_slow_disk(tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(tmp_path)
    await etcd.start()
    client = EtcdClient(etcd.config)
    await client.transaction(put(b"before"))
    (log,) = (tmp_path / "data" / "member" / "wal").glob("*.wal")
    slow = await asyncio.create_subprocess_exec(
        "strace", "-f", "-q", "-o", str(tmp_path / "strace"), "-p", str(etcd.pid), "-P", str(log),
        "-e", "trace=write", "-e", "inject=write:delay_enter=700000",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await asyncio.sleep(1)
        if slow.returncode is not None:
            pytest.skip("this system lets nobody trace")
        await client.transaction(put(b"after"))
    finally:
        await etcd.kill()
        await slow.wait()
        await client.close()
    await etcd.start()
    client = EtcdClient(etcd.config)
    try:
        assert (await client.range(b"k")).kvs[0].value == b"after"
    finally:
        await client.close()
        await etcd.stop()
