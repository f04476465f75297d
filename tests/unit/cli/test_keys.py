"""Where a process gets its keys while some seals are closed or away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from strongroom.seal.v1 import seal_pb2
from strongroom_cli import keys as source
from strongroom_cli.keys import RemoteKeys
from strongroom_runtime.barrier import KeyHolder

CLOSED = seal_pb2.WatchKeyRingResponse(sealed=True)
OPEN = seal_pb2.WatchKeyRingResponse(terms={1: b"k" * 32}, name_key=b"n" * 64, active_term=1)


class FakeSeal:
    """A seal that says whether it is open, to whoever watches."""

    def __init__(self, says: seal_pb2.WatchKeyRingResponse) -> None:
        self._says = says
        self._changed = asyncio.Condition()
        self._server = grpc.aio.server()
        self.address = ""
        self.watchers = self.asked = 0
        self.confirmed: list[tuple[str, int]] = []
        self.on_confirmation: Callable[[], None] = lambda: None

    async def start(self) -> None:
        handler = grpc.unary_stream_rpc_method_handler(
            self._watch,
            seal_pb2.WatchKeyRingRequest.FromString,
            seal_pb2.WatchKeyRingResponse.SerializeToString,
        )
        confirm = grpc.unary_unary_rpc_method_handler(
            self._confirm,
            seal_pb2.ConfirmKeyRingRequest.FromString,
            seal_pb2.ConfirmKeyRingResponse.SerializeToString,
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "WatchKeyRing": handler,
            "ConfirmKeyRing": confirm,
        }
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("strongroom.seal.v1.KeyService", handlers)]
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def say(self, says: seal_pb2.WatchKeyRingResponse) -> None:
        async with self._changed:
            self._says = says
            self._changed.notify_all()

    async def _watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.watchers += 1
        self.asked += 1
        try:
            while True:
                said = self._says
                yield said
                async with self._changed:
                    await self._changed.wait_for(lambda s=said: self._says is not s)  # type: ignore[misc]
        finally:
            self.watchers -= 1

    async def _confirm(self, request: Any, context: Any) -> Any:
        self.on_confirmation()
        self.confirmed.append((request.stream_id, request.change))
        return seal_pb2.ConfirmKeyRingResponse()


class Recorded(KeyHolder):
    """Counts how often the keys went."""

    lost = 0

    def replace(self, ring: Any) -> None:
        if ring is None and not self.sealed:
            self.lost += 1
        super().replace(ring)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives seals that are away up sooner."""
    monkeypatch.setattr(source, "_CONNECT_SECONDS", 0.5)


async def eventually(check: Any) -> None:
    async with asyncio.timeout(60):
        while not check():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(*seals: FakeSeal) -> AsyncIterator[Recorded]:
    for seal in seals:
        await seal.start()
    holder = Recorded()
    keys = RemoteKeys(
        {"kv": grpc.aio.insecure_channel},
        lambda: [seal.address for seal in seals],
        {"kv": holder},
        [],
    )
    keys.start()
    try:
        yield holder
    finally:
        await keys.stop()
        for seal in seals:
            await seal.stop()


async def test_a_seal_that_is_closed_takes_no_keys_away_while_another_is_open() -> None:
    first, closed, other = FakeSeal(OPEN), FakeSeal(CLOSED), FakeSeal(OPEN)
    async with following(first, closed, other) as holder:
        await eventually(lambda: not holder.sealed)
        await first.stop()
        await eventually(lambda: other.watchers)
        assert closed.asked  # it came before, and said that it is closed
        assert holder.lost == 0
        # Away, closed, and closed now, too: there is none left.
        await other.say(CLOSED)
        await eventually(lambda: holder.sealed)
        await closed.say(OPEN)
        await eventually(lambda: not holder.sealed)


@pytest.mark.parametrize("count", [1, 2])
async def test_keys_go_when_all_seals_say_so_and_come_back(count: int) -> None:
    seals = [FakeSeal(OPEN) for _ in range(count)]
    async with following(*seals) as holder:
        await eventually(lambda: not holder.sealed)
        for seal in seals:
            await seal.say(CLOSED)
        await eventually(lambda: holder.sealed)
        await seals[-1].say(OPEN)
        await eventually(lambda: not holder.sealed)


async def test_keys_stay_while_no_seal_can_be_reached() -> None:
    seal = FakeSeal(OPEN)
    async with following(seal) as holder:
        await eventually(lambda: not holder.sealed)
        await seal.stop()
        await asyncio.sleep(0.5)
        assert not holder.sealed


class Slow:
    """A service whose end takes a while."""

    def __init__(self) -> None:
        self.started = self.stopped = 0
        self.stopping, self.release = asyncio.Event(), asyncio.Event()

    async def start(self) -> None:
        self.started += 1

    async def stop(self) -> None:
        self.stopping.set()
        await self.release.wait()
        self.stopped += 1


async def test_a_process_ends_while_the_keys_go() -> None:
    """As where the seal ends at the same moment, and says that it is closed."""
    seal = FakeSeal(OPEN)
    await seal.start()
    slow = Slow()
    keys = RemoteKeys(
        {"kv": grpc.aio.insecure_channel}, lambda: [seal.address], {"kv": KeyHolder()}, [slow]
    )
    keys.start()
    async with asyncio.timeout(60):
        while not slow.started:
            await asyncio.sleep(0.01)
        await seal.say(CLOSED)
        await slow.stopping.wait()
        ending = asyncio.create_task(keys.stop())
        await asyncio.sleep(0.05)
        assert not ending.done()  # what the service has to write is written first
        slow.release.set()
        await ending
    assert (slow.started, slow.stopped) == (1, 1)
    await seal.stop()


class Failing:
    """A service that starts or stops only at the second attempt, and then not for a reason that was foreseen."""

    def __init__(self, *fails: str) -> None:
        self._fails = list(fails)
        self.done: list[str] = []

    async def start(self) -> None:
        self._do("start")

    async def stop(self) -> None:
        self._do("stop")

    def _do(self, what: str) -> None:
        if what in self._fails:
            self._fails.remove(what)
            self.done.append(f"failed {what}")
            raise ValueError(what)
        self.done.append(what)


async def test_a_service_that_fails_is_stopped_and_started_again() -> None:
    seal, service = FakeSeal(OPEN), Failing("start")
    await seal.start()
    keys = RemoteKeys(
        {"kv": grpc.aio.insecure_channel}, lambda: [seal.address], {"kv": KeyHolder()}, [service]
    )
    keys.start()
    await eventually(lambda: service.done == ["failed start", "stop", "start"])
    await keys.stop()
    await seal.stop()


async def test_a_service_that_fails_to_stop_hides_no_keys_to_come() -> None:
    seal, service = FakeSeal(OPEN), Failing("stop")
    await seal.start()
    keys = RemoteKeys(
        {"kv": grpc.aio.insecure_channel}, lambda: [seal.address], {"kv": KeyHolder()}, [service]
    )
    keys.start()
    await eventually(lambda: service.done == ["start"])
    await seal.say(CLOSED)
    await eventually(lambda: service.done[1:] == ["failed stop"])
    await seal.say(OPEN)
    await eventually(lambda: service.done[2:] == ["start"])
    await keys.stop()
    await seal.stop()


async def test_an_error_that_nobody_foresaw_does_not_end_the_search_for_keys() -> None:
    seal, attempts = FakeSeal(OPEN), 0
    await seal.start()

    def connect(address: str) -> grpc.aio.Channel:
        nonlocal attempts
        attempts += 1
        channel = grpc.aio.insecure_channel(address)
        if attempts == 1:
            # As gRPC does where a channel was closed.
            async def fail() -> None:
                raise grpc.aio.UsageError("closed")

            channel.channel_ready = fail  # type: ignore[method-assign]
        return channel

    holder = KeyHolder()
    keys = RemoteKeys({"kv": connect}, lambda: [seal.address], {"kv": holder}, [])
    keys.start()
    await eventually(lambda: not holder.sealed)
    await keys.stop()
    await seal.stop()


async def test_what_a_seal_says_is_confirmed_once_it_is_done() -> None:
    closed, opened = seal_pb2.WatchKeyRingResponse(), seal_pb2.WatchKeyRingResponse()
    closed.CopyFrom(CLOSED)
    opened.CopyFrom(OPEN)
    closed.stream_id = opened.stream_id = "s"
    closed.change, opened.change = 1, 2
    seal = FakeSeal(closed)
    seen: list[bool] = []
    async with following(seal) as holder:
        seal.on_confirmation = lambda: seen.append(holder.sealed)
        await eventually(lambda: seal.confirmed == [("s", 1)])
        await seal.say(opened)
        await eventually(lambda: seal.confirmed == [("s", 1), ("s", 2)])
        closed.change = 3
        await seal.say(closed)
        await eventually(lambda: len(seal.confirmed) == 3)
    assert seen[1:] == [False, True]


async def test_a_seal_that_is_closed_has_no_confirmation_while_another_may_be_open() -> None:
    closed = seal_pb2.WatchKeyRingResponse(sealed=True, stream_id="s", change=1)
    first, other = FakeSeal(closed), FakeSeal(OPEN)
    async with following(first, other) as holder:
        await eventually(lambda: not holder.sealed)
        assert first.asked
        assert not first.confirmed
