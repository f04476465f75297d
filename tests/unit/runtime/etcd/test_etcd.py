"""The client, the watch and the store against a real etcd that is restarted, killed and compacted."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path as FilePath

import pytest

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient, EtcdConfig, prefix_end
from strongroom_runtime.etcd.cluster import Cluster
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.storage import CompactedError, Path, Plain, Transaction
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity

COUNTER = (Plain("n"), "counter")


@pytest.fixture
async def server(tmp_path: FilePath) -> AsyncIterator[EmbeddedEtcd]:
    server = EmbeddedEtcd(tmp_path / "etcd")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(server: EmbeddedEtcd) -> AsyncIterator[EtcdClient]:
    client = EtcdClient(server.config)
    yield client
    await client.close()


@pytest.fixture
def store(client: EtcdClient) -> EtcdStore:
    ring = KeyRing({1: os.urandom(32)}, os.urandom(64))
    return EtcdStore(client, BarrierCodec("kv", KeyHolder(ring)))


async def write(store: EtcdStore, number: int) -> None:
    """Writes a number, again until etcd says that it is there."""
    while True:
        try:
            await store.commit(Transaction(puts={COUNTER: str(number).encode()}))
        except ServiceError:
            continue
        return


async def test_others_have_their_turns_while_a_long_list_is_decrypted(
    store: EtcdStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"name-{number:04}" for number in range(2_000)]
    for start in range(0, len(names), 100):
        puts: dict[Path, bytes] = {(Plain("m"), name): b"" for name in names[start : start + 100]}
        await store.commit(Transaction(puts=puts))
    turn, decrypted = 0, Counter[int]()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    decode = store.codec.decode_path

    def noted(key: bytes) -> Path:
        decrypted[turn] += 1
        return decode(key)

    monkeypatch.setattr(store.codec, "decode_path", noted)
    others = asyncio.create_task(take_turns())
    assert await store.children((Plain("m"),)) == [(name, False) for name in names]
    others.cancel()
    assert sum(decrypted.values()) == len(names)
    assert max(decrypted.values()) <= 500


async def test_a_watch_has_no_gap_when_etcd_is_killed(
    server: EmbeddedEtcd, store: EtcdStore
) -> None:
    revisions: list[int] = []
    values: list[int] = []

    async def follow(start: int) -> None:
        async for changes in store.watch((Plain("n"),), from_revision=start):
            for event in changes.events:
                revisions.append(event.revision)
                values.append(int(event.value or b"-1"))
            if values[-1] == 59:
                return

    following = asyncio.create_task(follow(await store.revision() + 1))
    for number in range(60):
        if number in (20, 40):
            await server.kill()
            await server.start()
        await write(store, number)
    await following
    # A write whose answer was lost may have happened twice; nothing is missing and nothing goes back.
    assert sorted(set(values)) == list(range(60))
    assert values == sorted(values)
    assert revisions == sorted(set(revisions))


async def test_what_was_acknowledged_survives_a_kill(
    server: EmbeddedEtcd, store: EtcdStore
) -> None:
    await store.commit(Transaction(puts={COUNTER: b"7"}))
    await server.kill()
    await server.start()
    entry = await store.get(COUNTER)
    assert entry is not None
    assert entry.value == b"7"


async def test_a_long_log_is_put_aside_while_etcd_writes_to_it(
    server: EmbeddedEtcd, client: EtcdClient
) -> None:
    log = server.folder / "etcd.log"
    before = log.read_bytes()
    with log.open("ab") as file:
        file.write(b"x" * (11 << 20))
    server.shorten_log()
    server.shorten_log()
    assert (server.folder / "etcd.log.1").read_bytes().startswith(before)
    await client.compact((await client.status()).header.revision)
    async with asyncio.timeout(60):
        while b"compact" not in log.read_bytes():
            await asyncio.sleep(0.05)
    assert log.read_bytes().startswith(b"{")
    assert log.stat().st_size < 100_000


async def test_a_full_etcd_says_so_and_memory_serves_on(tmp_path: FilePath) -> None:
    small = EmbeddedEtcd(tmp_path / "small", quota_mib=1)
    await small.start()
    client = EtcdClient(small.config)

    async def nobody(*_: object) -> None:
        raise AssertionError("there is no other member")

    cluster = Cluster(client, nobody, ttl_seconds=9)
    ring = KeyRing({1: os.urandom(32)}, os.urandom(64))
    store = EtcdStore(client, BarrierCodec("kv", KeyHolder(ring)), cluster)
    try:
        await cluster.start("127.0.0.1:1", "kv")
        await store.commit(Transaction(puts={COUNTER: b"1"}))
        with pytest.raises(ServiceError, match="etcd is full") as caught:
            for number in range(100):
                big = (Plain("big"), str(number))
                await store.commit(Transaction(puts={big: os.urandom(100_000)}))
        assert caught.value.kind is Kind.UNAVAILABLE
        certain = cluster._member_lease.certain_until
        async with asyncio.timeout(60):
            while cluster._member_lease.certain_until < certain + 2:
                await asyncio.sleep(0.1)
        assert await store.get(COUNTER) is not None
        assert store.made() is not None
    finally:
        await cluster.stop()
        await client.close()
        await small.stop()


async def test_a_watch_from_a_compacted_revision_says_so(
    client: EtcdClient, store: EtcdStore
) -> None:
    first = await store.commit(Transaction(puts={COUNTER: b"1"}))
    last = await store.commit(Transaction(puts={COUNTER: b"2"}))
    await client.compact(last)
    with pytest.raises(CompactedError):
        async for _ in store.watch((Plain("n"),), from_revision=first):
            pass


async def test_a_watch_without_changes_goes_on_after_what_it_saw_last_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, server: EmbeddedEtcd, client: EtcdClient, store: EtcdStore
) -> None:
    await server.stop()
    monkeypatch.setenv("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "100ms")
    await server.start()
    start = await store.revision() + 1
    watching = aiter(store.watch((Plain("n"),), from_revision=start))
    seen = asyncio.ensure_future(anext(watching))
    elsewhere = [
        await store.commit(Transaction(puts={(Plain("m"),): value})) for value in (b"1", b"2")
    ]
    while (changes := await seen).revision < elsewhere[-1]:
        assert changes.events == []
        seen = asyncio.ensure_future(anext(watching))
    assert changes.events == []

    await client.compact(elsewhere[-1])
    seen = asyncio.ensure_future(anext(watching))
    await server.kill()
    await server.start()
    await write(store, 7)
    while not (changes := await seen).events:
        seen = asyncio.ensure_future(anext(watching))
    assert [event.value for event in changes.events] == [b"7"]


async def test_children_jump_over_large_folders(store: EtcdStore) -> None:
    for start in range(0, 1200, 100):
        puts: dict[tuple[str, ...], bytes] = {
            (Plain("m"), "big", str(n)): b"x" for n in range(start, start + 100)
        }
        await store.commit(Transaction(puts=puts))
    await store.commit(Transaction(puts={(Plain("m"), "leaf"): b"x", (Plain("m"), "f", "x"): b""}))
    assert await store.children((Plain("m"),)) == [("big", True), ("f", True), ("leaf", False)]
    assert len(await store.children((Plain("m"), "big"))) == 1200
    assert len(await store.scan((Plain("m"),))) == 1202


async def test_etcd_sees_neither_names_nor_values(server: EmbeddedEtcd, store: EtcdStore) -> None:
    await store.commit(Transaction(puts={(Plain("m"), "payroll-name"): b"hunter2-value"}))
    await server.stop()
    files = [f.read_bytes() for f in server.folder.rglob("*") if f.is_file()]
    assert any(b"kv/m/~" in content for content in files)
    assert not any(b"payroll-name" in c or b"hunter2-value" in c for c in files)


async def test_an_etcd_that_is_gone_is_unavailable(tmp_path: FilePath) -> None:
    client = EtcdClient(EtcdConfig(("127.0.0.1:1",)))
    with pytest.raises(ServiceError) as caught:
        await client.range(b"a")
    assert caught.value.kind is Kind.UNAVAILABLE
    await client.close()


async def test_mutual_tls_keeps_strangers_out(tmp_path: FilePath) -> None:
    pki.initialise(tmp_path / "pki", "example.test", ["etcd", "kv"])
    pki.initialise(tmp_path / "other", "example.test", ["kv"])
    server = EmbeddedEtcd(tmp_path / "etcd", Identity.of(tmp_path / "pki", "etcd"))
    await server.start()
    endpoints = server.config.endpoints
    friend = EtcdClient(EtcdConfig(endpoints, Identity.of(tmp_path / "pki", "kv")))
    assert (await friend.range(b"a")).count == 0
    other = tmp_path / "other"
    stranger = EtcdClient(
        EtcdConfig(
            endpoints, Identity(tmp_path / "pki" / "ca.pem", other / "kv.pem", other / "kv.key")
        )
    )
    with pytest.raises(ServiceError):
        await stranger.range(b"a")
    # The same member by a name that its certificate does not have.
    port = endpoints[0].rpartition(":")[2]
    misled = EtcdClient(EtcdConfig((f"127.1:{port}",), Identity.of(tmp_path / "pki", "kv")))
    with pytest.raises(ServiceError):
        await misled.range(b"a")
    for client in (friend, stranger, misled):
        await client.close()
    await server.stop()


async def test_processes_of_its_user_reach_it_over_a_socket(tmp_path: FilePath) -> None:
    pki.initialise(tmp_path / "pki", "example.test", ["etcd"])
    server = EmbeddedEtcd(tmp_path / "etcd", Identity.of(tmp_path / "pki", "etcd"))
    await server.start()
    (endpoint,) = server.nearby.endpoints
    path = FilePath(endpoint.removeprefix("unix:"))
    assert path.is_socket()
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    client = EtcdClient(server.nearby)
    request = etcd_pb2.TxnRequest()
    put = request.success.add().request_put
    put.key, put.value = b"a", b"1"
    assert (await client.transaction(request)).succeeded
    await server.kill()  # which leaves the socket behind
    await server.start()
    assert server.nearby.endpoints == (endpoint,)
    assert (await client.range(b"a")).kvs[0].value == b"1"
    # Others still need a certificate.
    friend = EtcdClient(server.config)
    assert (await friend.range(b"a")).count == 1
    for each in (client, friend):
        await each.close()
    await server.stop()


async def test_where_there_can_be_no_socket_the_port_is_for_all(tmp_path: FilePath) -> None:
    folder = tmp_path / ("long" * 25) / "etcd"  # a socket's path has about a hundred bytes
    server = EmbeddedEtcd(folder)
    await server.start()
    assert server.nearby == server.config
    client = EtcdClient(server.nearby)
    assert (await client.range(b"a")).count == 0
    await client.close()
    await server.stop()


@pytest.mark.parametrize("endpoint", ["localhost", "localhost:", ":2379", "localhost:etcd"])
def test_endpoints_that_name_no_port_are_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="takes host:port"):
        EtcdClient(EtcdConfig(("127.0.0.1:2379", endpoint)))


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a/", b"a0"), (b"a\xff", b"b"), (b"\xff", b"\0")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
