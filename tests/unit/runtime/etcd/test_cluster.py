"""Several members on one etcd: a read that starts after a write has returned sees it, on every member."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.waiting import until

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.cache import Invalidation
from strongroom_runtime.etcd.client import EtcdClient, prefix_end
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.http2 import Stream
from strongroom_runtime.etcd.members import MEMBERS, bury
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.record import Record
from strongroom_runtime.storage import ConflictError, Entry, Plain, Transaction

RING = KeyRing({1: os.urandom(32)}, os.urandom(64))
SHORT = 2  # seconds: of the leases whose end a test waits for
A = (Plain("m"), "a")
B = (Plain("m"), "b")


@dataclass
class Network:
    """Carries confirmations between the members of a test, or does not."""

    members: dict[str, Cluster] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    asked: int = 0

    async def confirm(self, address: str, prefix: str, revision: int, timeout: float) -> None:
        self.asked += 1
        if address in self.cut:
            await asyncio.sleep(0.05)
            raise ServiceError(Kind.UNAVAILABLE, "cut off")
        await self.members[address].applied(prefix, revision)


@dataclass
class Node:
    """One member with a store."""

    name: str
    client: EtcdClient
    cluster: Cluster
    store: EtcdStore
    keys: KeyHolder

    async def serves_from_memory(self) -> None:
        """Waits until reads need no etcd."""
        view = self.cluster.view("kv/")
        while not (view.live and self.cluster.certain()):
            await asyncio.sleep(0.01)

    async def value(self) -> bytes | None:
        entry = await self.store.get(A)
        return entry.value if entry else None

    async def write(self, value: bytes) -> int:
        return await self.store.commit(Transaction(puts={A: value}))

    def stop_like_a_stopped_process(self) -> None:
        """No keep-alive goes out any more, and no memory is dropped."""
        task = self.cluster._task
        assert task is not None
        task.cancel()


@dataclass
class Platform:
    """Members whose leases outlast what keeps a machine busy, where a test does not wait for their end."""

    server: EmbeddedEtcd
    network: Network
    join: Callable[..., Awaitable[Node]]


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    network = Network()
    nodes: list[Node] = []

    async def join(name: str, process: str = "", ttl_seconds: int = 60) -> Node:
        client = EtcdClient(server.config)
        cluster = Cluster(client, network.confirm, ttl_seconds=ttl_seconds)
        keys = KeyHolder(RING)
        store = EtcdStore(client, BarrierCodec("kv", keys), cluster)
        keys.on_seal.append(store.forget)
        network.members[name] = cluster
        await cluster.start(name, "kv", process)
        node = Node(name, client, cluster, store, keys)
        nodes.append(node)
        await node.serves_from_memory()
        return node

    yield Platform(server, network, join)
    for node in nodes:
        await node.cluster.stop()
        await node.client.close()
    await server.stop()


async def test_members_know_which_of_them_are_gone(platform: Platform) -> None:
    one, other = await platform.join("one"), await platform.join("other")
    record = other.cluster.record
    assert record not in ("", one.cluster.record)
    assert not await one.cluster.is_gone(record)
    await other.cluster.stop()
    assert await one.cluster.is_gone(record)
    # Of what is no member's record nothing is known.
    assert not await one.cluster.is_gone("0a1b2c")
    assert not await one.cluster.is_gone("")


async def test_a_write_on_one_is_seen_by_all_at_once(platform: Platform) -> None:
    writer, *readers = [await platform.join(name) for name in ("a", "b", "c")]
    for number in range(300):
        await writer.write(b"%d" % number)
        for reader in readers:
            assert await reader.value() == b"%d" % number


async def test_a_deletion_of_a_prefix_is_seen_at_once(platform: Platform) -> None:
    one, other = await platform.join("a"), await platform.join("b")
    for _ in range(20):
        await one.write(b"x")
        assert (await one.value(), await other.value()) == (b"x", b"x")
        await one.store.commit(Transaction(delete_prefixes=[(Plain("m"),)]))
        assert (await one.value(), await other.value()) == (None, None)


async def test_reads_come_from_memory_and_alone_a_write_asks_nobody(platform: Platform) -> None:
    node = await platform.join("a")
    await node.write(b"x")
    assert await node.value() == b"x"
    loads = 0
    load = node.store._load

    async def counted(key: bytes):  # type: ignore[no-untyped-def]
        nonlocal loads
        loads += 1
        return await load(key)

    node.store._load = counted  # type: ignore[method-assign]
    for _ in range(10):
        assert await node.value() == b"x"
    assert (loads, platform.network.asked) == (0, 0)


async def test_a_write_waits_for_a_member_that_has_not_applied_it(platform: Platform) -> None:
    writer, reader = await platform.join("a"), await platform.join("b")
    assert await reader.value() is None
    release = asyncio.Event()
    view = reader.cluster.view("kv/")
    reached = view.reached

    async def slowly(revision: int) -> None:
        await release.wait()
        await reached(revision)

    view.reached = slowly  # type: ignore[method-assign]
    writing = asyncio.create_task(writer.write(b"x"))
    await asyncio.sleep(0.1)
    assert not writing.done()
    release.set()
    await writing
    assert await reader.value() == b"x"


async def test_many_writes_share_confirmations(platform: Platform) -> None:
    writer, reader = await platform.join("a"), await platform.join("b")
    await reader.value()
    paths = [(Plain("m"), str(n)) for n in range(200)]
    await asyncio.gather(*(writer.store.commit(Transaction(puts={path: b"x"})) for path in paths))
    assert platform.network.asked < 150
    assert all([await reader.store.get(path) for path in paths])


async def test_a_stopped_member_never_serves_what_was_revoked(platform: Platform) -> None:
    writer, stopped = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]
    await writer.write(b"old")
    assert await stopped.value() == b"old"
    platform.network.cut.add("b")
    stopped.stop_like_a_stopped_process()
    await writer.write(b"new")
    # The write returned: from now on, whatever the other one still holds, it does not answer with it.
    assert not stopped.cluster.certain()
    assert await stopped.value() == b"new"


class StaleLeader:
    """Renews leases as a leader does that is one no more: its term is over.

    Args:
        stream: renews them.
        ttl: what it says of their time; None for what it is.
    """

    def __init__(self, stream: Stream, ttl: int | None) -> None:
        self._stream = stream
        self._ttl = ttl

    async def write(self, request: etcd_pb2.LeaseKeepAliveRequest) -> None:
        await self._stream.write(request)

    async def read(self) -> etcd_pb2.LeaseKeepAliveResponse:
        answer: etcd_pb2.LeaseKeepAliveResponse = await self._stream.read()
        answer.header.raft_term -= 1
        if self._ttl is not None:
            answer.TTL = self._ttl
        return answer


@pytest.mark.parametrize("ttl", [None, 0])
async def test_a_leader_that_is_one_no_more_renews_no_membership(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, ttl: int | None
) -> None:
    renewing = EtcdClient.renewing

    @contextlib.asynccontextmanager
    async def stale(client: EtcdClient) -> AsyncIterator[StaleLeader]:
        async with renewing(client) as stream:
            yield StaleLeader(stream, ttl)

    monkeypatch.setattr(EtcdClient, "renewing", stale)
    node = await platform.join("a", ttl_seconds=5)
    (record,) = (await node.client.range(MEMBERS, prefix_end(MEMBERS))).kvs
    await until(lambda: not node.cluster.certain())
    # Nor does it end one: whether the lease still stands, the others know.
    assert (await node.client.range(record.key)).kvs


async def test_a_member_that_cannot_be_reached_is_asked_to_withdraw(platform: Platform) -> None:
    writer, cut_off = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]
    await writer.write(b"old")
    assert await cut_off.value() == b"old"
    platform.network.cut.add("b")
    before = cut_off.cluster._key
    await writer.write(b"new")
    assert await cut_off.value() == b"new"
    platform.network.cut.clear()
    await cut_off.serves_from_memory()
    assert cut_off.cluster._key != before
    await writer.write(b"newer")
    assert await cut_off.value() == b"newer"


async def test_a_member_that_leaves_is_not_waited_for(platform: Platform) -> None:
    writer, leaving = await platform.join("a"), await platform.join("b")
    platform.network.cut.add("b")
    await leaving.cluster.stop()
    await asyncio.wait_for(writer.write(b"x"), 30)  # its lease would last longer
    assert await leaving.value() == b"x"  # it still answers, by asking etcd


async def test_a_member_that_is_known_to_be_dead_is_not_waited_for(platform: Platform) -> None:
    writer = await platform.join("a", "p1")
    dead = await platform.join("b", "p2", ttl_seconds=600)
    alive = await platform.join("c", "p22")
    dead.stop_like_a_stopped_process()
    platform.network.cut.add("b")
    writing = asyncio.create_task(writer.write(b"x"))
    await asyncio.wait({writing}, timeout=0.5)
    assert not writing.done()
    assert await bury(writer.client, "p2") == 1
    await asyncio.wait_for(writing, 60)
    # Nobody else's membership was touched.
    assert await bury(writer.client, "p2") == 0
    assert await bury(writer.client, "p") == 0
    assert await alive.value() == b"x"
    assert platform.network.members["c"].certain()


async def test_a_write_waits_for_a_member_whose_record_cannot_be_read(platform: Platform) -> None:
    writer, other = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]
    await writer.write(b"old")
    assert await other.value() == b"old"
    # As a later version might write it. The member behind it serves from memory, and nobody knows where to ask.
    before = other.cluster._key
    await put(writer.client, before, b"no record", other.cluster._lease)
    platform.network.cut.add("b")  # so that it learns of nothing in any other way
    other.stop_like_a_stopped_process()
    assert await other.value() == b"old"
    await writer.write(b"new")
    assert not other.cluster.certain()
    assert await other.value() == b"new"


async def test_a_member_whose_record_is_written_over_registers_anew(platform: Platform) -> None:
    writer, other = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]
    before = other.cluster._key
    await put(writer.client, before, b"no record", 0)
    for number in range(5):
        await asyncio.wait_for(writer.write(b"%d" % number), 60)
        assert await other.value() == b"%d" % number
    await other.serves_from_memory()
    assert other.cluster._key != before


async def test_what_is_no_members_record_keeps_no_write_waiting_for_ever(
    platform: Platform,
) -> None:
    writer = await platform.join("a", ttl_seconds=SHORT)
    key = MEMBERS + b"kv/none"
    await put(writer.client, key, b"no record", 0)
    async with asyncio.timeout(60):
        await writer.write(b"1")
        await writer.write(b"2")
    assert (
        await writer.client.range(key)
    ).kvs  # only its writer, or a lease, removes what stands there


async def test_an_address_that_cannot_be_asked_is_one_that_does_not_answer(
    platform: Platform,
) -> None:
    writer, other = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]

    async def broken(*_: object) -> None:
        raise ValueError("no address")

    writer.cluster._confirm = broken
    async with asyncio.timeout(60):
        await writer.write(b"new")
    assert await other.value() == b"new"


async def put(client: EtcdClient, key: bytes, value: bytes, lease: int) -> None:
    request = etcd_pb2.TxnRequest()
    record = etcd_pb2.PutRequest(key=key, value=value, lease=lease)
    request.success.add().request_put.MergeFrom(record)
    await client.transaction(request)


async def test_members_agree_again_after_etcd_was_killed(platform: Platform) -> None:
    one, other = [await platform.join(name, ttl_seconds=SHORT) for name in ("a", "b")]
    await one.write(b"before")
    assert await other.value() == b"before"
    await platform.server.kill()
    await platform.server.start()
    for number in range(50):
        try:
            await one.write(b"%d" % number)
        except ServiceError:
            continue  # etcd was not back yet; the write may or may not have happened
        assert await other.value() == b"%d" % number
    await one.serves_from_memory()
    await other.serves_from_memory()
    await one.write(b"after")
    assert await other.value() == b"after"


async def test_check_and_set_over_members_has_one_winner(platform: Platform) -> None:
    nodes = [await platform.join(name) for name in ("a", "b", "c")]
    for _ in range(20):
        entry = await nodes[0].store.get(A)
        revision = entry.revision if entry else 0

        async def attempt(number: int, revision: int = revision) -> bool:
            change = Transaction(expect={A: revision}, puts={A: b"%d" % number})
            try:
                await nodes[number % 3].store.commit(change)
            except ConflictError:
                return False
            return True

        won = await asyncio.gather(*(attempt(n) for n in range(12)))
        assert sum(won) == 1
        values = {await node.value() for node in nodes}
        assert values == {b"%d" % won.index(True)}


async def test_nothing_decrypted_outlives_the_keys(platform: Platform) -> None:
    node = await platform.join("a")
    await node.write(b"x")
    assert await node.value() == b"x"
    node.keys.replace(None)
    with pytest.raises(ServiceError) as caught:
        await node.value()
    assert caught.value.kind is Kind.SEALED
    assert node.store._cache is not None
    assert len(node.store._cache) == 0


async def test_what_is_made_of_a_record_is_made_anew_on_every_member(platform: Platform) -> None:
    writer, reader = await platform.join("a"), await platform.join("b")
    made: list[bytes | None] = []

    def make(entry: Entry | None) -> bytes:
        made.append(entry.value if entry else None)
        return entry.value if entry else b"nothing"

    record = Record(reader.store, A, make)
    assert [await record.current() for _ in range(3)] == [b"nothing"] * 3
    for number in range(100):
        await writer.write(b"%d" % number)
        assert [await record.current() for _ in range(2)] == [b"%d" % number] * 2
    await writer.store.commit(Transaction(puts={B: b"another"}))
    assert await record.current() == b"99"
    assert made == [None, *(b"%d" % number for number in range(100))]
    reader.keys.replace(None)
    with pytest.raises(ServiceError) as caught:
        await record.current()
    assert caught.value.kind is Kind.SEALED
    assert reader.store.made() == {}


async def test_what_was_begun_before_a_change_is_not_kept(platform: Platform) -> None:
    writer, reader = await platform.join("a"), await platform.join("b")
    for _ in range(2):
        begun = reader.store.made()
        assert begun == {}
        await writer.write(b"newer")
        begun[A] = b"older"  # what was read before, and takes until now
        assert reader.store.made() == {}
    begun = reader.store.made()
    reader.store.forget()
    assert reader.store.made() is not begun


async def test_what_is_made_does_not_outlive_certainty(platform: Platform) -> None:
    stopped = await platform.join("a", ttl_seconds=SHORT)
    record = Record(stopped.store, A, lambda entry: entry.value if entry else b"")
    await stopped.write(b"before")
    async with asyncio.timeout(60):
        # The watch tells of the write as well, mostly before it returns.
        while stopped.store.made() != {record: b"before"}:
            assert await record.current() == b"before"
    stopped.stop_like_a_stopped_process()
    async with asyncio.timeout(60):
        while stopped.cluster.certain():
            await asyncio.sleep(0.05)
    assert stopped.store.made() is None
    other = await platform.join("b")
    await other.write(b"after")
    assert await record.current() == b"after"


async def test_an_answer_is_kept_only_while_its_keys_stand(platform: Platform) -> None:
    auth = await platform.join("a")
    client = EtcdClient(platform.server.config)
    gateway = Cluster(client, platform.network.confirm, ttl_seconds=60)
    changed: list[bytes] = []
    forgotten: list[bool] = []
    view = gateway.view("kv/")
    invalidation = Invalidation(view, changed.append, lambda: forgotten.append(True))
    platform.network.members["g"] = gateway
    await gateway.start("g", "gateway")
    while not view.live:
        await asyncio.sleep(0.01)
    reads = auth.store.reads(linearizable=True)
    assert await reads.get(A) is None
    assert invalidation.may_keep(reads.dependencies, reads.as_of)
    await auth.write(b"x")
    assert changed == reads.dependencies
    assert not invalidation.may_keep(reads.dependencies, reads.as_of)
    again = auth.store.reads()
    await again.get(A)
    assert invalidation.may_keep(again.dependencies, again.as_of)
    await gateway.stop()
    assert forgotten
    assert not invalidation.may_keep(again.dependencies, again.as_of)
    await gateway.client.close()


async def test_a_cache_is_bounded(platform: Platform) -> None:
    node = await platform.join("a")
    cache = node.store._cache
    assert cache is not None
    cache._max_entries = 10
    for number in range(30):
        await node.store.get((Plain("m"), str(number)))
    assert len(cache) == 10
    cache._max_bytes = 3000
    await node.store.get((Plain("m"), "more"))
    assert len(cache) < 5


async def test_a_cache_counts_what_is_made_of_its_values(platform: Platform) -> None:
    """An opened value and an answer with it stay with an entry, beside what stands in etcd."""
    node = await platform.join("a")
    cache = node.store._cache
    assert cache is not None
    size = 100_000
    cache._max_bytes = 10 * size
    for number in range(12):
        path = (Plain("m"), str(number))
        await node.store.commit(Transaction(puts={path: os.urandom(size)}))
        entry = await node.store.get(path)
        assert entry is not None
        entry.made = bytes(entry.value)
    held = sum(
        len(cached.raw or b"") + len(cached.decoded.value) + len(cached.decoded.made)
        for cached in cache.entries.values()
        if cached.decoded is not None
    )
    assert 0 < held <= cache._max_bytes
