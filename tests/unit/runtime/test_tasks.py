"""Waiting for tasks to end, while the one who waits may be cancelled as well."""

import asyncio

import pytest

from strongroom_runtime.service import BackgroundTasks
from strongroom_runtime.tasks import EndedError, end, ended, to_its_end, unless


async def slowly(begun: asyncio.Event, release: asyncio.Event) -> None:
    """Takes a while to end when it is cancelled."""
    try:
        begun.set()
        await asyncio.Event().wait()
    finally:
        await release.wait()


async def test_a_task_is_cancelled_and_waited_for() -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(slowly(begun, release))
    await begun.wait()
    ending = asyncio.create_task(end(task))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not ending.done()
    release.set()
    await ending
    assert task.cancelled()


async def test_who_waits_can_be_cancelled() -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    tasks = BackgroundTasks()
    tasks.start(slowly(begun, release), "slowly")
    await begun.wait()
    waiting = asyncio.create_task(tasks.stop())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    await tasks.stop()


async def test_what_went_wrong_is_raised() -> None:
    async def fail() -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await ended(asyncio.create_task(fail()))


async def test_one_that_has_ended_is_no_error() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await end(task)


async def test_background_work_that_ends_with_an_error_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("hunter2")

    tasks = BackgroundTasks()
    tasks.start(fail(), "some-work")
    await asyncio.sleep(0.01)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert (record.task, record.error) == ("some-work", "ValueError")  # type: ignore[attr-defined]
    await tasks.stop()


async def test_work_gives_what_it_has_unless_it_is_ended_before() -> None:
    event = asyncio.Event()
    assert await unless(event, asyncio.sleep(0, "done")) == "done"
    begun, ended_ = asyncio.Event(), asyncio.Event()
    ended_.set()
    asyncio.get_running_loop().call_soon(event.set)
    with pytest.raises(EndedError):
        await unless(event, slowly(begun, ended_))


async def test_work_that_fails_says_why() -> None:
    async def fail() -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await unless(asyncio.Event(), fail())


async def test_work_goes_on_when_the_one_who_waits_is_cancelled() -> None:
    release, done = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        await release.wait()
        done.set()
        return 7

    waiting = asyncio.create_task(to_its_end(work()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled()
    release.set()
    await asyncio.wait_for(done.wait(), 20)
    assert await to_its_end(work()) == 7


async def test_what_work_raises_is_raised_to_the_one_who_waits() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await to_its_end(work())
