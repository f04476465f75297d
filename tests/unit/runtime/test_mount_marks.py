"""How long it is remembered that mounts were disabled."""

from tests.fakes.store import MemoryStore

from strongroom_runtime.clock import ManualClock
from strongroom_runtime.mount_marks import GoneMarks, mark_gone
from strongroom_runtime.storage import Plain

DAY = 86_400


async def test_all_marks_go_after_a_day_however_many_come() -> None:
    """A page of them a day was forgotten: who disables more mounts than that filled etcd."""
    store, clock, dropped = MemoryStore(), ManualClock(), list[str]()

    async def drop(mount: str) -> None:
        dropped.append(mount)

    marks = GoneMarks(store, clock, drop)
    old = [f"old-{number}" for number in range(250)]
    for mount in old:
        await mark_gone(store, mount)
    await marks.once()
    clock.advance(DAY - 1)
    # In the order of their keys these come first.
    new = [f"new-{number}" for number in range(250)]
    for mount in new:
        await mark_gone(store, mount)
    await marks.once()
    assert not dropped
    clock.advance(1)
    await marks.once()
    assert sorted(dropped) == sorted(old)
    left = [str(entry.path[1]) for entry in await store.scan((Plain("gone"),))]
    assert sorted(left) == sorted(new)
    clock.advance(DAY)
    await marks.once()
    assert await store.scan(()) == []


async def test_a_mark_stays_while_it_is_needed() -> None:
    store, clock, needed = MemoryStore(), ManualClock(), {"busy"}

    async def drop(mount: str) -> None:
        assert mount not in needed

    async def is_needed(mount: str) -> bool:
        return mount in needed

    marks = GoneMarks(store, clock, drop, is_needed)
    for mount in ("busy", "idle"):
        await mark_gone(store, mount)
    for _ in range(3):
        await marks.once()
        clock.advance(DAY)
    assert [str(entry.path[1]) for entry in await store.scan((Plain("gone"),))] == ["busy"]
    needed.clear()
    await marks.once()
    assert await store.scan(()) == []
