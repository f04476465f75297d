"""Many items over streams that break, end early, are refused, or whose items run out with an error."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest

from strongroom.transit.v1 import stream_pb2 as pb
from strongroom_client import bulk
from strongroom_client.bulk import BulkTransit

Say = Callable[
    [int], grpc.StatusCode | None
]  # by the number of the batch, counted over all streams


class Platform:
    """Turns texts round; ends streams where a test says so, before or behind the answer."""

    def __init__(self) -> None:
        self.before: Say = lambda number: None
        self.behind: Say = lambda number: None
        self.streams = self.batches = self.most = 0
        self.tokens: list[str] = []
        self.names: list[tuple[str, str]] = []
        self.wait = 0.0

    async def _answers(self, requests: Any, context: Any, answer: Callable[[Any], Any]) -> Any:
        self.streams += 1
        self.tokens += [v for k, v in context.invocation_metadata() if k == "authorization"]
        first = True
        async for request in requests:
            if first:
                self.names.append((request.mount, request.name))
                first = False
            self.batches += 1
            number = self.batches
            if code := self.before(number):
                await context.abort(code, "before")
            await asyncio.sleep(self.wait)
            yield answer(request)
            if code := self.behind(number):
                if code is grpc.StatusCode.OK:
                    return
                await context.abort(code, "behind")

    async def encrypt(self, requests: Any, context: Any) -> Any:
        def answer(request: Any) -> Any:
            return pb.EncryptStreamResponse(
                items=[
                    pb.EncryptStreamResult(
                        ciphertext=item.plaintext[::-1].decode(), reference=item.reference
                    )
                    for item in request.items
                ]
            )

        async for each in self._answers(requests, context, answer):
            yield each


@pytest.fixture
async def platform() -> Platform:
    return Platform()


@pytest.fixture
async def client(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BulkTransit]:
    monkeypatch.setattr(bulk, "BATCH_ITEMS", 10)
    monkeypatch.setattr(bulk, "_FIRST_WAIT", 0.01)
    server = grpc.aio.server()
    method = grpc.stream_stream_rpc_method_handler(
        platform.encrypt,
        pb.EncryptStreamRequest.FromString,
        pb.EncryptStreamResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "strongroom.transit.v1.TransitStreamService", {"EncryptStream": method}
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    counter = itertools.count(1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield BulkTransit(channel, lambda: f"token-{next(counter)}", "transit/")
    await server.stop(0)


def texts(count: int) -> Iterator[bytes]:
    return (b"%d" % number for number in range(count))


async def encrypted(client: BulkTransit, items: Any) -> list[str]:
    return [result.ciphertext async for result in client.encrypt("orders", items)]


def wanted(count: int) -> list[str]:
    return [str(number)[::-1] for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 1_005])
async def test_every_item_gets_its_result_in_order(
    client: BulkTransit, platform: Platform, count: int
) -> None:
    assert await encrypted(client, texts(count)) == wanted(count)
    assert platform.batches == (count + 9) // 10
    assert platform.streams == (count > 0)


async def test_items_may_come_from_anywhere_and_carry_references(client: BulkTransit) -> None:
    async def items() -> AsyncIterator[pb.EncryptStreamItem]:
        for number in range(25):
            await asyncio.sleep(0)
            yield pb.EncryptStreamItem(plaintext=b"x", reference=str(number))

    found = [result.reference async for result in client.encrypt("orders", items())]
    assert found == [str(number) for number in range(25)]


@pytest.mark.parametrize("where", ["before", "behind"])
async def test_a_stream_that_breaks_is_begun_again_and_nothing_is_lost_or_doubled(
    client: BulkTransit, platform: Platform, where: str
) -> None:
    breaks, broken = {1, 7, 8, 30}, []

    def says(number: int) -> grpc.StatusCode | None:
        if number in breaks:
            broken.append(number)
            return grpc.StatusCode.UNAVAILABLE
        return None

    setattr(platform, where, says)
    assert await encrypted(client, texts(500)) == wanted(500)
    streams = 1 + len(broken)
    assert platform.streams == streams > 3
    assert platform.names == [("transit/", "orders")] * streams
    assert platform.tokens == [f"Bearer token-{n + 1}" for n in range(streams)]


async def test_a_stream_that_ends_too_early_is_begun_again(
    client: BulkTransit, platform: Platform
) -> None:
    platform.behind = lambda number: grpc.StatusCode.OK if number == 3 else None
    assert await encrypted(client, texts(200)) == wanted(200)


async def test_what_is_refused_is_not_tried_again(client: BulkTransit, platform: Platform) -> None:
    platform.before = lambda number: grpc.StatusCode.PERMISSION_DENIED if number >= 3 else None
    got: list[str] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for result in client.encrypt("orders", texts(200)):
            got.append(result.ciphertext)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (got, platform.streams < 3) == (wanted(20), True)


async def test_patience_ends_where_nothing_is_answered(
    client: BulkTransit, platform: Platform
) -> None:
    client._patience = 1.0
    platform.before = lambda number: grpc.StatusCode.UNAVAILABLE if number > 2 else None
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await encrypted(client, texts(200))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert platform.streams > 3


async def test_an_error_of_the_items_is_raised_behind_the_results_before_it(
    client: BulkTransit,
) -> None:
    def items() -> Iterator[bytes]:
        yield from texts(15)
        raise LookupError("no more")

    got: list[str] = []
    with pytest.raises(LookupError, match="no more"):
        async for result in client.encrypt("orders", items()):
            got.append(result.ciphertext)
    assert got == wanted(15)


async def test_no_more_is_taken_than_a_few_batches_ahead(
    client: BulkTransit, platform: Platform
) -> None:
    taken = 0

    def items() -> Iterator[bytes]:
        nonlocal taken
        for taken in range(2_000):  # noqa: B007
            yield b"x"

    platform.wait = 0.001
    done = 0
    async for _ in client.encrypt("orders", items()):
        done += 1
        assert taken - done < 10 * (8 + 2 + 3)
    assert done == 2_000


async def test_who_stops_reading_leaves_nothing_running(client: BulkTransit) -> None:
    results = client.encrypt("orders", texts(10_000))
    async for _ in results:
        break
    await results.aclose()  # type: ignore[attr-defined]
    running = " ".join(repr(task.get_coro()) for task in asyncio.all_tasks())
    assert "_feed" not in running
    assert "_write" not in running
