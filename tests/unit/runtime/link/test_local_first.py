"""A service that runs here and elsewhere: what stays, what goes, and what is counted."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest
from google.protobuf.message import Message
from tests.unit.runtime.link.echo import Text

from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link.client import RemoteCaller
from strongroom_runtime.link.local_first import LocalFirst

CONTEXT = RequestContext("r")
ONE, BATCH, FLOW = "/x.Service/One", "/x.Service/Batch", "/x.Service/Flow"


class Place:
    """Answers with its name, once it may."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.usable = True
        self.load = 0
        self.taken = 0
        self.release = asyncio.Event()

    async def call(self, method: str, request: Message, context: RequestContext) -> Any:
        self.taken += 1
        await self.release.wait()
        if method == "/x.Service/Fail":
            raise ServiceError(Kind.INVALID, "bad")
        return Text(value=self.name)

    async def stream(
        self, method: str, request: Message, context: RequestContext
    ) -> AsyncGenerator[Any]:
        yield Text(value=self.name)

    async def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        self.taken += 1
        yield Text(value=self.name)
        await self.release.wait()


class Places:
    """A caller between two places, and what it has begun."""

    def __init__(self) -> None:
        self.here, self.there = Place("here"), Place("there")
        self.caller = LocalFirst(self.here, cast(RemoteCaller, self.there), [BATCH])
        self.begun: list[asyncio.Task[Any]] = []

    async def begin(self, method: str, count: int = 1) -> None:
        for _ in range(count):
            call = self.caller.call(method, Text(), CONTEXT)
            self.begun.append(asyncio.create_task(call))
            await asyncio.sleep(0)

    async def end(self) -> None:
        self.here.release.set()
        self.there.release.set()
        await asyncio.gather(*self.begun, return_exceptions=True)
        self.begun.clear()
        self.here.release.clear()
        self.there.release.clear()


@pytest.fixture
async def places() -> Places:
    return Places()


async def test_calls_stay_until_eight_are_open_and_then_go_where_fewer_are(places: Places) -> None:
    await places.begin(ONE, 8)
    assert (places.here.taken, places.there.taken) == (8, 0)
    places.there.load = 7
    await places.begin(ONE)
    assert (places.here.taken, places.there.taken) == (8, 1)
    places.there.load = 8
    await places.begin(ONE)
    assert (places.here.taken, places.there.taken) == (9, 1)
    await places.end()


@pytest.mark.parametrize("method", [ONE, BATCH])
async def test_all_stays_while_no_replica_is_usable(places: Places, method: str) -> None:
    places.there.usable = False
    await places.begin(method, 20)
    assert (places.here.taken, places.there.taken) == (20, 0)
    await places.end()


async def test_batches_go_unless_two_wait_there(places: Places) -> None:
    await places.begin(BATCH)
    places.there.load = 1
    await places.begin(BATCH)
    places.there.load = 2
    await places.begin(BATCH)
    assert (places.here.taken, places.there.taken) == (1, 2)
    await places.end()


@pytest.mark.parametrize("method", [ONE, "/x.Service/Fail"])
async def test_what_has_ended_is_not_counted(places: Places, method: str) -> None:
    for _ in range(3):
        await places.begin(method, 8)
        await places.end()
    assert (places.here.taken, places.there.taken) == (24, 0)


async def test_a_caller_that_leaves_is_not_counted(places: Places) -> None:
    await places.begin(ONE, 8)
    for task in places.begun:
        task.cancel()
    await places.end()
    await places.begin(ONE, 8)
    assert (places.here.taken, places.there.taken) == (16, 0)
    await places.end()


async def nothing() -> AsyncIterator[Message]:
    return
    yield


async def test_streams_both_ways_go_where_fewer_are_and_others_stay(places: Places) -> None:
    first = places.caller.duplex(FLOW, nothing(), CONTEXT)
    assert (await anext(first)).value == "here"
    second = places.caller.duplex(FLOW, nothing(), CONTEXT)
    assert (await anext(second)).value == "there"
    places.there.load = 1
    third = places.caller.duplex(FLOW, nothing(), CONTEXT)
    assert (await anext(third)).value == "here"
    for stream in (first, second, third):
        await stream.aclose()
    places.there.load = 0
    after = places.caller.duplex(FLOW, nothing(), CONTEXT)  # nothing is open here any more
    assert (await anext(after)).value == "here"
    await after.aclose()
    watched = [m.value async for m in places.caller.stream(FLOW, Text(), CONTEXT)]
    assert watched == ["here"]
