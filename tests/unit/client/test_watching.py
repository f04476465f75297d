"""Watches that break, are refused, or say nothing but how far they are."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from strongroom.dbcreds.v1 import lease_pb2
from strongroom.kv.v1 import kv2_pb2
from strongroom_client import watching
from strongroom_client.watching import Watches

AWAY = grpc.StatusCode.UNAVAILABLE


class Platform:
    """Each watch says the revisions that are planned for it, behind the one before its first, and then ends so."""

    def __init__(self) -> None:
        self.plans: list[tuple[list[int], grpc.StatusCode]] = []
        self.asked: list[Any] = []
        self.tokens: list[str] = []

    async def secrets(self, request: Any, context: Any) -> Any:
        async for revision in self._revisions(request, context):
            changes = [kv2_pb2.SecretChange(path=f"at/{revision}")] if revision % 2 else []
            yield kv2_pb2.WatchSecretsResponse(revision=revision, changes=changes)

    async def leases(self, request: Any, context: Any) -> Any:
        async for revision in self._revisions(request, context):
            yield lease_pb2.WatchLeasesResponse(revision=revision)

    async def _revisions(self, request: Any, context: Any) -> AsyncIterator[int]:
        self.asked.append(request)
        self.tokens += [v for k, v in context.invocation_metadata() if k == "authorization"]
        revisions, end = self.plans.pop(0) if self.plans else ([], AWAY)
        if revisions:
            yield (request.from_revision or 11) - 1
        for revision in revisions:
            yield revision
        await context.abort(end, "so it was planned")


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def client(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watches]:
    monkeypatch.setattr(watching, "_FIRST_WAIT", 0.01)
    server = grpc.aio.server()
    for service, name, behaviour, module in (
        ("strongroom.kv.v1.KvV2Service", "WatchSecrets", platform.secrets, kv2_pb2),
        ("strongroom.dbcreds.v1.LeaseService", "WatchLeases", platform.leases, lease_pb2),
    ):
        method = grpc.unary_stream_rpc_method_handler(
            behaviour,
            getattr(module, f"{name}Request").FromString,
            getattr(module, f"{name}Response").SerializeToString,
        )
        handler = grpc.method_handlers_generic_handler(service, {name: method})
        server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Watches(channel, lambda: f"token-{len(platform.asked)}")
    await server.stop(0)


async def seen(messages: AsyncIterator[Any]) -> tuple[list[int], grpc.StatusCode]:
    """Returns the revisions of a watch, and how it ended."""
    revisions: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for message in messages:
            revisions.append(message.revision)
    code: grpc.StatusCode = caught.value.code()
    return revisions, code


async def test_a_watch_goes_on_behind_what_it_saw(platform: Platform, client: Watches) -> None:
    denied = grpc.StatusCode.PERMISSION_DENIED
    platform.plans = [([11, 13, 70], AWAY), ([], AWAY), ([75, 77], denied)]
    assert await seen(client.secrets("at", mount="kv")) == ([10, 11, 13, 70, 75, 77], denied)
    # 70 had no changes: it only said how far the watch was.
    assert [request.from_revision for request in platform.asked] == [0, 71, 71]
    assert {(request.path, request.mount) for request in platform.asked} == {("at", "kv")}
    assert platform.tokens == ["Bearer token-0", "Bearer token-1", "Bearer token-2"]


async def test_a_watch_begins_where_one_ended(platform: Platform, client: Watches) -> None:
    platform.plans = [([40], AWAY), ([], grpc.StatusCode.FAILED_PRECONDITION)]
    found = await seen(client.leases("database", from_revision=30))
    assert found == ([29, 40], grpc.StatusCode.FAILED_PRECONDITION)
    assert [request.from_revision for request in platform.asked] == [30, 41]


async def test_a_gateway_that_stays_away_is_given_up(platform: Platform, client: Watches) -> None:
    client._patience = 1.0
    platform.plans = [([11], AWAY)]
    assert await seen(client.secrets()) == ([10, 11], AWAY)
    assert len(platform.asked) > 2
