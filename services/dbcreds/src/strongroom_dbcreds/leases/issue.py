"""Making users, so that whatever crashes ends with a lease or without a user.

1. The lease is recorded, with the name of its user, in the state CREATING. Where an operator's template made it,
   the database has no such user, and no lease of the connection has: what is undone or ends removes its own alone.
2. The token is checked. Who ends a token removes what it obtained after that; so either this check finds the token
   dead, or what ends it finds the record.
3. The user is made.
4. The lease is made ACTIVE, if its record still stands as it was written; only then it is handed out.

Whatever fails in between is undone here; should this process die, any replica does it once the record's time is over.
"""

import asyncio
import datetime
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from strongroom.auth.v1 import gate_pb2
from strongroom_dbcreds.config import Config
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.credentials import Credentials, Made
from strongroom_dbcreds.domain import leases as domain
from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_dbcreds.domain.usernames import Known
from strongroom_dbcreds.drivers.base import Driver, NewUser, NotReachedError
from strongroom_dbcreds.leases.attempts import GivenUpError, bounded
from strongroom_dbcreds.leases.quotas import Quotas
from strongroom_dbcreds.leases.revoke import Revoker
from strongroom_dbcreds.leases.storage import ISSUED, Kept, Leases, happened, new_key
from strongroom_dbcreds.records import Connection, Role
from strongroom_dbcreds.storage import Named
from strongroom_runtime import lifetimes
from strongroom_runtime.clock import Clock
from strongroom_runtime.context import MountContext, RequestContext, TokenContext
from strongroom_runtime.errors import Kind, ServiceError, denied, invalid
from strongroom_runtime.handlers import Caller
from strongroom_runtime.mount_marks import check_there, unmoved
from strongroom_runtime.storage import ConflictError

log = logging.getLogger(__name__)

_CHECK_TOKEN = "/strongroom.auth.v1.TokenGateService/CheckToken"  # noqa: S105 (a method)
# As in Vault, the database's own end of a user comes a little later, so that the lease's comes first.
GRACE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Issued:
    """A lease that was handed out, with what its user logs in with."""

    lease: Lease
    made: Made
    ttl: int
    warnings: tuple[str, ...]


class Issuer:
    """Makes users and their leases."""

    def __init__(
        self,
        leases: Leases,
        roles: Named[Role],
        connections: Connections,
        credentials: Credentials,
        quotas: Quotas,
        revoker: Revoker,
        auth: Caller,
        clock: Clock,
        config: Config,
    ) -> None:
        self._leases = leases
        self._roles = roles
        self._connections = connections
        self._credentials = credentials
        self._quotas = quotas
        self._revoker = revoker
        self._auth = auth
        self._clock = clock
        self._config = config
        self._undoing: set[asyncio.Task[None]] = set()

    async def issue(self, mount: MountContext, role_name: str, token: TokenContext) -> Issued:
        """Makes a user of a role.

        Raises:
            ServiceError: INVALID where role or connection do not exist or the database refuses; EXHAUSTED for a
                quota; DENIED where the token has ended; UNAVAILABLE.
        """
        role, connection = await self._role(mount, role_name)
        now = self._clock.now()
        span = lifetimes.span(
            now=now,
            created=now,
            asked=role.default_ttl,
            usual=mount.default_lease_ttl,
            longest=longest(role, mount.max_lease_ttl),
        )
        known = Known(token.display_name, role_name, now)
        made = await self._credentials.make(connection, role, known, now + span.ttl + GRACE_SECONDS)
        lease = self._lease(mount, role_name, role, token, made, now, span.ttl)
        if lease.reserved:
            await self._check_name(lease, role)
        kept = await self._announce(lease, mount, role_name)
        try:
            await self._check(token)
        except BaseException:
            await self._finally(self._undo(lease, None, certain=True))
            raise
        active = await self._make(kept, role, made)
        return Issued(active.lease, made, span.ttl, span.warnings)

    async def settle(self) -> None:
        """Waits until everything that is being undone is."""
        while self._undoing:
            await asyncio.gather(*self._undoing, return_exceptions=True)

    async def _role(self, mount: MountContext, name: str) -> tuple[Role, Connection]:
        found = await self._roles.get(mount.uuid, name)
        if found is None:
            raise invalid(f"unknown role: {name}")
        role = found[0]
        connection = await self._connections.records.get(mount.uuid, role.database)
        if connection is None:
            raise invalid("db_name: the role's connection does not exist")
        if not connection[0].allows(name):
            raise invalid(f'"{name}" is not an allowed role')
        return role, connection[0]

    def _lease(
        self,
        mount: MountContext,
        role_name: str,
        role: Role,
        token: TokenContext,
        made: Made,
        now: float,
        ttl: int,
    ) -> Lease:
        key, config = new_key(), self._config
        return Lease(
            id=f"{mount.path}creds/{role_name}/{key}",
            key=key,
            mount=mount.uuid,
            role=role_name,
            database=role.database,
            username=made.username,
            token=token.id,
            reserved=made.chosen,
            state=State.CREATING,
            issued=now,
            expires=now + ttl,
            due=now + config.creation_seconds,
            longest=mount.max_lease_ttl,
            revocation=role.revocation,
            timeout=role.revocation_timeout or config.revocation_seconds,
            retry_interval=role.retry_interval or config.longest_retry_seconds,
            irrevocable_after=role.irrevocable_after or config.irrevocable_seconds,
        )

    async def _check_name(self, lease: Lease, role: Role) -> None:
        async with self._connections.use(lease.mount, lease.database) as driver:
            asked = driver.has_user(role.creation, lease.username)
            if await bounded(asked, self._config.creation_seconds / 2):
                raise _taken()

    async def _announce(self, lease: Lease, mount: MountContext, role_name: str) -> Kept:
        quota = await self._quotas.binding(mount.path, role_name)
        async with self._quotas.hold(quota):
            for _ in range(self._config.attempts):
                guard = await self._quotas.admit(quota, lease.path)
                guard.expect |= await unmoved(self._leases.store, mount)
                try:
                    return Kept(lease, await self._leases.announce(lease, guard))
                except ConflictError:
                    await check_there(self._leases.store, lease.mount)
                    if await self._leases.taken(lease):
                        raise _taken() from None
        raise ServiceError(Kind.CONFLICT, "others ask for leases all the time; try again")

    async def _check(self, token: TokenContext) -> None:
        request = gate_pb2.CheckTokenRequest(id=token.id)
        context = RequestContext(str(uuid.uuid4()), caller="dbcreds")
        answer = await self._auth.call(_CHECK_TOKEN, request, context)
        if answer.last_use:
            raise invalid(
                "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked."
            )
        if not answer.alive:
            raise denied()

    async def _make(self, kept: Kept, role: Role, made: Made) -> Kept:
        lease, begun = kept.lease, False
        try:
            async with self._connections.use(lease.mount, lease.database) as driver:
                begun = True
                return await self._make_with(driver, kept, role, made)
        except BaseException:
            if not begun:
                await self._finally(self._undo(lease, None, certain=True))
            raise

    async def _make_with(self, driver: Driver, kept: Kept, role: Role, made: Made) -> Kept:
        lease = kept.lease
        expiration = datetime.datetime.fromtimestamp(lease.expires + GRACE_SECONDS, datetime.UTC)
        user = NewUser(made.username, made.credential, expiration)
        # Half of the time that the record gives: nobody else may think that this is over while it is not.
        seconds = self._config.creation_seconds / 2
        try:
            await bounded(driver.create_user(role.creation, user), seconds)
            return await self._leases.replace(
                kept, domain.activated(lease), happened(ISSUED, lease, self._clock.now())
            )
        except BaseException as error:
            # With the driver in hand: the connection's record may be gone by now.
            told = None if isinstance(error, NotReachedError) else driver
            await self._finally(self._undo(lease, told, certain=_certain(error)))
            if isinstance(error, ConflictError):
                raise denied("the lease was revoked while it was made") from None
            raise

    async def _undo(self, lease: Lease, driver: Driver | None, *, certain: bool) -> None:
        """Removes a user that was or may have been made, and its lease; what cannot be done now is left to expiry."""
        claimed = await self._revoker.take_over(lease, certain=certain)
        if driver is not None:
            statements = await self._revoker.statements(claimed.lease)
            try:
                await bounded(driver.drop_user(statements, lease.username), lease.timeout)
            except ServiceError as error:
                await self._revoker.failed(claimed, error)
                return
        await self._revoker.finish([claimed])

    async def _finally(self, undoing: Coroutine[Any, Any, None]) -> None:
        """Waits for what must happen, and lets it go on where the caller does not wait."""
        task = asyncio.ensure_future(undoing)
        self._undoing.add(task)
        task.add_done_callback(self._undone)
        await asyncio.wait({task})

    def _undone(self, task: asyncio.Task[None]) -> None:
        self._undoing.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Its record stands: expiry does what is left.
            log.warning("a lease is undone later", extra={"error": type(error).__name__})


def longest(role: Role, mount_longest: int) -> int:
    """Returns how long a lease of a role may last with renewals."""
    return min(role.max_ttl or mount_longest, mount_longest)


def _taken() -> ServiceError:
    return invalid("username_template: there is a user already of the name that it made")


def _certain(error: BaseException) -> bool:
    """Returns whether a creation that failed so is over."""
    return not isinstance(error, GivenUpError | asyncio.CancelledError)
