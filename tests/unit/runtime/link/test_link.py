"""The link over real sockets with mutual TLS."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from tests.garbage import no_frames_left
from tests.unit.runtime.link.echo import NAME, SERVICE, Echo, Text, table

from strongroom.link.v1 import link_pb2
from strongroom_runtime.clock import SystemClock
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.link import LinkServer, RemoteCaller
from strongroom_runtime.link.client import response_classes
from strongroom_runtime.link.exchange import Exchange
from strongroom_runtime.transport import pki
from strongroom_runtime.transport.certificates import Identity, Renewable
from strongroom_runtime.transport.credentials import SERVER_OPTIONS, Connector, Identities

DOMAIN = "example.test"
CONTEXT = RequestContext(
    request_id="r1",
    path="secret/data/app",
    mount=MountContext("secret/", "kv", "uuid", "kv_1", {"version": "2"}, 60, 120, b"{}"),
    token=TokenContext("id", "accessor", "name", ("default", "app"), "entity", False),
)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    pki.initialise(folder, DOMAIN, ["gateway", "auth", "echo"])
    return folder


@dataclass
class Served:
    """A server that can be stopped and started on its port."""

    folder: Path
    echo: Echo
    port: int = 0
    refuses: Kind | None = None
    takes: bool = True

    async def start(self) -> None:
        self.echo.refuses = self.refuses
        self.link = LinkServer(table(self.echo), DOMAIN, takes=lambda: self.takes)
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        self.server.add_generic_rpc_handlers([self.link])
        credentials = Identities(self.folder, DOMAIN, ["echo"]).server_credentials()
        self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self.server.start()


@pytest.fixture
async def served(identities: Path) -> AsyncIterator[Served]:
    served = Served(identities, Echo())
    await served.start()
    yield served
    await served.server.stop(None)


def caller(folder: Path, name: str, *ports: int, wait_seconds: float = 60.0) -> RemoteCaller:
    connect = Identities(folder, DOMAIN, [name]).connector(name, "echo")
    addresses = [f"127.0.0.1:{port}" for port in ports]
    return RemoteCaller(connect, addresses, response_classes(SERVICE), wait_seconds=wait_seconds)


@pytest.fixture
async def gateway(served: Served) -> AsyncIterator[RemoteCaller]:
    remote = caller(served.folder, "gateway", served.port)
    yield remote
    await remote.close()


async def send(remote: RemoteCaller, method: str, value: str = "", seconds: float = 0) -> str:
    deadline = SystemClock().monotonic() + seconds if seconds else 0.0
    context = msgspec.structs.replace(CONTEXT, deadline=deadline)
    answer = await remote.call(f"/{NAME}/{method}", Text(value=value), context)
    return str(answer.value)


async def test_many_calls_each_get_their_own_answer(gateway: RemoteCaller) -> None:
    values = [str(n) for n in range(500)]
    assert await asyncio.gather(*(send(gateway, "Echo", v) for v in values)) == values


async def test_the_context_and_the_callers_identity_arrive(gateway: RemoteCaller) -> None:
    assert await send(gateway, "WhoAmI") == "gateway r1 secret/ accessor"


async def test_an_error_arrives_whole(gateway: RemoteCaller) -> None:
    with pytest.raises(ServiceError) as caught:
        await send(gateway, "Fail")
    error = caught.value
    assert (error.kind, error.message) == (Kind.NOT_FOUND, "nothing")
    assert (error.data, error.warnings) == (b'{"a":1}', ("beware",))


@pytest.mark.parametrize("method", ["Fail", "Crash", "OnlyAuth", "Wait"])
async def test_calls_that_fail_leave_nothing_in_memory(gateway: RemoteCaller, method: str) -> None:
    await send(gateway, "Echo")
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(ServiceError):
                await send(gateway, method, seconds=0.05 if method == "Wait" else 0)
        await send(gateway, "Echo")


async def test_a_call_that_all_replicas_pass_over_leaves_nothing_in_memory(
    gateway: RemoteCaller, served: Served
) -> None:
    served.echo.refuses = Kind.SEALED
    request = Text(value="x")
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(ServiceError):
                await gateway.call(f"/{NAME}/Echo", request, CONTEXT, passing_over=Kind.SEALED)
    served.echo.refuses = None


async def test_a_bug_reaches_the_caller_without_its_text(gateway: RemoteCaller) -> None:
    with pytest.raises(ServiceError) as caught:
        await send(gateway, "Crash", "hunter2")
    assert caught.value.kind is Kind.INTERNAL
    assert "hunter2" not in caught.value.message


async def test_a_caller_that_the_contract_does_not_name_is_refused(
    gateway: RemoteCaller, served: Served
) -> None:
    with pytest.raises(ServiceError) as caught:
        await send(gateway, "OnlyAuth")
    assert caught.value.kind is Kind.DENIED
    auth = caller(served.folder, "auth", served.port)
    assert await send(auth, "OnlyAuth") == "reached"
    await auth.close()


async def test_a_deadline_ends_the_call_on_both_sides(
    gateway: RemoteCaller, served: Served
) -> None:
    await send(gateway, "Echo")
    with pytest.raises(ServiceError) as caught:
        await send(gateway, "Wait", seconds=0.5)
    assert caught.value.kind is Kind.DEADLINE
    assert await send(gateway, "Echo", "still there") == "still there"


async def test_a_broken_stream_fails_its_calls_and_comes_back(
    gateway: RemoteCaller, served: Served
) -> None:
    waiting = asyncio.create_task(send(gateway, "Wait"))
    await served.echo.waiting.wait()
    await served.server.stop(0)
    with pytest.raises(ServiceError) as caught:
        await waiting
    assert caught.value.kind is Kind.UNAVAILABLE
    await served.start()
    assert await send(gateway, "Echo", "again") == "again"


async def test_a_stream_that_is_given_up_on_this_side_comes_back(
    gateway: RemoteCaller, served: Served
) -> None:
    assert await send(gateway, "Echo", "before") == "before"
    (replica,) = gateway._replicas.values()
    # gRPC cancels the stream, which whoever reads from it sees as a cancellation of its own.
    replica._outbox.put("no call")  # type: ignore[arg-type]
    async with asyncio.timeout(60):
        while gateway.usable:
            await asyncio.sleep(0.001)
    assert await send(gateway, "Echo", "after") == "after"


async def test_an_error_of_grpc_does_not_end_the_attempts_to_reach_a_replica(
    served: Served, identities: Path
) -> None:
    failed = asyncio.Event()
    connector = Identities(identities, DOMAIN, ["gateway"]).connector("gateway", "echo")
    connect = type(connector).__call__

    def failing(self: Connector, address: str) -> grpc.aio.Channel:
        channel = connect(self, address)
        if not failed.is_set():
            ready = channel.channel_ready

            async def fail() -> None:
                if not failed.is_set():
                    failed.set()
                    raise grpc.aio.UsageError("closed")
                await ready()

            channel.channel_ready = fail  # type: ignore[method-assign]
        return channel

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connector), "__call__", failing)
        reaching = caller(identities, "gateway", served.port)
        assert await send(reaching, "Echo", "x") == "x"
        assert failed.is_set()
        await reaching.close()


async def test_a_replica_that_is_starting_gets_no_calls_until_it_takes_them(
    served: Served, identities: Path
) -> None:
    starting = Served(identities, Echo(), refuses=Kind.SEALED, takes=False)
    await starting.start()
    both = caller(identities, "gateway", served.port, starting.port)
    request = Text(value="x")
    for _ in range(20):
        assert await send(both, "Echo", "x") == "x"
        await asyncio.sleep(0.02)  # as often as the caller tries to reach it
    starting.takes = True
    async with asyncio.timeout(60):
        while len(await both.call_each(f"/{NAME}/Echo", request, CONTEXT)) < 2:
            await asyncio.sleep(0.02)
    await both.close()
    await starting.server.stop(None)


async def test_a_stream_that_was_refused_leaves_no_task(served: Served, identities: Path) -> None:
    starting = Served(identities, Echo(), takes=False)
    await starting.start()
    both = caller(identities, "gateway", served.port, starting.port)
    await send(both, "Echo", "x")
    refused = both._replicas[f"127.0.0.1:{starting.port}"]
    outboxes: set[object] = set()
    async with asyncio.timeout(60):
        while len(outboxes) < 5:  # one for each stream
            outboxes.add(refused._outbox)
            await asyncio.sleep(0.01)
    consuming = [t for t in asyncio.all_tasks() if "_consume_request" in str(t.get_coro())]
    assert len(consuming) <= 2  # of the one that takes calls, and of the one being tried
    await both.close()
    await starting.server.stop(None)


async def test_a_draining_replica_gets_no_new_calls_and_answers_the_old(
    served: Served, identities: Path
) -> None:
    second = Served(identities, Echo())
    await second.start()
    remote = caller(identities, "gateway", served.port)
    waiting = asyncio.create_task(send(remote, "Wait", "old"))
    await served.echo.waiting.wait()
    served.link.drain()
    both = caller(identities, "gateway", served.port, second.port)
    assert await send(both, "Echo", "new") == "new"
    served.echo.release.set()
    assert await waiting == "old"
    await remote.close()
    await both.close()
    await second.server.stop(None)


async def test_a_call_to_each_reaches_every_replica(served: Served, identities: Path) -> None:
    second = Served(identities, Echo(), refuses=Kind.SEALED)
    await second.start()
    both = caller(identities, "gateway", served.port, second.port, wait_seconds=2)
    request = Text(value="x")
    async with asyncio.timeout(60):
        while len(answers := await both.call_each(f"/{NAME}/Echo", request, CONTEXT)) < 2:
            await asyncio.sleep(0.02)
    kinds = {a.kind if isinstance(a, ServiceError) else a.value for a in answers}
    assert kinds == {"x", Kind.SEALED}
    # Whoever can, answers; where nobody can, that is said.
    for _ in range(20):
        answer = await both.call(f"/{NAME}/Echo", request, CONTEXT, passing_over=Kind.SEALED)
        assert answer.value == "x"
    await served.server.stop(0)
    with pytest.raises(ServiceError) as caught:
        async with asyncio.timeout(60):
            while True:
                await both.call(f"/{NAME}/Echo", request, CONTEXT, passing_over=Kind.SEALED)
    assert caught.value.kind in (Kind.SEALED, Kind.UNAVAILABLE)
    await both.close()
    await second.server.stop(None)


async def test_unary_and_streaming_methods_run_the_same_handlers(served: Served) -> None:
    connect = Identities(served.folder, DOMAIN, ["gateway"]).connector("gateway", "echo")
    channel = connect(f"127.0.0.1:{served.port}")
    echo = channel.unary_unary(f"/{NAME}/Echo", Text.SerializeToString, Text.FromString)
    assert (await echo(Text(value="x"))).value == "x"
    count = channel.unary_stream(f"/{NAME}/Count", Text.SerializeToString, Text.FromString)
    assert [m.value async for m in count(Text(value="3"))] == ["0", "1", "2"]
    fail = channel.unary_unary(f"/{NAME}/Fail", Text.SerializeToString, Text.FromString)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fail(Text())
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await channel.close()


async def test_a_client_of_another_authority_is_refused(served: Served, tmp_path: Path) -> None:
    pki.initialise(tmp_path, DOMAIN, ["gateway"])
    stranger = Identity(
        served.folder / "ca.pem", tmp_path / "gateway.pem", tmp_path / "gateway.key"
    )
    channel = Connector(Renewable(stranger), f"echo.{DOMAIN}")(f"127.0.0.1:{served.port}")
    echo = channel.unary_unary(f"/{NAME}/Echo", Text.SerializeToString, Text.FromString)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(Text(value="x"), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()


class Broken:
    """A stream whose other side is gone."""

    async def write(self, frame: link_pb2.ExchangeResponse) -> None:
        raise grpc.aio.InternalError("the message was not sent")


async def test_nothing_is_said_of_replies_to_a_process_that_is_gone() -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))

    async def run(call: link_pb2.Call) -> link_pb2.Reply:
        return link_pb2.Reply()

    context: Any = Broken()
    exchange = Exchange(run, context)
    exchange.announce(link_pb2.Direct())
    await asyncio.sleep(0.01)
    exchange.take(link_pb2.ExchangeRequest(calls=[link_pb2.Call()]))
    await exchange.finish()
    gc.collect()
    assert said == []
