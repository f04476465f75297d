"""Ending leases: from the moment a lease is marked, its user is removed for certain, by whichever replica can."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

import msgspec

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.connections import Connections
from strongroom_dbcreds.domain import leases as domain
from strongroom_dbcreds.domain.leases import Lease, State
from strongroom_dbcreds.leases.attempts import bounded
from strongroom_dbcreds.leases.storage import FAILED, REVOKED, Change, Kept, Leases, happened
from strongroom_dbcreds.records import Role
from strongroom_dbcreds.storage import Named
from strongroom_runtime.clock import Clock
from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.mount_marks import is_gone
from strongroom_runtime.service import Membership
from strongroom_runtime.storage import ConflictError, Path, unreadable

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
# Users of one batch that are removed within such a time are recorded as removed in one transaction.
_TOGETHER_SECONDS = 0.05


@dataclass(slots=True)
class Failures:
    """How many of many leases could not be revoked, and why the last of them."""

    count: int = 0
    last: str = ""


# (after key): a page of keys behind it.
Pages = Callable[[str], Awaitable[list[str]]]


def _nothing(_: Collection[str]) -> None:
    """For those who need not be told."""


class Places:
    """So many attempts at a time, for batches that take as many as are free."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._freed = asyncio.Event()

    async def take(self, most: int) -> int:
        """Waits until there is a place; returns how many were taken."""
        while not self._free:
            self._freed.clear()
            await self._freed.wait()
        taken = min(self._free, most)
        self._free -= taken
        return taken

    def give(self, number: int) -> None:
        """Gives places back."""
        self._free += number
        self._freed.set()


def _all(lease: Lease) -> bool:
    return True


class Revoker:
    """Revokes leases. Which replica drops a user is settled by a claim in the lease's record."""

    def __init__(
        self,
        leases: Leases,
        roles: Named[Role],
        connections: Connections,
        clock: Clock,
        config: Config,
        membership: Membership,
    ) -> None:
        self._membership = membership
        self._leases = leases
        self._roles = roles
        self._connections = connections
        self._clock = clock
        self._config = config
        self._name = secrets.token_hex(8)  # where it has none as a member
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
        """Makes one attempt to revoke a lease, as `revoke_many`.

        Returns:
            Why it could not be revoked; empty where it was; None where there is nothing to do now.
        """
        return (await self.revoke_many([key], early=early, insist=insist)).get(key)

    async def revoke_many(
        self,
        keys: Sequence[str],
        *,
        early: bool = False,
        insist: bool = False,
        over: Callable[[Collection[str]], None] = _nothing,
    ) -> dict[str, str]:
        """Makes one attempt to revoke each of some leases, as `revoke_read`."""
        found, _ = await self.read(keys)
        return await self.revoke_read(found, early=early, insist=insist, over=over)

    async def revoke_page(self, keys: Sequence[str]) -> dict[str, str]:
        """Revokes leases that have ended, as `revoke_many`: any number, as many at a time as there are places."""
        places, tasks, rest = Places(self._config.parallel), [], list(keys)
        try:
            while rest:
                room = await places.take(len(rest))
                batch, rest = rest[:room], rest[room:]
                tasks.append(asyncio.create_task(self._revoke_some(batch, places)))
            tried = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return {key: error for some in tried for key, error in some.items()}

    async def _revoke_some(self, keys: Sequence[str], places: Places) -> dict[str, str]:
        left = set(keys)

        def over(keys: Collection[str]) -> None:
            places.give(len(left.intersection(keys)))
            left.difference_update(keys)

        try:
            return await self.revoke_many(keys, early=True, over=over)
        finally:
            over(list(left))

    async def revoke_read(
        self,
        found: Sequence[Kept],
        *,
        early: bool = False,
        insist: bool = False,
        over: Callable[[Collection[str]], None] = _nothing,
    ) -> dict[str, str]:
        """Makes one attempt to revoke each of some leases, unless another replica is at it.

        They are claimed together, their users are removed beside each other, and those that are gone are recorded
        together: whatever one of them does, the others neither wait for it nor fail with it.

        Args:
            found: the leases as they were read; no more than are to be attempted at a time, for a claim lasts as long
                as one attempt.
            early: before their time, because somebody asked or their database is back.
            insist: try even where the database could not be reached a moment ago.
            over: told the keys of those whose users are gone or could not be removed, before that is recorded.

        Returns:
            By key, why a lease could not be revoked; empty where it was. Those with which there is nothing to do now
            are not in it.
        """
        outcomes: dict[str, str] = {}
        if early and not insist:
            # Already recorded: many may be asked for while their database is away.
            known = {k.lease.key: self._known_away(k.lease) for k in found if k.lease.away}
            outcomes = {key: error for key, error in known.items() if error}
        claimed = await self._claim([k for k in found if k.lease.key not in outcomes], early=early)
        if not insist:
            claimed = await self._put_off(claimed, outcomes)
        over({kept.lease.key for kept in found} - {kept.lease.key for kept in claimed})
        return outcomes | await self._attempt(claimed, over)

    async def _attempt(
        self, claimed: Sequence[Kept], over: Callable[[Collection[str]], None]
    ) -> dict[str, str]:
        """Removes the users of leases, and records what came of it; returns why they could not be, by key."""
        outcomes: dict[str, str] = {}
        problems: list[Exception] = []
        running = {asyncio.create_task(self._drop(kept.lease)): kept for kept in claimed}
        try:
            while running:
                done, _ = await asyncio.wait(running, timeout=_TOGETHER_SECONDS)
                if not done:
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                ended = [(running.pop(task), task.result()) for task in done]
                over({kept.lease.key for kept, _ in ended})
                outcomes |= {kept.lease.key: _text(error) for kept, error in ended}
                try:
                    await self._record(ended)
                except Exception as error:
                    problems.append(error)  # the others still run
        finally:
            for task in running:
                task.cancel()
        if problems:
            raise problems[0]
        return outcomes

    async def _record(self, ended: Sequence[tuple[Kept, ServiceError | None]]) -> None:
        gone = [kept for kept, error in ended if error is None]
        for kept in gone:
            self._away.pop(_connection(kept.lease), None)
        await asyncio.gather(
            self.finish(gone),
            *(self.failed(kept, error) for kept, error in ended if error is not None),
        )

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
        failures = Failures()

        async def settle(key: str, error: str | None) -> None:
            if error is None:  # somebody is at it, or has done it
                error = await self.revoke_now(key, insist=False)
            if error and force:
                await self.forget(key)
            elif error:
                failures.count, failures.last = failures.count + 1, error

        after = ""
        while keys := await pages(after):
            tried = await self.revoke_page(keys)
            await asyncio.gather(*(settle(key, tried.get(key)) for key in keys))
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
                changes.append(Change(kept, after))
        _, left = await self._leases.change_many(changes)
        for change in left:
            # One that changed meanwhile must not keep the others from ending.
            await self.mark(change.before.lease.key)
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

    async def finish(self, claimed: Sequence[Kept]) -> None:
        """Records that the users of leases are gone."""
        now, config = self._clock.now(), self._config
        changes = []
        for kept in claimed:
            left = domain.dropped(
                kept.lease, now, config.creation_seconds, config.aftercheck_seconds
            )
            event = happened(REVOKED, kept.lease, now) if kept.lease.given else None
            changes.append(Change(kept, left, event))
        # A conflict: the claim ran out, and another replica took over; it will find the user gone.
        await self._change(changes)

    async def take_over(self, lease: Lease, *, certain: bool) -> Kept:
        """Returns a lease that this replica made, ended, and to itself, whatever became of its record meanwhile.

        Args:
            lease: as it was recorded.
            certain: its creation is over, one way or the other.
        """
        seconds = lease.timeout + self._config.claim_seconds
        while True:
            kept, now = await self._leases.get(lease.key), self._clock.now()
            mine = domain.claimed(kept.lease if kept else lease, self._claimant, now, seconds)
            mine = msgspec.structs.replace(mine, unmade=not certain)
            with contextlib.suppress(ConflictError):
                if kept is None:
                    return await self._leases.restore(mine)
                return await self._leases.replace(kept, mine)

    async def statements(self, lease: Lease) -> tuple[str, ...]:
        """Returns what removes the user of a lease, as the role says now.

        As it said then, where there is none any more, or it is of another database by now.
        """
        found = await self._roles.get(lease.mount, lease.role)
        if found is None or found[0].database != lease.database:
            return lease.revocation
        role = found[0]
        return role.rollback if role.rollback and not lease.given else role.revocation

    async def read(self, keys: Sequence[str]) -> tuple[list[Kept], list[str]]:
        """Returns those leases that there are, and the keys of those that do not open.

        Raises:
            ServiceError: UNAVAILABLE.
        """
        try:
            return await self._leases.get_many(keys), []
        except Exception as error:
            if not unreadable(error):
                raise
        # One that does not open must not keep the others from ending.
        found = await asyncio.gather(
            *(self._leases.get_many([key]) for key in keys), return_exceptions=True
        )
        opened: list[Kept] = []
        broken: list[str] = []
        for key, each in zip(keys, found, strict=True):
            if isinstance(each, list):
                opened += each
            elif unreadable(each):
                self._leases.note_unreadable(key, each)
                broken.append(key)
            else:
                raise each
        return opened, broken

    async def _claim(self, found: Sequence[Kept], *, early: bool) -> list[Kept]:
        """Returns the leases that this replica has to itself now, out of those that were read."""
        dead = await self._dead(found) if early else frozenset()
        claimed, left = await self._leases.change_many(self._claims(found, early, dead))
        if len(found) == 1:
            return claimed  # nothing, where another replica was faster
        # One of these had changed meanwhile: it must not keep the others from being claimed.
        again, _ = await self.read([each.before.lease.key for each in left]) if left else ([], [])
        mine = await asyncio.gather(*(self._claim([kept], early=early) for kept in again))
        return claimed + [kept for some in mine for kept in some]

    @property
    def _claimant(self) -> str:
        return self._membership.record or self._name

    async def _dead(self, found: Sequence[Kept]) -> frozenset[str]:
        """Returns those who have claimed leases, and are gone: nobody should wait until their claims run out.

        One that was only stopped may go on when it wakes, as one whose claim ran out may: removal is idempotent.
        """
        now = self._clock.now()
        claimants = {kept.lease.claim for kept in found if kept.lease.claimed(now)}
        claimants.discard(self._claimant)
        return frozenset([each for each in claimants if await self._membership.is_gone(each)])

    def _claims(self, found: Sequence[Kept], early: bool, dead: frozenset[str]) -> list[Change]:
        now, changes = self._clock.now(), []
        for kept in found:
            lease = kept.lease
            ended = lease.state in (State.REVOKING, State.GHOST)
            claimed = lease.claimed(now) and lease.claim not in dead
            if not claimed and (ended if early else lease.due <= now):
                seconds = lease.timeout + self._config.claim_seconds
                changes.append(Change(kept, domain.claimed(lease, self._claimant, now, seconds)))
        return changes

    async def _drop(self, lease: Lease) -> ServiceError | None:
        """Removes the user of a lease; returns what kept it from that."""

        async def drop(statements: tuple[str, ...]) -> None:
            async with self._connections.use(lease.mount, lease.database) as driver:
                await driver.drop_user(statements, lease.username)

        try:
            await bounded(drop(await self.statements(lease)), lease.timeout)
        except ServiceError as error:
            return error
        except Exception as error:
            log.error("a lease cannot be worked on", extra={"error": type(error).__name__})
            return ServiceError(
                Kind.INTERNAL, f"the lease cannot be worked on ({type(error).__name__})"
            )
        return None

    async def _change(self, changes: Sequence[Change]) -> None:
        """Records what became of leases, but for those that changed meanwhile."""
        _, left = await self._leases.change_many(changes)
        if len(changes) > 1:
            await asyncio.gather(*(self._leases.change_many([change]) for change in left))

    async def failed(self, claimed: Kept, error: ServiceError) -> None:
        """Records that an attempt to revoke a lease failed."""
        config, now, text = self._config, self._clock.now(), _text(error)
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
            if after.state is State.GHOST and await self._out_of_reach(after, error, now):
                await self._leases.remove(claimed)
            else:
                await self._leases.replace(claimed, after, happened(FAILED, after, now))

    async def _out_of_reach(self, lease: Lease, error: ServiceError, now: float) -> bool:
        """Returns whether the connection of a lease is gone, with its mount or for long."""
        without = error.kind is Kind.FAILED_PRECONDITION
        return (without and lease.irrevocable(now)) or await is_gone(
            self._leases.store, lease.mount
        )

    async def _put_off(self, claimed: list[Kept], outcomes: dict[str, str]) -> list[Kept]:
        """Puts off leases whose database is known to be away, and says why; returns the others."""
        now, changes = self._clock.now(), []
        for kept in claimed:
            if away := self._known_away(kept.lease):
                # The probe finds out when the database is back, and then takes all that wait for it.
                seconds = kept.lease.retry_interval * random.uniform(0.5, 1.0)  # noqa: S311
                changes.append(Change(kept, domain.postponed(kept.lease, away, now, seconds)))
                outcomes[kept.lease.key] = away
        await self._change(changes)
        return [kept for kept in claimed if kept.lease.key not in outcomes]

    def _known_away(self, lease: Lease) -> str:
        until, error = self._away.get(_connection(lease), (0.0, ""))
        return error if self._clock.now() < until else ""


def _text(error: ServiceError | None) -> str:
    return error.message or error.kind.value if error is not None else ""


def _connection(lease: Lease) -> tuple[str, str]:
    return lease.mount, lease.database
