"""Lengthening leases."""

import datetime
from dataclasses import dataclass

import msgspec

from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.domain.leases import Lease
from strongroom_dbcreds.leases.attempts import bounded
from strongroom_dbcreds.leases.issue import GRACE_SECONDS, longest
from strongroom_dbcreds.leases.storage import RENEWED, Kept, Leases, happened
from strongroom_dbcreds.records import Role
from strongroom_dbcreds.storage import Named
from strongroom_runtime import lifetimes
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import MountContext
from strongroom_runtime.errors import invalid
from strongroom_runtime.storage import ConflictError


@dataclass(frozen=True, slots=True)
class Renewed:
    """A lease that was lengthened, the seconds left, and what was done otherwise than asked."""

    lease: Lease
    ttl: int
    warnings: tuple[str, ...]


class Renewer:
    """Renews leases."""

    def __init__(
        self, leases: Leases, roles: Named[Role], connections: Connections, clock: Clock
    ) -> None:
        self._leases = leases
        self._roles = roles
        self._connections = connections
        self._clock = clock

    async def renew(self, kept: Kept, increment: int, mount: MountContext | None) -> Renewed:
        """Lengthens a lease, counted from now.

        Args:
            kept: the lease.
            increment: seconds; 0 for as long as the role says.
            mount: the lease's, as it is tuned now; None where it is not at its place any more.

        Raises:
            ServiceError: INVALID where it cannot be renewed; what the database says.
        """
        lease, now = kept.lease, self._clock.now()
        found = await self._roles.get(lease.mount, lease.role)
        if found is None:
            raise invalid("the lease's role does not exist any more; the lease cannot be renewed")
        role = found[0]
        if role.database != lease.database:
            raise invalid(
                "the lease's role is of another database now; the lease cannot be renewed"
            )
        known = mount is not None and mount.uuid == lease.mount
        most = longest(role, mount.max_lease_ttl if mount is not None and known else lease.longest)
        usual = mount.default_lease_ttl if mount is not None and known else most
        span = lifetimes.span(
            now=now,
            created=lease.issued,
            asked=increment or role.default_ttl,
            usual=usual,
            longest=most,
        )
        if span.ttl <= 0:
            raise invalid("past the max TTL, cannot renew")
        after = msgspec.structs.replace(
            lease, expires=now + span.ttl, due=now + span.ttl, renewed=now
        )
        longer = after.expires >= lease.expires
        if longer:
            # The database first: should what follows fail, the lease ends before its user could.
            await self._extend(after, role)
        try:
            await self._leases.replace(kept, after, happened(RENEWED, after, now))
        except ConflictError:
            if longer:
                await self._agree(lease.key, role)
            raise invalid("the lease was revoked or renewed by another request") from None
        if not longer:
            await self._agree(lease.key, role)
        return Renewed(after, span.ttl, span.warnings)

    async def _agree(self, key: str, role: Role) -> None:
        """Lets the database end a user when its lease ends now, whatever others make of the lease meanwhile."""
        told = 0.0
        # Past the memory, which may not know of them yet.
        while found := await self._leases.get_many([key]):
            lease = found[0].lease
            if lease.expires == told or not lease.alive(self._clock.now()):
                return
            told = lease.expires
            await self._extend(lease, role)

    async def _extend(self, lease: Lease, role: Role) -> None:
        expiration = datetime.datetime.fromtimestamp(lease.expires + GRACE_SECONDS, datetime.UTC)

        async def extend() -> None:
            async with self._connections.use(lease.mount, lease.database) as driver:
                await driver.renew_user(role.renewal, lease.username, expiration)

        await bounded(extend(), lease.timeout)
