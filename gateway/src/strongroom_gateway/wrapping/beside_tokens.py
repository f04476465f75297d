"""Wrapping tokens beside other tokens: looked up and revoked in the same way, by themselves or by their accessors.

For clients a wrapping token is a token. The auth service has none of them, since their answers are kept here; what it
does not find is looked for among them. It has nothing against revoking what is not there: so they are revoked first.
"""

import math
from collections.abc import Coroutine
from typing import Any

from strongroom.auth.v1 import token_pb2 as pb
from strongroom_gateway.forwarding import Forwarding
from strongroom_gateway.wrapping.storage import Wrapped, WrapStore
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import StreamCaller
from strongroom_runtime.timestamps import timestamp

_TOKENS = "/strongroom.auth.v1.TokenService/"
_LOOKUP_ACCESSOR, _REVOKE_ACCESSOR = _TOKENS + "LookupAccessor", _TOKENS + "RevokeAccessor"
_LOOKUPS = {
    _TOKENS + "LookupToken": pb.LookupTokenResponse,
    _TOKENS + "ReadToken": pb.ReadTokenResponse,
}
_REVOKES = {
    _TOKENS + "RevokeToken": pb.RevokeTokenResponse,
    _TOKENS + "RevokeOrphan": pb.RevokeOrphanResponse,
}


class WithWrappingTokens(Forwarding):
    """The auth service, to whose tokens those that open wrapped answers are added.

    Args:
        auth: the auth service.
        wraps: where wrapped answers are kept.
    """

    def __init__(self, auth: StreamCaller, wraps: WrapStore) -> None:
        super().__init__(auth)
        self._wraps = wraps

    def call(self, method: str, request: Any, context: RequestContext) -> Coroutine[Any, Any, Any]:
        """Returns the response message."""
        if method == _LOOKUP_ACCESSOR:
            return self._look_up_accessor(request, context)
        if method == _REVOKE_ACCESSOR:
            return self._revoke_accessor(request, context)
        if method in _LOOKUPS:
            return self._look_up(method, request, context)
        if method in _REVOKES:
            return self._revoke(method, request, context)
        return super().call(method, request, context)

    async def _look_up_accessor(
        self, request: pb.LookupAccessorRequest, context: RequestContext
    ) -> pb.LookupAccessorResponse:
        try:
            found: pb.LookupAccessorResponse = await self._service.call(
                _LOOKUP_ACCESSOR, request, context
            )
        except ServiceError as error:
            if error.kind is not Kind.INVALID:
                raise
            wrapped = await self._wraps.by_accessor(request.accessor)
            if wrapped is None:
                raise
            return pb.LookupAccessorResponse(info=_info(wrapped, self._wraps.now()))
        return found

    async def _revoke_accessor(
        self, request: pb.RevokeAccessorRequest, context: RequestContext
    ) -> pb.RevokeAccessorResponse:
        if await self._wraps.revoke_accessor(request.accessor):
            return pb.RevokeAccessorResponse()
        response: pb.RevokeAccessorResponse = await self._service.call(
            _REVOKE_ACCESSOR, request, context
        )
        return response

    async def _look_up(self, method: str, request: Any, context: RequestContext) -> Any:
        try:
            return await self._service.call(method, request, context)
        except ServiceError as error:
            if error.kind is not Kind.DENIED:
                raise
            wrapped = await self._wraps.find(request.token)
            if wrapped is None:
                raise
            info = _info(wrapped, self._wraps.now())
            info.id = request.token
            return _LOOKUPS[method](info=info)

    async def _revoke(self, method: str, request: Any, context: RequestContext) -> Any:
        if await self._wraps.revoke(request.token):
            return _REVOKES[method]()
        return await self._service.call(method, request, context)


def _info(wrapped: Wrapped, now: float) -> pb.TokenInfo:
    """Returns what is told of a wrapping token, as Vault does: it may open its answer, once."""
    return pb.TokenInfo(
        accessor=wrapped.accessor,
        creation_time=int(wrapped.created),
        creation_ttl=wrapped.ttl,
        display_name="token",
        expire_time=timestamp(wrapped.expires),
        explicit_max_ttl=wrapped.ttl,
        issue_time=timestamp(wrapped.created),
        meta=b"null",
        num_uses=1,
        orphan=True,
        path=wrapped.path,
        policies=["response-wrapping"],
        ttl=max(0, math.ceil(wrapped.expires - now)),
        type="service",
    )
