"""Renews tokens within the bounds of the login mount that made them, as it is tuned now.

The auth service knows which mount made a token, and how mounts are tuned is known here alone.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from strongroom.auth.v1 import gate_pb2
from strongroom_gateway.forwarding import Forwarding
from strongroom_gateway.mounts.table import MountTable
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.handlers import StreamCaller

_FIND = "/strongroom.auth.v1.TokenGateService/FindMountOfToken"
_TOKENS = "/strongroom.auth.v1.TokenService/"
_Named = gate_pb2.FindMountOfTokenRequest


def _own(request: Any, context: RequestContext) -> _Named:
    return _Named(id=context.token.id if context.token is not None else "")


# Which token each method renews.
_RENEWED: dict[str, Callable[[Any, RequestContext], _Named]] = {
    _TOKENS + "RenewSelf": _own,
    _TOKENS + "RenewToken": lambda request, _: _Named(token=request.token),
    _TOKENS + "RenewAccessor": lambda request, _: _Named(accessor=request.accessor),
}


class WithBoundsOfMounts(Forwarding):
    """The auth service, which is told of the mount of a token that is renewed.

    Args:
        auth: the auth service.
        mounts: the mounts as they are tuned.
    """

    def __init__(self, auth: StreamCaller, mounts: MountTable) -> None:
        super().__init__(auth)
        self._mounts = mounts

    def call(self, method: str, request: Any, context: RequestContext) -> Coroutine[Any, Any, Any]:
        """Returns the response message."""
        if method in _RENEWED:
            return self._renew(method, request, context)
        return super().call(method, request, context)

    async def _renew(self, method: str, request: Any, context: RequestContext) -> Any:
        uuid = await self._mount_of(_RENEWED[method](request, context), context)
        mounts = (await self._mounts.current()).contexts.values()
        own = next((mount for mount in mounts if mount.uuid == uuid), context.mount)
        context = msgspec.structs.replace(context, mount=own)
        return await self._service.call(method, request, context)

    async def _mount_of(self, token: _Named, context: RequestContext) -> str:
        try:
            found = await self._service.call(_FIND, token, context)
        except ServiceError as error:
            if error.kind is not Kind.UNSUPPORTED:
                raise
            return ""  # of an earlier version, which goes by the bounds at the login
        uuid: str = found.mount_uuid
        return uuid
