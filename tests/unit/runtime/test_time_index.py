"""Looking at what is due."""

import pytest
from tests.fakes.store import MemoryStore

from strongroom_runtime.storage import Plain, Transaction
from strongroom_runtime.time_index import TimeIndex

PREFIX = (Plain("due"), Plain("m"))


class Bench:
    """An index over a store, with a clock that is moved by hand, and the ends of what it looked at."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.seconds = 0.0
        self.index = TimeIndex(self.store, PREFIX, 12, 1000, monotonic=lambda: self.seconds)

    async def put(self, *moments: int) -> None:
        paths = [(*PREFIX, Plain(f"{moment:012}"), Plain(f"k{moment}")) for moment in moments]
        await self.store.commit(Transaction(puts=dict.fromkeys(paths, b"")))

    async def delete(self, *moments: int) -> None:
        paths = [(*PREFIX, Plain(f"{moment:012}"), Plain(f"k{moment}")) for moment in moments]
        await self.store.commit(Transaction(deletes=list(paths)))

    async def due(self, now: float, limit: int = 10) -> list[int]:
        return [int(entry.path[2]) for entry in await self.index.due(now, limit)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_is_due_comes_oldest_first(bench: Bench) -> None:
    await bench.put(3_000, 1_000, 2_000, 4_001)
    for _ in range(2):
        assert await bench.due(4.0) == [1_000, 2_000, 3_000]
        assert await bench.due(4.0, limit=2) == [1_000, 2_000]
    assert await bench.due(4.001) == [1_000, 2_000, 3_000, 4_001]


async def test_what_comes_long_after_is_found(bench: Bench) -> None:
    assert await bench.due(100.0) == []
    await bench.put(98_500, 40_000_000)
    assert await bench.due(100.0) == [98_500]  # filed a little late
    await bench.delete(98_500)
    assert await bench.due(39_999.999) == []
    assert await bench.due(40_000.0) == [40_000_000]
    assert await bench.due(90_000.0) == [40_000_000]


async def test_what_was_filed_long_before_is_found_by_the_next_look_at_the_beginning(
    bench: Bench,
) -> None:
    assert await bench.due(100.0) == []
    await bench.put(10_000)
    assert await bench.due(100.0) == []
    bench.seconds += 5.0
    assert await bench.due(100.0) == [10_000]


async def test_a_clock_that_went_back_hides_nothing(bench: Bench) -> None:
    assert await bench.due(100.0) == []
    await bench.put(50_000, 49_000)
    assert await bench.due(50.0) == [49_000, 50_000]


async def test_looks_stay_between_what_was_found_and_what_is_due(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.put(*range(100_000, 200_000, 1_000))
    looked: list[tuple[int, int]] = []
    scan = bench.store.scan

    async def watched(prefix, *, after, until, limit):  # type: ignore[no-untyped-def]
        looked.append((int(after[2]), int(until[2])))
        return await scan(prefix, after=after, until=until, limit=limit)

    monkeypatch.setattr(bench.store, "scan", watched)
    await bench.due(150.0)
    assert looked == [(0, 150_001)]
    looked.clear()
    assert await bench.due(150.0, limit=3) == [100_000, 101_000, 102_000]
    # Two seconds earlier than the oldest that was there, and no further than three are found.
    assert looked == [(98_000, 101_000), (101_000, 107_000)]
