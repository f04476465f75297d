"""One time for all replicas."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.fakes.store import MemoryStore

from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.shared_clock import SharedClock


@contextlib.asynccontextmanager
async def running(*clocks: SharedClock) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(clock.run()) for clock in clocks]
    try:
        for clock in clocks:
            await clock.ready()
        await asyncio.sleep(0.01)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_replica_takes_the_time_of_those_that_run() -> None:
    store, right = MemoryStore(), ManualClock()
    first = SharedClock(store, right, 0.05)
    async with running(first):
        for offset in (300.0, -300.0):
            late = SharedClock(store, ManualClock(right.now() + offset), patience=60)
            await late.find()
            assert late.now() == first.now()


async def test_a_step_of_the_machines_clock_changes_nothing() -> None:
    machine = ManualClock()
    clock = SharedClock(MemoryStore(), machine, 0.05)
    await clock.find()
    before = clock.now()
    machine._now += 300
    assert clock.now() == before
    machine.advance(5)
    assert clock.now() == before + 5


async def test_the_time_never_goes_back_behind_what_was_told() -> None:
    store, machine = MemoryStore(), ManualClock()
    await SharedClock(store, machine, 0.05).find()
    restarted = SharedClock(store, ManualClock(machine.now() - 300), patience=0.01)
    await restarted.find()
    assert restarted.now() == machine.now()


async def test_after_a_night_without_any_replica_it_is_the_next_day() -> None:
    store, machine = MemoryStore(), ManualClock()
    await SharedClock(store, machine, 0.05).find()
    restarted = SharedClock(store, ManualClock(machine.now() + 40_000), patience=0.01)
    await restarted.find()
    assert restarted.now() == machine.now() + 40_000


async def test_of_two_timelines_the_elder_wins() -> None:
    store, right = MemoryStore(), ManualClock()
    first = SharedClock(store, right, 0.05)
    # Started while nobody answered: on its own machine's time, which is wrong.
    second = SharedClock(store, ManualClock(right.now() + 300), patience=0.01)
    await first.find()
    await second.find()
    assert second.now() == first.now() + 300
    async with running(first, second):
        async with asyncio.timeout(60):
            while second.now() != first.now():
                await asyncio.sleep(0.01)
    assert first.now() == right.now()


async def test_two_that_start_at_once_agree() -> None:
    store, right = MemoryStore(), ManualClock()
    await SharedClock(store, right, 0.05).find()
    pair = [
        SharedClock(store, ManualClock(right.now() + offset), patience=0.05)
        for offset in (0.0, 300.0)
    ]
    async with running(*pair), asyncio.timeout(60):
        while pair[0].now() != pair[1].now():
            await asyncio.sleep(0.01)


async def test_nobody_knows_the_time_before_it_was_found() -> None:
    clock = SharedClock(MemoryStore(), ManualClock(), 0.05)
    with pytest.raises(ServiceError):
        clock.now()
    await clock.find()
    clock.forget()
    with pytest.raises(ServiceError):
        clock.now()
