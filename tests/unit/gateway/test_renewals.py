"""A token is renewed within the bounds of the mount that made it, as that is tuned now."""

from typing import Any

import pytest
from tests.fakes.store import MemoryStore

from strongroom.auth.v1 import gate_pb2, token_pb2
from strongroom_gateway.mounts.table import MountTable, builtin_mounts, new_mount
from strongroom_gateway.renewals import WithBoundsOfMounts
from strongroom_runtime.context import RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError

CONTEXT = RequestContext(
    "r", mount=builtin_mounts()["auth/token/"].context(), token=TokenContext("token-1", "accessor")
)
PEOPLE = new_mount("auth/people/", "userpass", default_ttl=60, max_ttl=90)


class Auth:
    """An auth service with a token of a mount; `old` for one of an earlier version."""

    def __init__(self, mount: str, *, old: bool = False) -> None:
        self._mount = mount
        self._old = old
        self.named: Any = None
        self.context = CONTEXT

    async def call(self, method: str, request: Any, context: RequestContext) -> Any:
        if not isinstance(request, gate_pb2.FindMountOfTokenRequest):
            self.context = context
            return request
        if self._old:
            raise ServiceError(Kind.UNSUPPORTED, "this service does not answer that method")
        self.named = request
        return gate_pb2.FindMountOfTokenResponse(mount_uuid=self._mount)


async def renewed(auth: Any, request: Any) -> Any:
    mounts = MountTable(MemoryStore())
    await mounts.change(lambda known: {**known, PEOPLE.path: PEOPLE})
    method = type(request).DESCRIPTOR.name.removesuffix("Request")
    both = WithBoundsOfMounts(auth, mounts)
    await both.call(f"/strongroom.auth.v1.TokenService/{method}", request, CONTEXT)
    return auth.context.mount


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (token_pb2.RenewSelfRequest(token="text"), {"id": "token-1"}),
        (token_pb2.RenewTokenRequest(token="text"), {"token": "text"}),
        (token_pb2.RenewAccessorRequest(accessor="a"), {"accessor": "a"}),
    ],
)
async def test_the_mount_of_a_token_goes_with_its_renewal(
    request_: Any, named: dict[str, str]
) -> None:
    auth = Auth(PEOPLE.uuid)
    mount = await renewed(auth, request_)
    assert auth.named == gate_pb2.FindMountOfTokenRequest(**named)
    assert (mount.uuid, mount.default_lease_ttl, mount.max_lease_ttl) == (PEOPLE.uuid, 60, 90)


@pytest.mark.parametrize("auth", [Auth(""), Auth("gone"), Auth(PEOPLE.uuid, old=True)])
async def test_else_it_is_that_of_the_request(auth: Auth) -> None:
    assert await renewed(auth, token_pb2.RenewSelfRequest()) == CONTEXT.mount


async def test_nothing_is_asked_for_other_requests() -> None:
    auth = Auth(PEOPLE.uuid)
    assert await renewed(auth, token_pb2.LookupSelfRequest()) == CONTEXT.mount
    assert auth.named is None
