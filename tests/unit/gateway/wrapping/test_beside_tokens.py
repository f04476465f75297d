"""Wrapping tokens beside other tokens and by their accessors, and that nothing of them stays behind."""

from typing import Any

import pytest
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import token_pb2 as pb
from strongroom_gateway.wrapping.beside_tokens import WithWrappingTokens
from strongroom_gateway.wrapping.storage import WrapStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.storage import Entry, Path, Plain

_TOKENS = "/strongroom.auth.v1.TokenService/"


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.time = 1_000.0

    async def ready(self) -> None:
        """It always is."""

    def now(self) -> float:
        return self.time


class Auth:
    """An auth service with one token of its own."""

    def __init__(self) -> None:
        self.error = invalid("invalid accessor")
        self.revoked: list[str] = []

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        if method == _TOKENS + "RevokeToken":
            self.revoked.append(request.token)
            return pb.RevokeTokenResponse()
        if method == _TOKENS + "LookupToken":
            if request.token != "own":
                raise denied("bad token")
            return pb.LookupTokenResponse(info=pb.TokenInfo(id="own"))
        if method == _TOKENS + "RevokeAccessor":
            self.revoked.append(request.accessor)
            return pb.RevokeAccessorResponse()
        if request.accessor != "own":
            raise self.error
        return pb.LookupAccessorResponse(info=pb.TokenInfo(accessor="own"))


class Store(MemoryStore):
    """A store that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def get(self, path: Path, *, linearizable: bool = False) -> Entry | None:
        if self.away:
            raise ServiceError(Kind.UNAVAILABLE, "away")
        return await super().get(path, linearizable=linearizable)


class Bench:
    """A gateway's wrapped answers beside the auth service."""

    def __init__(self) -> None:
        self.store, self.clock, self.auth = Store(), Clock(), Auth()
        self.wraps = WrapStore(self.store, self.clock)  # type: ignore[arg-type]
        self.both = WithWrappingTokens(self.auth, self.wraps)  # type: ignore[arg-type]

    async def lookup(self, accessor: str) -> pb.TokenInfo:
        request = pb.LookupAccessorRequest(accessor=accessor)
        answer = await self.both.call(_TOKENS + "LookupAccessor", request, RequestContext("r"))
        info: pb.TokenInfo = answer.info
        return info

    async def revoke(self, accessor: str) -> None:
        request = pb.RevokeAccessorRequest(accessor=accessor)
        await self.both.call(_TOKENS + "RevokeAccessor", request, RequestContext("r"))

    async def token(self, method: str, text: str) -> Any:
        request: Any = getattr(pb, f"{method}Request")(token=text)
        return await self.both.call(_TOKENS + method, request, RequestContext("r"))

    async def kept(self) -> int:
        """Returns how many records there are of wrapped answers."""
        kinds = ("wrap", "wrap-due", "wrap-accessor")
        return sum([len(await self.store.scan((Plain(kind),), limit=100)) for kind in kinds])


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def refused(call: Any, kind: Kind = Kind.INVALID) -> None:
    with pytest.raises(ServiceError) as caught:
        await call
    assert caught.value.kind is kind


async def test_a_wrapping_token_is_found_by_its_accessor(bench: Bench) -> None:
    text, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    bench.clock.time += 10
    info = await bench.lookup(wrapped.accessor)
    assert (info.id, info.path, info.ttl, info.creation_ttl) == ("", "secret/data/x", 50, 60)
    assert (list(info.policies), info.num_uses, info.renewable) == (["response-wrapping"], 1, False)
    assert (await bench.lookup("own")).accessor == "own"
    await refused(bench.lookup("none"))
    await bench.wraps.open(text)
    await refused(bench.lookup(wrapped.accessor))
    assert await bench.kept() == 0


async def test_a_wrapping_token_is_revoked_by_its_accessor_once(bench: Bench) -> None:
    text, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    await bench.revoke(wrapped.accessor)
    await refused(bench.wraps.open(text))
    assert (await bench.kept(), bench.auth.revoked) == (0, [])
    await bench.revoke(wrapped.accessor)
    assert bench.auth.revoked == [wrapped.accessor]


async def test_a_wrapping_token_is_looked_up_and_revoked_as_others_are(bench: Bench) -> None:
    text, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    info = (await bench.token("LookupToken", text)).info
    assert (info.id, info.accessor, info.path) == (text, wrapped.accessor, "secret/data/x")
    assert (await bench.token("LookupToken", "own")).info.id == "own"
    await refused(bench.token("LookupToken", "none"), Kind.DENIED)
    await bench.token("RevokeToken", text)
    await refused(bench.wraps.open(text))
    assert (await bench.kept(), bench.auth.revoked) == (0, [])
    await bench.token("RevokeToken", text)
    assert bench.auth.revoked == [text]
    await refused(bench.token("LookupToken", text), Kind.DENIED)


async def test_revoking_fails_where_it_is_not_known_whether_the_token_is_valid(
    bench: Bench,
) -> None:
    text, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    bench.store.away = True
    await refused(bench.token("RevokeToken", text), Kind.UNAVAILABLE)
    await refused(bench.revoke(wrapped.accessor), Kind.UNAVAILABLE)
    assert bench.auth.revoked == []


async def test_an_accessor_goes_with_the_token_that_takes_its_place(bench: Bench) -> None:
    text, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    _, moved = await bench.wraps.move(text)
    await refused(bench.lookup(wrapped.accessor))
    assert (await bench.lookup(moved.accessor)).creation_ttl == 60


async def test_what_has_ended_is_not_found_and_is_swept_away(bench: Bench) -> None:
    _, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    bench.clock.time += 61
    await refused(bench.lookup(wrapped.accessor))
    bench.clock.time += 1
    await bench.wraps.sweep()
    assert await bench.kept() == 0


async def test_other_errors_of_the_auth_service_stand(bench: Bench) -> None:
    _, wrapped = await bench.wraps.wrap(b"{}", "secret/data/x", 60)
    bench.auth.error = denied()
    await refused(bench.lookup(wrapped.accessor), Kind.DENIED)
