"""Several seals, called as one."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from google.protobuf.message import Message
from tests.garbage import no_frames_left

from strongroom.seal.v1 import seal_pb2 as pb
from strongroom_gateway.system.seals import Seals
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid

SERVICE = "/strongroom.seal.v1.SealService"
CONTEXT = RequestContext("r")


class Replicas:
    """Seals that answer with a state or an error."""

    def __init__(self, *answers: pb.SealStatus | ServiceError) -> None:
        self.answers = answers
        self.passed_over: list[Kind | None] = []

    async def call(
        self,
        method: str,
        request: Message,
        context: RequestContext,
        *,
        passing_over: Kind | None = None,
    ) -> Any:
        self.passed_over.append(passing_over)
        return pb.ReadKeyStatusResponse()

    async def call_each(
        self, method: str, request: Message, context: RequestContext
    ) -> list[Any | ServiceError]:
        return [
            each if isinstance(each, ServiceError) else pb.UnsealResponse(status=each)
            for each in self.answers
        ]

    def stream(self, method: str, request: Message, context: RequestContext) -> AsyncGenerator[Any]:
        raise NotImplementedError

    def duplex(
        self, method: str, requests: AsyncIterator[Message], context: RequestContext
    ) -> AsyncGenerator[Any]:
        raise NotImplementedError


def sealed(progress: int) -> pb.SealStatus:
    return pb.SealStatus(sealed=True, progress=progress)


async def unseal(*answers: pb.SealStatus | ServiceError) -> pb.SealStatus:
    replicas = Replicas(*answers)
    response = await Seals(replicas).call(f"{SERVICE}/Unseal", pb.UnsealRequest(), CONTEXT)
    return response.status  # type: ignore[no-any-return]


async def test_the_seal_that_is_open_or_came_furthest_speaks_for_all() -> None:
    away = ServiceError(Kind.UNAVAILABLE, "away")
    assert await unseal(sealed(1), sealed(2), away) == sealed(2)
    opened = pb.SealStatus(sealed=False)
    assert await unseal(sealed(2), opened, away) == opened


async def test_a_share_that_no_seal_takes_is_refused() -> None:
    with pytest.raises(ServiceError, match="must be a valid hex"):
        await unseal(invalid("must be a valid hex"), invalid("must be a valid hex"))


async def test_what_no_seal_takes_leaves_nothing_in_memory() -> None:
    with no_frames_left():
        for _ in range(3):
            with contextlib.suppress(ServiceError):
                await unseal(invalid("must be a valid hex"), invalid("must be a valid hex"))


async def test_what_a_closed_seal_cannot_do_another_is_asked_for() -> None:
    replicas = Replicas()
    await Seals(replicas).call(f"{SERVICE}/ReadKeyStatus", pb.ReadKeyStatusRequest(), CONTEXT)
    assert replicas.passed_over == [Kind.SEALED]
