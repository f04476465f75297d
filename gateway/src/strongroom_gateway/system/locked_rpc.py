"""LockedUserService: who is locked after failed logins, of all login mounts."""

from collections.abc import AsyncIterator

import msgspec

from strongroom.auth.v1 import gate_pb2
from strongroom.sys.v1 import locked_users_pb2 as pb
from strongroom_gateway.mounts.engines import LOGINS
from strongroom_gateway.mounts.table import ACTIVE, MountTable
from strongroom_runtime.context import MountContext, RequestContext
from strongroom_runtime.handlers import Caller

_LIST = "/strongroom.auth.v1.TokenGateService/ListLockedNames"
_UNLOCK = "/strongroom.auth.v1.TokenGateService/UnlockName"


class LockedUserHandlers:
    """Answers requests to sys/locked-users.

    Args:
        mounts: the login mounts.
        auth: the auth service, which counts.
    """

    def __init__(self, mounts: MountTable, auth: Caller) -> None:
        self._mounts = mounts
        self._auth = auth

    async def ListLockedUsers(
        self, request: pb.ListLockedUsersRequest, context: RequestContext
    ) -> pb.ListLockedUsersResponse:
        found = pb.LockedInNamespace(namespace_id="root")
        async for mount in self._asked(request.mount_accessor):
            names = await self._names(mount, context)
            if names:
                found.mount_accessors.add(
                    mount_accessor=mount.accessor, counts=len(names), alias_identifiers=names
                )
        found.counts = sum(each.counts for each in found.mount_accessors)
        return pb.ListLockedUsersResponse(by_namespace=[found], total=found.counts)

    async def UnlockUser(
        self, request: pb.UnlockUserRequest, context: RequestContext
    ) -> pb.UnlockUserResponse:
        unlock = gate_pb2.UnlockNameRequest(name=request.alias_identifier)
        async for mount in self._asked(request.mount_accessor):
            await self._auth.call(_UNLOCK, unlock, msgspec.structs.replace(context, mount=mount))
        return pb.UnlockUserResponse()

    async def _asked(self, accessor: str) -> AsyncIterator[MountContext]:
        """Yields the login mounts that count, all or the one of an accessor."""
        table = await self._mounts.current()
        for path, mount in sorted(table.mounts.items()):
            counts = mount.auth and mount.state == ACTIVE and mount.type in LOGINS
            if counts and accessor in ("", mount.accessor):
                yield table.contexts[path]

    async def _names(self, mount: MountContext, context: RequestContext) -> list[str]:
        inner = msgspec.structs.replace(context, mount=mount)
        answer = await self._auth.call(_LIST, gate_pb2.ListLockedNamesRequest(), inner)
        return list(answer.names)
