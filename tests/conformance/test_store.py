"""What every `Store` does. Implementations are added to `store`'s parameters."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.fakes.store import MemoryStore

from strongroom_runtime.storage import ConflictError, Plain, Store, Transaction

A = (Plain("m"), "app", "a")
B = (Plain("m"), "app", "b")


@pytest.fixture(params=["memory"])
async def store() -> AsyncIterator[Store]:
    yield MemoryStore()


async def test_reads_back_what_a_transaction_wrote(store: Store) -> None:
    revision = await store.commit(Transaction(puts={A: b"1", B: b"2"}))
    entry = await store.get(A)
    assert entry is not None
    assert (entry.value, entry.revision) == (b"1", revision)
    assert [e.value for e in await store.scan((Plain("m"), "app"))] == [b"1", b"2"]


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


async def test_a_prefix_is_deleted_whole_and_alone(store: Store) -> None:
    other = (Plain("m"), "apple")
    await store.commit(Transaction(puts={A: b"1", B: b"2", other: b"3"}))
    await store.commit(Transaction(delete_prefixes=[(Plain("m"), "app")]))
    assert await store.get(A) is None
    assert await store.get(other) is not None


async def test_a_watch_sees_every_change_once(store: Store) -> None:
    start = await store.commit(Transaction(puts={A: b"1"}))
    await store.commit(Transaction(deletes=[A], puts={B: b"2"}))
    seen: list[tuple[bytes | None, int]] = []
    async for events in store.watch((Plain("m"),), from_revision=start):
        seen += [(e.value, e.revision - start) for e in events]
        if len(seen) == 3:
            break
    assert sorted(seen, key=str) == [(None, 1), (b"1", 0), (b"2", 1)]


async def test_a_read_set_names_absent_keys_too(store: Store) -> None:
    reads = store.reads()
    assert await reads.get(A) is None
    assert len(reads.dependencies) == 1
    assert reads.as_of >= 0
