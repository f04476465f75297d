"""Looking at what is due."""

from collections.abc import Iterator

import pytest
from tests.fakes.store import MemoryStore

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import ConflictError, Path, Plain, Transaction
from strongroom_runtime.time_index import Rest, TimeIndex, all_due

PREFIX = (Plain("due"), Plain("m"))


class Bench:
    """An index over a store, with a clock that is moved by hand, and the ends of what it looked at."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.seconds = 0.0
        self.index = TimeIndex(self.store, PREFIX, 12, 1, 1000, monotonic=lambda: self.seconds)

    def paths(self, *moments: int) -> Iterator[Path]:
        return ((*PREFIX, Plain(f"{moment:012}"), Plain(f"k{moment}")) for moment in moments)

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

    async def watched(prefix, *, after, until, **options):  # type: ignore[no-untyped-def]
        looked.append((int(after[2]), int(until[2])))
        return await scan(prefix, after=after, until=until, **options)

    monkeypatch.setattr(bench.store, "scan", watched)
    await bench.due(150.0)
    assert looked == [(0, 150_001)]
    looked.clear()
    assert await bench.due(150.0, limit=3) == [100_000, 101_000, 102_000]
    # Two seconds earlier than the oldest that was there, and no further than three are found.
    assert looked == [(98_000, 101_000), (101_000, 107_000)]


async def test_what_cannot_be_read_keeps_no_other_waiting_and_is_looked_at_again(
    bench: Bench,
) -> None:
    await bench.put(*range(1_000, 9_000, 1_000))
    bench.store.broken = set(bench.paths(1_000, 2_000, 3_000))
    assert await bench.due(10.0, limit=2) == [4_000, 5_000]
    assert {path for path, _ in bench.store.noted} == bench.store.broken
    bench.seconds += 5.0
    bench.store.broken.clear()
    assert await bench.due(10.0, limit=2) == [1_000, 2_000]


@pytest.mark.parametrize("seconds", [0.0, 5.0])
async def test_what_leads_to_something_unreadable_is_left_out_for_a_minute(
    bench: Bench, seconds: float
) -> None:
    await bench.put(*range(1_000, 9_000, 1_000))
    for entry in await bench.index.due(10.0, 3):
        with bench.index.going_past(entry.path):
            raise ServiceError(Kind.INTERNAL, "a stored value does not open")
    assert [path for path, _ in bench.store.noted] == list(bench.paths(1_000, 2_000, 3_000))
    bench.seconds += seconds
    assert await bench.due(10.0, limit=3) == [4_000, 5_000, 6_000]
    bench.seconds += 61.0
    assert await bench.due(10.0, limit=3) == [1_000, 2_000, 3_000]


async def test_a_store_that_is_away_is_no_unreadable_record(bench: Bench) -> None:
    await bench.put(1_000)
    (entry,) = await bench.index.due(10.0, 3)
    for error in (ServiceError(Kind.UNAVAILABLE), ServiceError(Kind.SEALED), ConflictError()):
        with pytest.raises(type(error)), bench.index.going_past(entry.path):
            raise error
    assert bench.store.noted == []
    assert await bench.due(10.0, limit=3) == [1_000]


async def test_what_is_no_entry_of_the_index_is_passed_over(bench: Bench) -> None:
    await bench.put(2_000)
    wrong: list[Path] = [
        (*PREFIX, Plain("000000001000")),
        (*PREFIX, Plain("000000001000"), Plain("k"), Plain("more")),
        (*PREFIX, Plain("00000000100a"), Plain("k")),
        (*PREFIX, Plain("0000000010000"), Plain("k")),
    ]
    await bench.store.commit(Transaction(puts=dict.fromkeys(wrong, b"")))
    assert await bench.due(10.0, limit=1) == []
    for _ in range(4):
        bench.seconds += 5.0
        found = await bench.due(10.0, limit=1)
    assert found == [2_000]
    assert [e.path[2] async for e in all_due(bench.store, PREFIX, 12, 1, 10_000)] == [
        "000000002000"
    ]


async def test_nothing_is_looked_at_while_nothing_is_due_and_nothing_changes(bench: Bench) -> None:
    await bench.put(30_000, 200_000)
    for _ in range(2):
        assert await bench.due(10.0) == []
    asked = bench.store.looks
    for second in range(11, 30):
        bench.seconds = second
        assert await bench.due(second) == []
    assert bench.store.looks == asked
    assert await bench.due(30.0) == [30_000]
    await bench.delete(30_000)
    # No longer than for a minute, whatever comes next.
    for _ in range(2):
        assert await bench.due(40.0) == []
    asked = bench.store.looks
    assert await bench.due(99.9) == []
    assert bench.store.looks == asked
    assert await bench.due(100.0) == []
    assert bench.store.looks > asked


async def test_what_is_filed_meanwhile_is_found_at_once(bench: Bench) -> None:
    for _ in range(3):
        assert await bench.due(10.0) == []
    await bench.put(10_500)
    assert await bench.due(10.5) == [10_500]


async def test_all_due_rests_as_well(bench: Bench) -> None:
    rest = Rest(bench.store, PREFIX, 12, 1000)

    async def due(last: int) -> list[int]:
        found = all_due(bench.store, PREFIX, 12, 1, last, rest)
        return [int(entry.path[2]) async for entry in found]

    await bench.put(30_000)
    for _ in range(2):
        assert await due(10_000) == []
    asked = bench.store.looks
    assert await due(29_999) == []
    assert bench.store.looks == asked
    assert await due(30_000) == [30_000]
    await bench.put(20_000)
    assert await due(30_000) == [20_000, 30_000]
