"""Work that goes on, and waiting for tasks to end, while the one who waits may be cancelled as well."""

import asyncio

import pytest

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.service import BackgroundTasks
from strongroom_runtime.tasks import attempt, end, ended


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ServiceError(Kind.UNAVAILABLE, "secret"), ("work waits", "INFO", "kind", "UNAVAILABLE")),
        (ValueError("secret"), ("work failed", "ERROR", "error", "ValueError")),
    ],
)
def test_what_goes_wrong_is_logged_without_its_text(
    error: Exception, said: tuple[str, str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    message, level, name, value = said
    with attempt("cleaning"):
        raise error
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == (message, level)
    assert vars(record)["work"] == "cleaning" and vars(record)[name] == value
    assert "secret" not in str(vars(record))


async def test_an_attempt_can_be_cancelled() -> None:
    async def again_and_again() -> None:
        while True:
            with attempt("waiting"):
                await asyncio.Event().wait()

    task = asyncio.create_task(again_and_again())
    await asyncio.sleep(0)
    await end(task)
    assert task.cancelled()
