"""What every `Store` does. Implementations are added to `store`'s parameters."""

import asyncio
import os
import pathlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from prometheus_client import generate_latest
from tests.fakes.store import MemoryStore

from strongroom.etcd.v3 import etcd_pb2
from strongroom_runtime.barrier import BarrierCodec, KeyHolder, KeyRing
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.etcd.client import EtcdClient
from strongroom_runtime.etcd.server import EmbeddedEtcd
from strongroom_runtime.etcd.store import EtcdStore
from strongroom_runtime.storage import (
    MAX_BYTES,
    MAX_OPERATIONS,
    ConflictError,
    Path,
    Plain,
    Store,
    Transaction,
    going_past,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

A = (Plain("m"), "app", "a")
B = (Plain("m"), "app", "b")


def _m(number: int) -> Path:
    return (Plain("m"), str(number))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd(shared_folder: pathlib.Path) -> AsyncIterator[EtcdClient]:
    server = EmbeddedEtcd(shared_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL", "100ms")
        await server.start()
    client = EtcdClient(server.config)
    yield client
    await client.close()
    await server.stop()


@pytest_asyncio.fixture(params=["memory", "etcd"], loop_scope="module")
async def store(request: pytest.FixtureRequest, etcd: EtcdClient) -> Store:
    if request.param == "memory":
        return MemoryStore()
    # A new key ring each time: what an earlier test stored lies under another service's prefix.
    ring = KeyRing({1: os.urandom(32)}, os.urandom(64))
    return EtcdStore(etcd, BarrierCodec(f"test-{os.urandom(4).hex()}", KeyHolder(ring)))


async def test_reads_back_what_a_transaction_wrote(store: Store) -> None:
    revision = await store.commit(Transaction(puts={A: b"1", B: b"2"}))
    entry = await store.get(A)
    assert entry is not None
    assert (entry.value, entry.revision) == (b"1", revision)
    below = await store.scan((Plain("m"), "app"))
    assert {e.path: e.value for e in below} == {A: b"1", B: b"2"}


async def test_many_are_read_at_once(store: Store) -> None:
    await store.commit(Transaction(puts={A: b"1"}))
    revision = await store.commit(Transaction(puts={B: b"2"}))
    one, none, two = await store.get_many([A, (Plain("m"), "app", "none"), B])
    assert one is not None
    assert two is not None
    assert none is None
    assert (one.path, one.value) == (A, b"1")
    assert (two.path, two.value, two.revision) == (B, b"2", revision)
    paths = [_m(number) for number in range(MAX_OPERATIONS)]
    assert await store.get_many(paths) == [None] * MAX_OPERATIONS
    assert await store.get_many([]) == []


async def test_changes_that_were_joined_are_made_together(store: Store) -> None:
    joined, made = Transaction(), 0
    while joined.join(Transaction(expect={_m(made): 0}, puts={_m(made): b"x" * 20})):
        made += 1
    assert made == MAX_OPERATIONS
    revision = await store.commit(joined)
    assert {entry.revision for entry in await store.scan((Plain("m"),))} == {revision}
    large = Transaction(puts={A: b"x" * (MAX_BYTES // 2)})
    assert not large.join(Transaction(puts={B: b"x"}))


async def test_folders_are_found_whatever_lies_in_them(store: Store) -> None:
    for path in ((Plain("m"), "a"), (Plain("m"), "b", "x"), (Plain("m"), "b", "y")):
        await store.commit(Transaction(puts={path: b""}))
    await store.commit(Transaction(puts={(Plain("m"), "c", "x", "y"): b"", (Plain("n"), "d"): b""}))
    assert await store.folders((Plain("m"),)) == ["b", "c"]
    assert await store.folders((Plain("m"), "c")) == ["x"]
    assert await store.folders((Plain("none"),)) == []


async def test_folders_with_plain_names_are_found_in_pages(store: Store) -> None:
    for name in ("a", "b-1", "b-2", "b-3", "c"):
        await store.commit(Transaction(puts={(Plain("m"), Plain(name), "x"): b""}))
    await store.commit(Transaction(puts={(Plain("m"), Plain("b-0")): b""}))
    assert await store.folders((Plain("m"),), limit=2) == ["a", "b-1"]
    assert await store.folders((Plain("m"),), after="b-1", limit=2) == ["b-2", "b-3"]
    assert await store.folders((Plain("m"),), after="b-") == ["b-1", "b-2", "b-3", "c"]
    assert await store.folders((Plain("m"),), after="c", limit=2) == []


async def test_a_conflict_changes_nothing(store: Store) -> None:
    await store.commit(Transaction(puts={A: b"1"}))
    with pytest.raises(ConflictError):
        await store.commit(Transaction(expect={A: 0}, puts={A: b"2", B: b"2"}))
    assert await store.get(B) is None


async def test_one_of_many_writers_wins(store: Store) -> None:
    async def write(value: bytes) -> bool:
        try:
            await store.commit(Transaction(expect={A: 0}, puts={A: value}))
        except ConflictError:
            return False
        return True

    won = await asyncio.gather(*(write(str(n).encode()) for n in range(12)))
    assert sum(won) == 1
    entry = await store.get(A)
    assert entry is not None
    assert entry.value == str(won.index(True)).encode()


async def test_children_tell_folders_from_entries(store: Store) -> None:
    await store.commit(Transaction(puts={A: b"1", (*A, "deep"): b"2", B: b"3"}))
    assert await store.children((Plain("m"), "app")) == [("a", False), ("a", True), ("b", False)]


async def test_counts_what_lies_below_a_prefix(store: Store) -> None:
    other = (Plain("m"), "apple")
    await store.commit(Transaction(puts={A: b"1", (*A, "deep"): b"2", B: b"3", other: b"4"}))
    assert await store.count((Plain("m"), "app")) == 3
    assert await store.count(A) == 1
    assert await store.count((Plain("none"),)) == 0


async def test_a_prefix_is_deleted_whole_and_alone(store: Store) -> None:
    other = (Plain("m"), "apple")
    await store.commit(Transaction(puts={A: b"1", B: b"2", other: b"3"}))
    await store.commit(Transaction(delete_prefixes=[(Plain("m"), "app")]))
    assert await store.get(A) is None
    assert await store.get(other) is not None


async def test_a_range_is_deleted_up_to_its_end_alone(store: Store) -> None:
    numbered: list[Path] = [(*A, Plain(f"{number:03}")) for number in range(300)]
    for begin in (0, 100, 200):
        await store.commit(Transaction(puts=dict.fromkeys(numbered[begin : begin + 100], b"")))
    newest = (*A, Plain("300"))
    removal = [(numbered[2], numbered[250])]
    await store.commit(Transaction(puts={newest: b"", B: b""}, delete_ranges=removal))
    left = [entry.path for entry in await store.scan(A)]
    assert left == [*numbered[:2], *numbered[250:], newest]


async def test_what_lies_below_a_prefix_is_cleared_however_much_it_is(store: Store) -> None:
    other = (Plain("m"), "apple")
    await store.commit(Transaction(puts={other: b"kept", (Plain("m"), "app"): b"kept"}))
    for begin in range(0, 2_500, 100):
        puts: dict[Path, bytes] = {(*A, str(n)): b"" for n in range(begin, begin + 100)}
        await store.commit(Transaction(puts=puts))
    await store.clear((Plain("m"), "app"))
    assert await store.count((Plain("m"), "app")) == 0
    assert [entry.value for entry in await store.scan((Plain("m"),))] == [b"kept", b"kept"]
    await store.clear((Plain("m"), "app"))


async def test_a_watch_sees_every_change_once(store: Store) -> None:
    start = await store.commit(Transaction(puts={A: b"1"}))
    await store.commit(Transaction(deletes=[A], puts={B: b"2"}))
    seen: list[tuple[bytes | None, int]] = []
    async for changes in store.watch((Plain("m"),), from_revision=start):
        seen += [(e.value, e.revision - start) for e in changes.events]
        if len(seen) == 3:
            break
    assert sorted(seen, key=str) == [(None, 1), (b"1", 0), (b"2", 1)]


async def test_a_watch_says_how_far_it_is_where_nothing_changes(store: Store) -> None:
    first = await store.commit(Transaction(puts={A: b"1"}))
    last = await store.commit(Transaction(puts={(Plain("n"),): b"1"}))
    if isinstance(store, MemoryStore):
        store.notice()
    seen: list[tuple[int, int]] = []
    async for changes in store.watch((Plain("m"),), from_revision=first):
        seen.append((changes.revision, len(changes.events)))
        if changes.revision >= last:
            break
    assert seen[0] == (first, 1)
    assert [count for _, count in seen[1:]] == [0] * len(seen[1:])
    assert seen == sorted(set(seen))


async def test_a_read_set_names_absent_keys_too(store: Store) -> None:
    reads = store.reads()
    assert await reads.get(A) is None
    assert len(reads.dependencies) == 1
    assert reads.as_of >= 0


async def test_a_scan_goes_on_behind_an_entry(store: Store) -> None:
    paths = [(Plain("due"), Plain(f"{n:04}")) for n in range(25)]
    for path in paths:
        await store.commit(Transaction(puts={path: b"x"}))
    first = await store.scan((Plain("due"),), limit=10)
    assert [e.path for e in first] == paths[:10]
    rest = await store.scan((Plain("due"),), after=first[-1].path)
    assert [e.path for e in rest] == paths[10:]


async def test_plain_names_come_before_others(store: Store) -> None:
    plain = [(Plain("m"), Plain(name)) for name in ("0", "A", "Z", "a", "zz")]
    other = [(Plain("m"), name) for name in ("1", "b")] + [(Plain("m"), "c", Plain("0"))]
    for path in (*other, *plain):
        await store.commit(Transaction(puts={path: b"x"}))
    assert [e.path for e in await store.scan((Plain("m"),), limit=5)] == plain
    behind = await store.scan((Plain("m"),), after=(Plain("m"), Plain("zzz")))
    assert {e.path for e in behind} == set(other)


async def test_a_name_may_hold_any_character(store: Store) -> None:
    names = ["a b", "ü/", "~x", "%2e", "..", "\n", "x" * 500]
    for name in names:
        await store.commit(Transaction(puts={(Plain("m"), name): name.encode()}))
    assert {name for name, _ in await store.children((Plain("m"),))} == set(names)
    for name in names:
        entry = await store.get((Plain("m"), name))
        assert entry is not None
        assert entry.value == name.encode()


@pytest.mark.parametrize("size", [121, 200])
async def test_too_many_operations_are_refused_before_anything_is_written(
    store: Store, size: int
) -> None:
    puts: dict[Path, bytes] = {(Plain("m"), str(n)): b"x" for n in range(size)}
    with pytest.raises(ServiceError) as caught:
        await store.commit(Transaction(puts={**puts, A: b"x"}))
    assert caught.value.kind is Kind.TOO_LARGE
    assert await store.get(A) is None


async def test_too_large_a_value_is_refused(store: Store) -> None:
    with pytest.raises(ServiceError) as caught:
        await store.commit(Transaction(puts={A: b"x" * 1_500_000}))
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    "change",
    [
        Transaction(puts={A: b"x"}, deletes=[A]),
        Transaction(deletes=[A, A]),
        Transaction(puts={A: b"x"}, delete_prefixes=[(Plain("m"),)]),
    ],
)
async def test_a_change_that_contradicts_itself_is_refused(
    store: Store, change: Transaction
) -> None:
    with pytest.raises(ValueError, match="a transaction"):
        await store.commit(change)
    assert await store.get(A) is None


async def test_a_scan_goes_past_what_does_not_open_where_it_is_told_to(
    store: Store, etcd: EtcdClient, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [_m(number) for number in range(5)]
    await store.commit(Transaction(puts=dict.fromkeys(paths, b"secret")))
    first, *rest = [entry.path for entry in await store.scan((Plain("m"),))]
    await _break(store, etcd, first)
    with pytest.raises(ServiceError) as caught:
        await store.scan((Plain("m"),))
    assert caught.value.kind is Kind.INTERNAL
    assert [e.path for e in await store.scan((Plain("m"),), past_unreadable=True)] == rest
    found = await store.scan((Plain("m"),), limit=2, past_unreadable=True)
    assert [entry.path for entry in found] == rest[:2]
    with going_past(store, first):
        await store.get(first)
    with pytest.raises(ConflictError), going_past(store, first):
        raise ConflictError
    if isinstance(store, EtcdStore):
        # Named once, by its key alone, and counted each time.
        (record,) = [each for each in caplog.records if "cannot be read" in each.message]
        key = store.codec.encode_path(first).decode()
        assert (record.__dict__["key"], record.__dict__["error"]) == (key, "ServiceError")
        shown = generate_latest(store._metrics.registry).decode()
        assert (
            f'strongroom_store_unreadable_entries_total{{service="{key.partition("/")[0]}"}} 3.0'
            in shown
        )


async def test_a_key_that_the_barrier_did_not_make_stops_no_scan(etcd: EtcdClient) -> None:
    service = f"test-{os.urandom(4).hex()}"
    ring = KeyRing({1: os.urandom(32)}, os.urandom(64))
    store = EtcdStore(etcd, BarrierCodec(service, KeyHolder(ring)))
    await store.commit(Transaction(puts={A: b"1"}))
    for foreign in (b"m/\xff", b"m/~none/x", "m/\u00e4".encode(), b"m//x"):
        await _put(etcd, service.encode() + b"/" + foreign, b"")
    assert [e.path for e in await store.scan((Plain("m"),), past_unreadable=True)] == [A]


async def _break(store: Store, etcd: EtcdClient, path: Path) -> None:
    if isinstance(store, MemoryStore):
        store.broken.add(path)
    elif isinstance(store, EtcdStore):
        await _put(etcd, store.codec.encode_path(path), b"no sealed value")


async def _put(etcd: EtcdClient, key: bytes, value: bytes) -> None:
    request = etcd_pb2.TxnRequest()
    put = request.success.add().request_put
    put.key, put.value = key, value
    await etcd.transaction(request)
