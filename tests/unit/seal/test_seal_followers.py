"""Who opens or closes the seal is answered once the processes that have their keys from it know."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.store import MemoryStore
from tests.unit.seal.harness import ONE, Auth, Process, until

from strongroom.seal.v1 import seal_pb2 as pb
from strongroom_runtime.context import RequestContext
from strongroom_seal.config import Config

KV, TRANSIT = RequestContext("r", caller="kv"), RequestContext("r", caller="transit")


class Follower:
    """A process that follows the seal, and confirms when it is told to."""

    def __init__(self, process: Process, context: RequestContext, confirms: bool) -> None:
        self._methods = process.service.handlers.methods
        self._context = context
        watch = self._methods["/strongroom.seal.v1.KeyService/WatchKeyRing"].stream
        assert watch is not None
        self.stream: Any = watch(pb.WatchKeyRingRequest(confirms=confirms), context)

    async def confirm(
        self, said: pb.WatchKeyRingResponse, by: RequestContext | None = None
    ) -> None:
        confirm = self._methods["/strongroom.seal.v1.KeyService/ConfirmKeyRing"].unary
        assert confirm is not None
        request = pb.ConfirmKeyRingRequest(stream_id=said.stream_id, change=said.change)
        await confirm(request, by or self._context)


@pytest.fixture
async def seal(auth: Auth, tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(MemoryStore(), auth, Config(adopt_seconds=0.1, settle_seconds=60.0))
    await process.service.start()
    yield process
    await process.service.stop()


@contextlib.asynccontextmanager
async def following(
    process: Process, context: RequestContext = KV, *, confirms: bool = True
) -> AsyncIterator[Follower]:
    follower = Follower(process, context, confirms)
    try:
        yield follower
    finally:
        await follower.stream.aclose()


async def waits(answer: "asyncio.Task[Any]") -> bool:
    """Whether it is not there although everything has been done that goes on by itself."""
    for _ in range(100):
        await asyncio.sleep(0)
    return not answer.done()


async def test_unsealing_and_sealing_are_answered_once_all_followers_know(seal: Process) -> None:
    key = (await seal("Initialize", **ONE)).keys[0]
    async with following(seal) as kv, following(seal, TRANSIT) as transit:
        closed = [await anext(each.stream) for each in (kv, transit)]
        assert [each.sealed for each in closed] == [True, True]
        assert closed[0].stream_id != closed[1].stream_id
        for method, fields, sealed in (("Unseal", {"key": key}, False), ("Seal", {}, True)):
            answer = asyncio.create_task(seal(method, **fields))
            for follower in (kv, transit):
                said = await anext(follower.stream)
                assert said.sealed is sealed
                assert await waits(answer)
                # What was confirmed before, and what somebody else confirms, says nothing.
                await follower.confirm(closed[0])
                await follower.confirm(said, by=RequestContext("r", caller="audit"))
                assert await waits(answer)
                await follower.confirm(said)
            await answer


async def test_a_follower_that_goes_is_not_waited_for(seal: Process) -> None:
    key = (await seal("Initialize", **ONE)).keys[0]
    async with following(seal) as kv:
        await anext(kv.stream)
        answer = asyncio.create_task(seal("Unseal", key=key))
        assert await waits(answer)
    assert not (await answer).status.sealed


async def test_a_follower_of_an_earlier_version_is_not_waited_for(seal: Process) -> None:
    key = (await seal("Initialize", **ONE)).keys[0]
    async with following(seal, confirms=False) as kv:
        assert not (await anext(kv.stream)).stream_id
        assert not (await seal("Unseal", key=key)).status.sealed


async def test_one_that_never_confirms_is_waited_for_no_longer_than_a_while(
    auth: Auth, caplog: pytest.LogCaptureFixture
) -> None:
    process = Process(MemoryStore(), auth, Config(adopt_seconds=0.1, settle_seconds=0.05))
    await process.service.start()
    key = (await process("Initialize", **ONE)).keys[0]
    async with following(process) as kv:
        await anext(kv.stream)
        assert not (await process("Unseal", key=key)).status.sealed
    await until(lambda: "some services have not said" in caplog.text)
    assert caplog.records[-1].services == ["kv"]  # type: ignore[attr-defined]
    await process.service.stop()
