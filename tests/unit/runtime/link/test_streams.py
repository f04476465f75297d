"""Streams over the link, on real sockets with mutual TLS, and in one process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.garbage import no_frames_left
from tests.unit.runtime.link.echo import NAME, Echo, Text, table
from tests.unit.runtime.link.test_link import (
    CONTEXT,
    Served,
    caller,
    gateway,
    identities,
    served,
)

from strongroom_runtime.clock import SystemClock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import LocalCaller, StreamCaller
from strongroom_runtime.link import RemoteCaller

__all__ = ["gateway", "identities", "served"]

SUM = f"/{NAME}/Sum"


@pytest.fixture(params=["local", "remote"])
def either(request: pytest.FixtureRequest, served: Served, gateway: RemoteCaller) -> StreamCaller:
    return gateway if request.param == "remote" else LocalCaller(table(served.echo))


async def texts(*values: str) -> AsyncIterator[Text]:
    for value in values:
        yield Text(value=value)


async def sums(
    remote: StreamCaller, requests: AsyncIterator[Text], seconds: float = 0
) -> list[str]:
    deadline = SystemClock().monotonic() + seconds if seconds else 0.0
    context = msgspec.structs.replace(CONTEXT, deadline=deadline)
    return [message.value async for message in remote.duplex(SUM, requests, context)]


async def test_a_stream_both_ways_keeps_its_order_and_its_state(either: StreamCaller) -> None:
    assert await sums(either, texts(*map(str, range(200)))) == [
        str(n * (n + 1) // 2) for n in range(200)
    ]
    assert await sums(either, texts()) == []


async def test_an_error_of_the_handler_ends_the_stream(either: StreamCaller) -> None:
    with pytest.raises(ServiceError) as caught:
        await sums(either, texts("1", "fail", "2"))
    assert (caught.value.kind, caught.value.message) == (Kind.NOT_FOUND, "nothing")


async def test_an_error_of_the_handler_arrives_whatever_is_being_sent(
    gateway: RemoteCaller,
) -> None:
    more = ["2"] * 50
    streams = [sums(gateway, texts("1", "fail", *more[number:])) for number in range(50)]
    for error in await asyncio.gather(*streams, return_exceptions=True):
        assert isinstance(error, ServiceError)
        assert (error.kind, error.message) == (Kind.NOT_FOUND, "nothing")


async def test_an_error_of_the_requests_ends_the_stream(either: StreamCaller) -> None:
    async def broken() -> AsyncIterator[Text]:
        yield Text(value="1")
        raise ServiceError(Kind.DENIED, "revoked meanwhile")

    with pytest.raises(ServiceError) as caught:
        await sums(either, broken())
    assert caught.value.kind is Kind.DENIED


async def test_a_stream_that_breaks_leaves_nothing_in_memory(gateway: RemoteCaller) -> None:
    async def broken() -> AsyncIterator[Text]:
        yield Text(value="1")
        raise ServiceError(Kind.DENIED, "revoked meanwhile")

    with no_frames_left():
        for requests in (texts("1", "fail", "2"), broken(), texts("crash")):
            with contextlib.suppress(ServiceError):
                await sums(gateway, requests)


async def test_a_bug_in_a_stream_shows_no_text(gateway: RemoteCaller) -> None:
    with pytest.raises(ServiceError) as caught:
        await sums(gateway, texts("crash"))
    assert caught.value.kind is Kind.INTERNAL
    assert "hunter2" not in caught.value.message


async def test_a_deadline_ends_a_stream(gateway: RemoteCaller) -> None:
    with pytest.raises(ServiceError) as caught:
        await sums(gateway, texts("wait"), seconds=0.2)
    assert caught.value.kind is Kind.DEADLINE


async def test_requests_are_taken_no_faster_than_the_handler_takes_them(
    gateway: RemoteCaller, served: Served
) -> None:
    given = 0

    async def many() -> AsyncIterator[Text]:
        nonlocal given
        yield Text(value="wait")
        while given < 10_000:
            given += 1
            yield Text(value="1" * 10_000)

    stream = gateway.duplex(SUM, many(), CONTEXT)
    reading = asyncio.ensure_future(anext(stream))
    await served.echo.waiting.wait()
    seen = -1
    while seen != given:  # until the buffers in between are full
        seen = given
        await asyncio.sleep(0.2)
    assert given < 2_000
    reading.cancel()
    await asyncio.wait({reading})
    await stream.aclose()


async def test_a_stream_that_is_left_ends_on_the_other_side(
    gateway: RemoteCaller, served: Served
) -> None:
    async def endless() -> AsyncIterator[Text]:
        while True:
            yield Text(value="1")

    stream = gateway.duplex(SUM, endless(), CONTEXT)
    assert (await anext(stream)).value == "1"
    await stream.aclose()
    await served.link.duplexes.idle()


async def test_a_batch_travels_as_a_call(either: StreamCaller) -> None:
    answer = await either.call(f"/{NAME}/Double", Text(value="ab"), CONTEXT)
    assert answer.value == "abab"


async def test_a_draining_replica_refuses_streams_and_another_takes_them(
    served: Served, identities: Path
) -> None:
    second = Served(identities, Echo())
    await second.start()
    remote = caller(identities, "gateway", served.port, second.port)
    assert await sums(remote, texts("1")) == ["1"]
    served.link._draining = True  # the callers have not been told yet
    for _ in range(6):
        assert await sums(remote, texts("2", "3")) == ["2", "5"]
    await remote.close()
    await second.server.stop(None)


async def test_replicas_come_and_go_and_no_call_is_lost(served: Served, identities: Path) -> None:
    second = Served(identities, Echo())
    await second.start()
    alone = caller(identities, "gateway", wait_seconds=0.1)
    with pytest.raises(ServiceError) as caught:
        await alone.call(f"/{NAME}/Echo", Text(value="x"), CONTEXT)
    assert caught.value.kind is Kind.UNAVAILABLE
    await alone.close()
    remote = caller(identities, "gateway")
    remote.use([f"127.0.0.1:{served.port}"])
    waiting = asyncio.create_task(remote.call(f"/{NAME}/Wait", Text(value="old"), CONTEXT))
    await served.echo.waiting.wait()
    remote.use([f"127.0.0.1:{second.port}"])
    assert (await remote.call(f"/{NAME}/Echo", Text(value="new"), CONTEXT)).value == "new"
    served.echo.release.set()
    assert (await waiting).value == "old"
    await remote.close()
    await second.server.stop(None)


async def test_a_stopping_server_fails_nothing_under_load(served: Served, identities: Path) -> None:
    second = Served(identities, Echo())
    await second.start()
    remote = caller(identities, "gateway", served.port, second.port)
    stop = asyncio.Event()
    answered = 0

    async def load() -> None:
        nonlocal answered
        while not stop.is_set():
            value = str(answered)
            assert (await remote.call(f"/{NAME}/Echo", Text(value=value), CONTEXT)).value == value
            answered += 1

    tasks = [asyncio.create_task(load()) for _ in range(16)]
    for leaving in (served, second, served):
        before = answered
        leaving.link.drain()
        await leaving.link.idle()
        await leaving.server.stop(0.5)
        while answered < before + 200:
            await asyncio.sleep(0.01)
        await leaving.start()
        await asyncio.sleep(0.3)
    stop.set()
    await asyncio.gather(*tasks)
    await remote.close()
    await second.server.stop(None)
