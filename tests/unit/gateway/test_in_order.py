"""Work on what a stream brings: in order, bounded, and ended with it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from strongroom_gateway.streams import in_order
from strongroom_runtime.errors import Kind, ServiceError


async def numbers(count: int, taken: list[int]) -> AsyncGenerator[int]:
    for n in range(1, count + 1):
        taken.append(n)
        yield n


async def test_results_come_in_order_whatever_ends_first() -> None:
    async def work(n: int) -> int:
        await asyncio.sleep(0.003 * (5 - n % 5))
        return n

    results = [n async for n in in_order(numbers(40, []), work, 4)]
    assert results == list(range(1, 41))
    assert [n async for n in in_order(numbers(0, []), work, 4)] == []


async def test_no_more_is_taken_than_was_answered_and_the_width() -> None:
    taken: list[int] = []

    async def work(n: int) -> int:
        return n

    results = in_order(numbers(100, taken), work, 4)
    for expected in (1, 2, 3):
        assert await anext(results) == expected
        for _ in range(50):
            await asyncio.sleep(0)
        # Each one that is being looked at counts: the reader has it, but it has not come back for the next.
        assert len(taken) == expected - 1 + 4
    await results.aclose()


async def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    async def broken() -> AsyncGenerator[int]:
        yield 1
        yield 2
        raise ServiceError(Kind.DENIED, "revoked")

    async def work(n: int) -> int:
        await asyncio.sleep(0.01)
        return n

    results = in_order(broken(), work, 4)
    assert [await anext(results), await anext(results)] == [1, 2]
    with pytest.raises(ServiceError):
        await anext(results)


async def test_an_error_of_the_work_ends_what_is_under_way() -> None:
    ended: list[int] = []

    async def work(n: int) -> int:
        if n == 1:
            raise ServiceError(Kind.INVALID, "no")
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(n)
        return n

    with pytest.raises(ServiceError):
        async for _ in in_order(numbers(100, []), work, 4):
            pass
    assert set(ended) <= {2, 3, 4}
    assert len(asyncio.all_tasks()) == 1
