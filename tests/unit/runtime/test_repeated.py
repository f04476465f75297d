"""Work that is done again and again, and what is said of it."""

import asyncio
import errno
from collections.abc import Sequence

import grpc
import pytest

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.tasks import end

AWAY = ServiceError(Kind.UNAVAILABLE, "secret")


def said(caplog: pytest.LogCaptureFixture) -> Sequence[tuple[str, object]]:
    """Returns what was logged, and of which error or after how many failures."""
    names = ("kind", "error", "failures")
    return [
        (record.getMessage(), next(vars(record)[name] for name in names if name in vars(record)))
        for record in caplog.records
    ]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AWAY, ("work waits", "INFO", "kind", "UNAVAILABLE")),
        (TimeoutError("secret"), ("work waits", "INFO", "kind", "TimeoutError")),
        (OSError(errno.ENOSPC, "secret"), ("work waits", "INFO", "kind", "OSError ENOSPC")),
        (
            grpc.aio.AioRpcError(
                grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), "secret"
            ),
            ("work waits", "INFO", "kind", "CANCELLED"),
        ),
        (ValueError("secret"), ("work failed", "ERROR", "error", "ValueError")),
    ],
)
def test_what_goes_wrong_is_logged_without_its_text(
    error: Exception, expected: tuple[str, str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    message, level, name, value = expected
    with Repeated("cleaning").turn():
        raise error
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == (message, level)
    assert vars(record)["work"] == "cleaning" and vars(record)[name] == value
    assert "secret" not in str(vars(record))


def test_it_is_said_once_for_each_kind_and_once_that_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Repeated("cleaning")
    for error in (AWAY, AWAY, ValueError(), AWAY, ValueError()):
        with work.turn():
            raise error
    for _ in range(3):
        with work.turn():
            pass
    with work.turn():
        raise AWAY
    assert said(caplog) == [
        ("work waits", "UNAVAILABLE"),
        ("work failed", "ValueError"),
        ("work goes on", 5),
        ("work waits", "UNAVAILABLE"),
    ]


def test_parts_that_go_well_say_nothing_of_those_that_do_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Repeated("cleaning")
    for _ in range(10):
        for part in ("a", "b", "c"):
            with work.turn(part):
                if part != "a":
                    raise AWAY
    assert said(caplog) == [("work waits", "UNAVAILABLE")]
    work.goes_well("b")
    assert len(caplog.records) == 1
    work.only({"a", "b"})  # c is no more
    assert said(caplog)[1:] == [("work goes on", 20)]


async def test_a_turn_that_lasts_can_say_that_it_goes_well_and_be_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, begun = Repeated("following"), asyncio.Event()

    async def follow() -> None:
        while True:
            with work.turn():
                work.goes_well()
                begun.set()
                await asyncio.Event().wait()

    work.failed(AWAY)
    task = asyncio.create_task(follow())
    await begun.wait()
    assert said(caplog)[1:] == [("work goes on", 1)]
    await end(task)
    assert task.cancelled()
    assert len(caplog.records) == 2
