"""One bound for the waits of many tasks."""

import asyncio

import pytest

from strongroom_gateway.http.deadline import Deadline


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_comes_in_time_is_returned() -> None:
    deadline = Deadline(60.0)

    async def answer(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def twice(number: int) -> int:
        return await deadline.wait(answer(number)) + await deadline.wait(answer(number))

    tasks = [asyncio.create_task(twice(number)) for number in range(100)]
    assert await asyncio.gather(*tasks) == [2 * number for number in range(100)]


async def test_what_fails_is_raised() -> None:
    async def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        await Deadline(60.0).wait(fail())


async def test_what_takes_too_long_is_ended_and_its_task_goes_on() -> None:
    deadline, went_on = Deadline(0.05, tick=0.01), 0

    async def patient() -> None:
        nonlocal went_on
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await deadline.wait(for_ever())
            await asyncio.sleep(0)  # it is cancelled no more
            went_on += 1

    await asyncio.gather(*(patient() for _ in range(10)))
    assert went_on == 20


async def test_who_is_cancelled_by_others_is_not_told_of_a_time() -> None:
    deadline = Deadline(60.0)
    task = asyncio.create_task(deadline.wait(for_ever()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_by_others_when_it_is_late_is_cancelled() -> None:
    deadline = Deadline(0.0, tick=0.01)

    async def waits() -> None:
        try:
            await for_ever()
        finally:
            task.cancel()  # while it is being ended

    task = asyncio.create_task(deadline.wait(waits()))
    with pytest.raises(asyncio.CancelledError):
        await task
