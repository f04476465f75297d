"""Ending leases: from the moment a lease is marked, its user is removed for certain, by whichever replica can."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.domain import leases as domain
from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_dbcreds.leases.attempts import bounded
from strongroom_dbcreds.leases.storage import FAILED, REVOKED, Kept, Leases, happened
from strongroom_dbcreds.records import Role
from strongroom_dbcreds.storage import Named, is_gone
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.shared_clock import SharedClock
from strongroom_runtime.storage import ConflictError, Path

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05


@dataclass(slots=True)
class Failures:
    """How many of many leases could not be revoked, and why the last of them."""

    count: int = 0
    last: str = ""


# (after key): a page of keys behind it.
Pages = Callable[[str], Awaitable[list[str]]]


def _all(lease: Lease) -> bool:
    return True


class Revoker:
    """Revokes leases. Which replica drops a user is settled by a claim in the lease's record."""

    def __init__(
        self,
        leases: Leases,
        roles: Named[Role],
        connections: Connections,
        clock: SharedClock,
        config: Config,
    ) -> None:
        self._leases = leases
        self._roles = roles
        self._connections = connections
        self._clock = clock
        self._config = config
        self._name = secrets.token_hex(8)
        # Databases that could not be reached, by (mount, connection): until when nobody tries, and why.
        self._away: dict[tuple[str, str], tuple[float, str]] = {}
        self.wake = asyncio.Event()

    async def mark(self, key: str) -> bool:
        """Ends a lease: it will be revoked. Returns whether there is one."""
        while True:
            kept = await self._leases.get(key)
            if kept is None or kept.lease.state is State.GHOST:
                return False
            after = domain.ended(kept.lease, self._clock.now())
            if after is kept.lease:
                return True
            with contextlib.suppress(ConflictError):
                await self._leases.replace(kept, after)
                self.wake.set()
                return True

    async def revoke(self, key: str, *, early: bool = False, insist: bool = False) -> str | None:
        """Makes one attempt to revoke a lease, unless another replica is at it.

        Args:
            key: of the lease.
            early: before its time, because somebody asked or its database is back.
            insist: try even where the database could not be reached a moment ago.

        Returns:
            Why it could not be revoked; empty where it was; None where there is nothing to do now.
        """
        if early and not insist:
            known = await self._failing_away(key)
            if known:
                return known  # already recorded: many may be asked for while their database is away
        claimed = await self._claim(key, early=early)
        if claimed is None:
            return None
        away = "" if insist else self._known_away(claimed.lease)
        if away:
            await self._put_off(claimed, away)
            return away
        try:
            await self._drop(claimed.lease)
        except ServiceError as error:
            await self.failed(claimed, error)
            return error.message or error.kind.value
        self._away.pop(_connection(claimed.lease), None)
        await self.finish(claimed)
        return ""

    async def revoke_now(self, key: str, *, insist: bool = True) -> str:
        """Ends a lease, and waits until it is revoked or an attempt has failed; returns why it has."""
        if not await self.mark(key):
            return ""
        while True:
            error = await self.revoke(key, early=True, insist=insist)
            if error is not None:
                return error
            kept = await self._leases.get(key)
            if kept is None or kept.lease.state is State.GHOST:
                return ""
            if kept.lease.error and not kept.lease.claimed(self._clock.now()):
                return kept.lease.error  # another replica's attempt has failed
            await asyncio.sleep(_LOOK_SECONDS)

    async def revoke_all(self, pages: Pages, *, force: bool = False) -> Failures:
        """Ends leases, page after page, several at a time; returns how many could not be revoked.

        Args:
            pages: gives keys.
            force: forget those that cannot be revoked.
        """
        slots = asyncio.Semaphore(self._config.parallel)
        failures = Failures()

        async def one(key: str) -> None:
            async with slots:
                error = await self.revoke_now(key, insist=False)
                if error and force:
                    await self.forget(key)
                elif error:
                    failures.count, failures.last = failures.count + 1, error

        after = ""
        while keys := await pages(after):
            await asyncio.gather(*(one(key) for key in keys))
            after = keys[-1]
        return failures

    async def mark_all(self, pages: Pages, doomed: Callable[[Lease], bool] = _all) -> None:
        """Ends leases, many in one transaction: when it returns, they will all be revoked.

        Those marked before a crash are revoked all the same; who asked asks again for the others.

        Args:
            pages: gives keys.
            doomed: which of them.
        """
        after = ""
        while keys := await pages(after):
            await self._mark_many(keys, doomed)
            after = keys[-1]

    async def _mark_many(self, keys: list[str], doomed: Callable[[Lease], bool]) -> None:
        now = self._clock.now()
        changes = []
        for kept in await self._leases.get_many(keys):
            after = domain.ended(kept.lease, now)
            if after is not kept.lease and doomed(kept.lease):
                changes.append((kept, after))
        for key in await self._leases.replace_many(changes):
            await self.mark(key)  # one that changed meanwhile must not keep the others from ending
        if changes:
            self.wake.set()

    def below(self, prefix: str) -> Pages:
        """Returns the leases whose ids begin with a prefix, for `revoke_all` and `mark_all`."""
        position: list[Path | None] = [None]

        async def pages(after: str) -> list[str]:
            keys, position[0] = await self._leases.below(prefix, position[0])
            return keys

        return pages

    async def hurry(self, key: str) -> None:
        """Lets a lease that could not be revoked be tried at once."""
        kept, now = await self._leases.get(key), self._clock.now()
        if kept is None or kept.lease.claimed(now) or kept.lease.due <= now:
            return
        # A conflict: somebody is at it, which is what was wanted.
        with contextlib.suppress(ConflictError):
            await self._leases.replace(kept, msgspec.structs.replace(kept.lease, due=now))
            self.wake.set()

    async def forget(self, key: str) -> None:
        """Removes a lease whose user cannot be removed: an operator said so."""
        while (kept := await self._leases.get(key)) is not None:
            with contextlib.suppress(ConflictError):
                await self._leases.remove(kept, happened(REVOKED, kept.lease, self._clock.now()))
                log.warning("a lease was forgotten by force", extra={"lease": kept.lease.id})
                return

    async def finish(self, claimed: Kept) -> None:
        """Records that the user of a lease is gone."""
        now, config = self._clock.now(), self._config
        left = domain.dropped(
            claimed.lease, now, config.creation_seconds, config.aftercheck_seconds
        )
        event = None
        if claimed.lease.given:
            event = happened(REVOKED, claimed.lease, now)
        # A conflict: the claim ran out, and another replica took over; it will find the user gone.
        with contextlib.suppress(ConflictError):
            if left is None:
                await self._leases.remove(claimed, event)
            else:
                await self._leases.replace(claimed, left, event)

    async def take_over(self, lease: Lease, *, certain: bool) -> Kept:
        """Returns a lease that this replica made, ended, and to itself, whatever became of its record meanwhile.

        Args:
            lease: as it was recorded.
            certain: its creation is over, one way or the other.
        """
        seconds = lease.timeout + self._config.claim_seconds
        while True:
            kept, now = await self._leases.get(lease.key), self._clock.now()
            mine = domain.claimed(kept.lease if kept else lease, self._name, now, seconds)
            mine = msgspec.structs.replace(mine, unmade=not certain)
            with contextlib.suppress(ConflictError):
                if kept is None:
                    return await self._leases.restore(mine)
                return await self._leases.replace(kept, mine)

    async def statements(self, lease: Lease) -> tuple[str, ...]:
        """Returns what removes the user of a lease, as the role says now; as it said then where there is none."""
        found = await self._roles.get(lease.mount, lease.role)
        if found is None:
            return lease.revocation
        role = found[0]
        return role.rollback if role.rollback and not lease.given else role.revocation

    async def _claim(self, key: str, *, early: bool) -> Kept | None:
        """Returns a lease that this replica has to itself now; None where there is nothing to do."""
        kept = await self._leases.get(key)
        now = self._clock.now()
        if kept is None or kept.lease.claimed(now) or (not early and kept.lease.due > now):
            return None
        if early and kept.lease.state not in (State.REVOKING, State.GHOST):
            return None
        seconds = kept.lease.timeout + self._config.claim_seconds
        try:
            return await self._leases.replace(
                kept, domain.claimed(kept.lease, self._name, now, seconds)
            )
        except ConflictError:
            return None  # another replica was faster

    async def _drop(self, lease: Lease) -> None:
        statements = await self.statements(lease)

        async def drop() -> None:
            async with self._connections.use(lease.mount, lease.database) as driver:
                await driver.drop_user(statements, lease.username)

        await bounded(drop(), lease.timeout)

    async def failed(self, claimed: Kept, error: ServiceError) -> None:
        """Records that an attempt to revoke a lease failed."""
        config, now = self._config, self._clock.now()
        text = error.message or error.kind.value
        away = error.kind in (Kind.UNAVAILABLE, Kind.FAILED_PRECONDITION)
        if away:
            self._away[_connection(claimed.lease)] = (now + config.probe_seconds, text)
        after = domain.failed(
            claimed.lease,
            text,
            now,
            config.first_retry_seconds,
            random.random(),  # noqa: S311 (spreads load)
            away=away,
        )
        log.warning(
            "a lease could not be revoked",
            extra={"lease": after.id, "attempts": after.attempts, "kind": error.kind.value},
        )
        with contextlib.suppress(ConflictError):
            if after.state is State.GHOST and await is_gone(self._leases.store, after.mount):
                await self._leases.remove(claimed)  # with the mount its connection went
            else:
                await self._leases.replace(claimed, after, happened(FAILED, after, now))

    async def _put_off(self, claimed: Kept, error: str) -> None:
        now = self._clock.now()
        # The probe finds out when the database is back, and then takes all that wait for it.
        seconds = claimed.lease.retry_interval * random.uniform(0.5, 1.0)  # noqa: S311
        with contextlib.suppress(ConflictError):
            await self._leases.replace(
                claimed, domain.postponed(claimed.lease, error, now, seconds)
            )

    async def _failing_away(self, key: str) -> str:
        """Returns why a lease waits for its database, where that was away a moment ago; empty where it does not."""
        kept = await self._leases.get(key)
        return self._known_away(kept.lease) if kept is not None and kept.lease.away else ""

    def _known_away(self, lease: Lease) -> str:
        until, error = self._away.get(_connection(lease), (0.0, ""))
        return error if self._clock.now() < until else ""


def _connection(lease: Lease) -> tuple[str, str]:
    return lease.mount, lease.database
