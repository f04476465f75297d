"""LeaseLifecycleService: what happens when mounts and tokens go."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from strongroom.dbcreds.v1 import lease_pb2 as pb
from strongroom_dbcreds.leases.revoke import Revoker
from strongroom_dbcreds.leases.storage import Leases
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import RequestContext
from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.mount_marks import Moved, mark_gone, mark_moved

# (mount's uuid): removes something of a mount; may be repeated.
Drop = Callable[[str], Awaitable[None]]


class LifecycleHandlers:
    """Answers the services that take mounts and tokens away.

    Args:
        leases: of all mounts.
        revoker: ends them.
        clock: by which they end.
        drops: remove the rest of a mount, in this order, once no lease is left that needs it.
    """

    def __init__(
        self, leases: Leases, revoker: Revoker, clock: Clock, drops: Sequence[Drop]
    ) -> None:
        self._leases = leases
        self._revoker = revoker
        self._clock = clock
        self._drops = drops

    async def DropMount(
        self, request: pb.DropMountRequest, context: RequestContext
    ) -> pb.DropMountResponse:
        mount = _named(request.mount_uuid, "mount_uuid")
        # From here on no lease can be added: what adds one expects this mark to be absent.
        await mark_gone(self._leases.store, mount)
        pages = partial(self._leases.of_mount, mount)
        await self._revoker.mark_all(pages)
        failures = await self._revoker.revoke_all(pages)
        if failures.count or await self._leases.of_mount(mount):
            count = await self._leases.count_of_mount(mount)
            raise ServiceError(
                Kind.UNAVAILABLE,
                f"{count} leases of the mount could not be revoked yet; this goes on by itself, and sys/leases/"
                f"revoke-force gives them up: {failures.last or 'another replica is at it'}",
            )
        for drop in self._drops:
            await drop(mount)
        return pb.DropMountResponse()

    async def EndMovedLeases(
        self, request: pb.EndMovedLeasesRequest, context: RequestContext
    ) -> pb.EndMovedLeasesResponse:
        mount, path = _named(request.mount_uuid, "mount_uuid"), _named(request.path, "path")
        # From here on no lease can be added under another path: what adds one expects this record as it was.
        if not await mark_moved(self._leases.store, mount, Moved(path, request.moves)):
            return pb.EndMovedLeasesResponse()  # it was moved again, or disabled: that is seen to
        pages = partial(self._leases.of_mount, mount)
        await self._revoker.mark_all(pages, lambda lease: not lease.id.startswith(path))
        return pb.EndMovedLeasesResponse()

    async def DropTokenLeases(
        self, request: pb.DropTokenLeasesRequest, context: RequestContext
    ) -> pb.DropTokenLeasesResponse:
        token = _named(request.token_id, "token_id")
        await self._revoker.mark_all(partial(self._leases.of_token, token))
        return pb.DropTokenLeasesResponse()


def _named(value: str, field: str) -> str:
    if not value:
        raise invalid(f"{field}: must not be empty")
    return value
