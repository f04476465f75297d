"""Locks by name."""

import asyncio

import pytest

from strongroom_runtime.locks import KeyedLocks


async def test_holders_of_one_key_come_one_by_one_and_of_others_at_once() -> None:
    locks, inside, most = KeyedLocks(), {"a": 0, "b": 0}, 0

    async def hold(key: str) -> None:
        nonlocal most
        async with locks.hold(key):
            inside[key] += 1
            assert inside[key] == 1
            most = max(most, sum(inside.values()))
            await asyncio.sleep(0.001)
            inside[key] -= 1

    await asyncio.gather(*(hold(key) for key in "ab" * 10))
    assert most == 2
    assert not locks._locks


async def test_one_who_gives_up_waiting_leaves_the_lock_to_the_others() -> None:
    locks = KeyedLocks()
    async with locks.hold("a"):
        waiting = [asyncio.create_task(_enter(locks)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not waiting[1].done()
    await waiting[1]
    assert not locks._locks


async def test_an_error_inside_frees_the_lock() -> None:
    locks = KeyedLocks()
    with pytest.raises(ValueError, match="inside"):
        async with locks.hold("a"):
            raise ValueError("inside")
    assert not locks._locks


async def _enter(locks: KeyedLocks) -> None:
    async with locks.hold("a"):
        pass
