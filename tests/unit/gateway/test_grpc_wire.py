"""Calls of clients that leave, and messages that cannot be read."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import token_pb2, token_pb2_grpc
from strongroom_gateway.call import Call
from strongroom_gateway.contract.encode import Encoded
from strongroom_gateway.contract.routes import RouteTable
from strongroom_gateway.grpc_wire import GrpcWire
from strongroom_gateway.mounts.table import MountTable
from strongroom_gateway.pipeline import Answer
from strongroom_runtime.clock import ManualClock
from strongroom_runtime.errors import denied
from strongroom_runtime.transport.leaving import Patience

NOTHING: Any = None  # what these calls do not get to


class Pipeline:
    """Takes until it is let go on."""

    def __init__(self) -> None:
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()
        self.calls: list[Call] = []
        self.ended = False
        self.warnings: list[str] = []
        self.error: Exception | None = None

    async def handle(self, call: Call) -> Answer:
        self.calls.append(call)
        self.begun.set()
        await self.goes_on.wait()
        self.ended = True
        if self.error is not None:
            raise self.error
        return Answer(token_pb2.RevokeSelfResponse(), Encoded(warnings=self.warnings))


class Served:
    """A wire that is served, and a client of it."""

    def __init__(self) -> None:
        self.pipeline = Pipeline()
        pipeline: Any = self.pipeline
        self.clock = ManualClock()
        routes = RouteTable(token_pb2.DESCRIPTOR.services_by_name.values())
        mounts = MountTable(MemoryStore())
        self.wire = GrpcWire(routes, mounts, pipeline, NOTHING, self.clock)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers([self.wire])
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        self.tokens: Any = token_pb2_grpc.TokenServiceStub(self.channel)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    await made.server.start()
    yield made
    await made.channel.close()
    await made.server.stop(None)


@pytest.mark.parametrize("timeout", [None, 0.2])
async def test_what_was_begun_is_ended_though_the_client_leaves(
    served: Served, timeout: float | None
) -> None:
    """As over HTTP: else a change could stand in the log without its outcome."""
    begun = asyncio.create_task(served.pipeline.begun.wait())
    while not begun.done():  # a busy machine may not begin it in so little time
        call = served.tokens.RevokeSelf(token_pb2.RevokeSelfRequest(), timeout=timeout)
        ended = asyncio.create_task(call.code())
        await asyncio.wait({begun, ended}, return_when=asyncio.FIRST_COMPLETED)
    if timeout is None:
        call.cancel()
    code = await ended
    assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
    draining = asyncio.create_task(served.wire.drain(Patience()))
    await asyncio.sleep(0.1)  # the server has heard of it by now, and would have ended what it ends
    assert not draining.done()
    served.pipeline.goes_on.set()
    await draining
    assert served.pipeline.ended


async def test_nobody_misses_the_error_of_a_client_that_left(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.pipeline.error = denied()
    call = served.tokens.RevokeSelf(token_pb2.RevokeSelfRequest())
    await served.pipeline.begun.wait()
    call.cancel()
    await asyncio.sleep(0.1)  # as above
    served.pipeline.goes_on.set()
    await served.wire.drain(Patience())
    await asyncio.sleep(0)
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("timeout", [None, 20.0, 1000.0])
async def test_a_call_has_as_much_time_as_over_http(served: Served, timeout: float | None) -> None:
    """However long its client waits: what was begun is ended by then, the last entry too."""
    served.pipeline.goes_on.set()
    await served.tokens.RevokeSelf(token_pb2.RevokeSelfRequest(), timeout=timeout)
    assert served.pipeline.calls[0].deadline - served.clock.monotonic() == 90.0


@pytest.mark.parametrize("name", ["x-vault-token", "authorization"])
async def test_of_a_token_that_comes_twice_the_first_counts(served: Served, name: str) -> None:
    served.pipeline.goes_on.set()
    metadata = ((name, "Bearer first"), (name, "Bearer second"))
    await served.tokens.RevokeSelf(token_pb2.RevokeSelfRequest(), metadata=metadata)
    assert served.pipeline.calls[0].token_text.endswith("first")


@pytest.mark.parametrize("sent", [b"\x0a\x02\xff\xfe", b"\xff\xff\xff", b"\x0a\x7f"])
async def test_a_malformed_message_is_the_fault_of_its_client(served: Served, sent: bytes) -> None:
    call: Any = served.channel.unary_unary("/strongroom.auth.v1.TokenService/RevokeToken")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(sent)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "google.protobuf" not in (caught.value.details() or "")
    assert not served.pipeline.calls


@pytest.mark.parametrize(
    ("warnings", "told"),
    [
        (['Policy "\x7f\n" does not exist'], ['Policy "??" does not exist']),
        (["é"], ["?"]),
        (["a" * 20_000, "b"], ["2 more warnings are left out"]),
        (["a" * 50] * 100, ["a" * 50] * 60 + ["40 more warnings are left out"]),
    ],
)
async def test_an_answer_fails_for_no_warning(
    served: Served, warnings: list[str], told: list[str]
) -> None:
    """What was made, a token say, is made: its client must hear of it."""
    served.pipeline.goes_on.set()
    served.pipeline.warnings = warnings
    call = served.tokens.RevokeSelf(token_pb2.RevokeSelfRequest())
    await call
    metadata = await call.trailing_metadata()
    assert [value for key, value in metadata if key == "strongroom-warning"] == told
