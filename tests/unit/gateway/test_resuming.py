"""Watches whose replica leaves."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from strongroom.kv.v1 import kv2_pb2
from strongroom.sys.v1 import observe_pb2
from strongroom_gateway import resuming
from strongroom_gateway.resuming import resumed
from strongroom_runtime.errors import Kind, ServiceError


class Replicas:
    """Send changes from a revision on; each stream breaks where its plan says so."""

    def __init__(self, *plans: tuple[int, ServiceError | None]) -> None:
        self.plans = list(plans)
        self.asked: list[int] = []

    async def watch(self, request: Any) -> AsyncGenerator[Any]:
        self.asked.append(request.from_revision)
        count, error = self.plans.pop(0)
        start = request.from_revision or 11
        for number in range(count):
            revision = start - 1 + number
            changes = [kv2_pb2.SecretChange(path=f"at/{revision}")] if number else []
            yield kv2_pb2.WatchSecretsResponse(revision=revision, changes=changes)
        if error is not None:
            raise error


AWAY = ServiceError(Kind.UNAVAILABLE, "leaving")
NO_KEYS = ServiceError(Kind.SEALED, "Vault is sealed")


async def seen(replicas: Replicas, from_revision: int = 0) -> list[tuple[int, list[str]]]:
    request = kv2_pb2.WatchSecretsRequest(path="at", from_revision=from_revision)
    found = [
        (each.revision, [change.path for change in each.changes])
        async for each in resumed(replicas.watch, request)
    ]
    assert request.from_revision == from_revision
    return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "_WAIT_SECONDS", 0)


@pytest.mark.parametrize("start", [0, 11])
async def test_another_replica_goes_on_without_gap_or_repetition(start: int) -> None:
    replicas = Replicas((3, AWAY), (1, AWAY), (0, NO_KEYS), (4, None))
    changes = [(revision, [f"at/{revision}"]) for revision in range(11, 16)]
    assert await seen(replicas, start) == [(10, []), *changes]
    assert replicas.asked == [start, 13, 13, 13]


async def test_another_replica_goes_on_behind_what_was_said_without_changes() -> None:
    asked: list[int] = []

    async def watch(request: Any) -> AsyncGenerator[Any]:
        asked.append(request.from_revision)
        if len(asked) == 1:
            for revision in (10, 70):
                yield kv2_pb2.WatchSecretsResponse(revision=revision)
            raise AWAY
        yield kv2_pb2.WatchSecretsResponse(revision=request.from_revision - 1)

    request = kv2_pb2.WatchSecretsRequest()
    assert [each.revision async for each in resumed(watch, request)] == [10, 70]
    assert asked == [0, 71]


@pytest.mark.parametrize("error", [AWAY, NO_KEYS])
async def test_where_no_replica_is_found_in_time_it_ends(
    monkeypatch: pytest.MonkeyPatch, error: ServiceError
) -> None:
    monkeypatch.setattr(resuming, "_GIVE_UP_SECONDS", 0.05)
    replicas = Replicas((2, AWAY), *[(0, error)] * 100_000)
    with pytest.raises(ServiceError) as caught:
        await seen(replicas)
    assert caught.value.kind is error.kind
    assert len(replicas.asked) > 2


async def test_where_something_else_is_wrong_it_ends() -> None:
    for plans, kind, streams in (
        ([(2, ServiceError(Kind.DENIED, "no"))], Kind.DENIED, 1),
        (
            [(2, AWAY), (0, ServiceError(Kind.FAILED_PRECONDITION, "gone"))],
            Kind.FAILED_PRECONDITION,
            2,
        ),
    ):
        replicas = Replicas(*plans)
        with pytest.raises(ServiceError) as caught:
            await seen(replicas)
        assert (caught.value.kind, len(replicas.asked)) == (kind, streams)


async def test_what_has_not_begun_or_has_no_revisions_is_not_begun_anew() -> None:
    replicas = Replicas((0, AWAY))
    with pytest.raises(ServiceError):
        await seen(replicas)

    async def lines(request: Any) -> AsyncGenerator[Any]:
        yield observe_pb2.MonitorResponse()
        raise AWAY

    with pytest.raises(ServiceError):
        async for _ in resumed(lines, observe_pb2.MonitorRequest()):
            pass
