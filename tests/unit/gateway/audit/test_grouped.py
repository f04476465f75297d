"""Audit entries of several requests in one call."""

import asyncio
import contextlib
from typing import Any

import pytest
from tests.garbage import no_frames_left

from strongroom.audit.v1 import audit_pb2
from strongroom_gateway.audit.grouped import Entries, GroupedAppends
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError

RECORDED = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Audit:
    """Notes the calls, and answers them when it is let."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[bytes], RequestContext]] = []
        self.error: ServiceError | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        assert method == "/strongroom.audit.v1.AuditLogService/Append"
        self.calls.append(([entry.json for entry in request.entries], context))
        await self.go.wait()
        if self.error is not None:
            raise self.error.again()
        return audit_pb2.AppendResponse()


def of_file(*entries: bytes) -> Entries:
    return [("file/", each) for each in entries]


def context(deadline: float = 0.0, traceparent: str = "") -> RequestContext:
    return RequestContext("id", "secret/data/app", deadline=deadline, traceparent=traceparent)


async def test_the_service_is_not_told_what_was_asked_for() -> None:
    audit = Audit()
    await GroupedAppends(audit).append(of_file(b"1"), context(traceparent=RECORDED))
    await GroupedAppends(audit).append(of_file(b"2"), context(5.0))
    assert [told for _, told in audit.calls] == [
        RequestContext("id", traceparent=RECORDED),
        RequestContext("id", deadline=5.0),
    ]


async def test_what_is_ready_at_once_goes_in_one_call_in_order() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    await asyncio.gather(
        *(grouped.append(of_file(b"%d" % n, b"%d'" % n), context()) for n in range(3))
    )
    await grouped.append(of_file(b"later"), context())
    assert [entries for entries, _ in audit.calls] == [
        [b"0", b"0'", b"1", b"1'", b"2", b"2'"],
        [b"later"],
    ]


async def test_an_answer_waits_for_its_own_entries_alone() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    audit.go.clear()
    first = asyncio.create_task(grouped.append(of_file(b"1"), context()))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(grouped.append(of_file(b"2"), context()))
    await asyncio.sleep(0.01)
    assert len(audit.calls) == 2
    assert not first.done()
    audit.go.set()
    await asyncio.gather(first, second)


async def test_all_of_a_call_learn_that_it_failed() -> None:
    audit = Audit()
    audit.error = ServiceError(Kind.UNAVAILABLE, "full")
    results = await asyncio.gather(
        *(GroupedAppends(audit).append(of_file(b"x"), context()) for _ in range(2)),
        return_exceptions=True,
    )
    assert [getattr(each, "message", "") for each in results] == ["full", "full"]
    assert results[0] is not results[1]


async def test_what_is_recorded_goes_by_itself() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    await asyncio.gather(
        grouped.append(of_file(b"1"), context()),
        grouped.append(of_file(b"2"), context(traceparent=RECORDED)),
    )
    assert sorted(entries for entries, _ in audit.calls) == [[b"1"], [b"2"]]
    assert {each.traceparent for _, each in audit.calls} == {"", RECORDED}


async def test_the_one_with_the_most_time_gives_its_own() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    for deadlines, longest in (((5.0, 9.0, 7.0), 9.0), ((5.0, 0.0), 0.0)):
        await asyncio.gather(
            *(grouped.append(of_file(b"x"), context(deadline)) for deadline in deadlines)
        )
        assert audit.calls[-1][1].deadline == longest


async def test_entries_are_written_even_if_who_asked_is_gone() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    gone = asyncio.create_task(grouped.append(of_file(b"gone"), context()))
    stays = asyncio.create_task(grouped.append(of_file(b"stays"), context()))
    await asyncio.sleep(0)
    gone.cancel()
    await stays
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert audit.calls[0][0] == [b"gone", b"stays"]


async def test_large_ones_are_not_put_together() -> None:
    audit = Audit()
    grouped = GroupedAppends(audit)
    await asyncio.gather(*(grouped.append(of_file(bytes(400_000)), context()) for _ in range(5)))
    assert [len(entries) for entries, _ in audit.calls] == [2, 2, 1]


async def test_what_could_not_be_written_leaves_nothing_in_memory() -> None:
    audit = Audit()
    audit.error = ServiceError(Kind.UNAVAILABLE, "the disk is full")
    grouped = GroupedAppends(audit)
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(ServiceError):
                await grouped.append(of_file(b"x"), context())
