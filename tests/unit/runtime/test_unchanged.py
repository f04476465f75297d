"""Looks in the background while nothing changes."""

from tests.fakes.store import MemoryStore

from strongroom_runtime.storage import Plain, Transaction
from strongroom_runtime.unchanged import unless_unchanged

PATH = (Plain("a"), "b")


async def test_what_was_found_is_found_again_without_a_look_until_something_changes() -> None:
    store, looks = MemoryStore(), 0

    async def look() -> list[str]:
        nonlocal looks
        looks += 1
        return [str(entry.path[-1]) for entry in await store.scan((Plain("a"),))]

    for _ in range(3):
        assert await unless_unchanged(store, "look", look) == []
    assert looks == 1
    await store.commit(Transaction(puts={PATH: b""}))
    for _ in range(3):
        assert await unless_unchanged(store, "look", look) == ["b"]
    assert looks == 2


async def test_what_changes_during_a_look_is_not_missed() -> None:
    store = MemoryStore()

    async def look() -> list[str]:
        found = [str(entry.path[-1]) for entry in await store.scan((Plain("a"),))]
        await store.commit(Transaction(puts={PATH: b""}))
        return found

    assert await unless_unchanged(store, "look", look) == []
    assert await unless_unchanged(store, "look", look) == ["b"]


async def test_nothing_is_remembered_where_memory_is_not_certain() -> None:
    class Uncertain(MemoryStore):
        def made(self) -> None:
            return None

    looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        return looks

    store = Uncertain()
    assert [await unless_unchanged(store, "look", look) for _ in range(2)] == [1, 2]
