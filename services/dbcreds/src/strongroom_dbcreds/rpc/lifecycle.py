"""LeaseLifecycleService: what happens when mounts and tokens go."""

from strongroom.dbcreds.v1 import lease_pb2 as pb
from strongroom_dbcreds.records import Connection, Role
from strongroom_dbcreds.storage import Named, mark_gone
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.storage import Store


class LifecycleHandlers:
    """Answers the services that take mounts and tokens away."""

    def __init__(self, store: Store, connections: Named[Connection], roles: Named[Role]) -> None:
        self._store = store
        self._connections = connections
        self._roles = roles

    async def DropMount(
        self, request: pb.DropMountRequest, context: RequestContext
    ) -> pb.DropMountResponse:
        mount = _named(request.mount_uuid, "mount_uuid")
        await mark_gone(self._store, mount)
        await self._roles.drop(mount)
        await self._connections.drop(mount)
        return pb.DropMountResponse()

    async def DropTokenLeases(
        self, request: pb.DropTokenLeasesRequest, context: RequestContext
    ) -> pb.DropTokenLeasesResponse:
        _named(request.token_id, "token_id")
        return pb.DropTokenLeasesResponse()


def _named(value: str, field: str) -> str:
    if not value:
        raise invalid(f"{field}: must not be empty")
    return value
