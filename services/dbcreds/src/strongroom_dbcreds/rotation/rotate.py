"""Changing a password, so that the one that the database has is always known.

1. The new password is recorded beside the old one, with a claim.
2. The database is told.
3. The new password takes the place of the old one.

Whoever dies in between, the claim ends after its time, and any replica tells the database the same password again. To
tell it twice does no harm; for a user that changes its own password, both are tried.
"""

import asyncio
import contextlib
import logging
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from strongroom_dbcreds.config import Config
from strongroom_dbcreds.domain import rotations as domain
from strongroom_dbcreds.domain.rotations import Account
from strongroom_dbcreds.leases.attempts import bounded
from strongroom_dbcreds.rotation.subjects import Subject
from strongroom_dbcreds.storage import due_rotations, rest_of_rotations
from strongroom_runtime.errors import ServiceError
from strongroom_runtime.locks import KeyedLocks
from strongroom_runtime.repeated import Repeated
from strongroom_runtime.shared_clock import SharedClock
from strongroom_runtime.storage import Store, going_past

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1


class _NothingToDo(Exception):  # noqa: N818 (no error)
    """The record needs no change."""


class _Busy(Exception):  # noqa: N818 (no error)
    """Another replica is at it."""


async def _when_free(work: Callable[[], Awaitable[None]]) -> None:
    """Does something as soon as nobody else is at the same record."""
    while True:
        try:
            await work()
            return
        except _Busy:
            await asyncio.sleep(_LOOK_SECONDS)


class Rotator:
    """Changes passwords when it is time, and on demand. Every replica may; claims in the records settle who does.

    Args:
        store: has the index of what is due.
        subjects: by the kind of record.
        clock: by which it is time.
        config: how long attempts may take, and how long to wait after failures.
    """

    def __init__(
        self, store: Store, subjects: Mapping[str, Subject[Any]], clock: SharedClock, config: Config
    ) -> None:
        self._store = store
        self._subjects = subjects
        self._clock = clock
        self._config = config
        self._locks = KeyedLocks()
        self._rest = rest_of_rotations(store)
        self._running: dict[tuple[str, str, str], asyncio.Task[None]] = {}
        self._busy: Counter[tuple[str, str]] = Counter()  # by mount and connection

    async def run(self) -> None:
        """Changes what is due, until cancelled; a database that hangs keeps no other waiting."""
        await self._clock.ready()
        work = Repeated("the looking for passwords to rotate")
        try:
            while True:
                with work.turn():
                    await self._begin()
                wait = self._config.rotation_seconds * random.uniform(0.7, 1.3)  # noqa: S311
                await asyncio.sleep(wait)
        finally:
            running = list(self._running.values())
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def step(self) -> None:
        """Makes one attempt at each that is due, as far as there is room, and waits for what comes of it."""
        await self._begin()
        await asyncio.gather(*self._running.values())

    async def _begin(self) -> None:
        """Begins with the longest due of each database, as far as that has room."""
        async for entry, *each in due_rotations(self._store, self._clock.now(), self._rest):
            kind, mount, name = each
            if (kind, mount, name) in self._running:
                continue
            with going_past(self._store, entry):
                subject = self._subjects[kind]
                found = await subject.records.get(mount, name)
                if found is not None:
                    queue = (mount, subject.database(name, found[0]))
                    self._start((kind, mount, name), queue)

    def _start(self, each: tuple[str, str, str], queue: tuple[str, str]) -> None:
        if self._busy[queue] >= self._config.parallel:
            return

        def over(_: asyncio.Task[None]) -> None:
            del self._running[each]
            self._busy[queue] -= 1
            if not self._busy[queue]:
                del self._busy[queue]

        self._busy[queue] += 1
        self._running[each] = task = asyncio.create_task(self._one(*each), name="rotate")
        task.add_done_callback(over)

    async def _one(self, kind: str, mount: str, name: str) -> None:
        with contextlib.suppress(ServiceError, _Busy):
            await self._rotate(kind, mount, name, None)

    async def rotate(self, kind: str, mount: str, name: str, since: float | None = None) -> None:
        """Changes a password now, or waits for the end of a change that is under way.

        Args:
            kind: of the record.
            mount: its uuid.
            name: of the record.
            since: a time of which a change is as good; None for now.

        Raises:
            ServiceError: INVALID where there is no such record; as a driver where it failed; it is tried again.
        """
        demanded_at = since if since is not None else self._clock.now()
        await _when_free(lambda: self._rotate(kind, mount, name, demanded_at))

    async def remove(self, kind: str, mount: str, name: str) -> None:
        """Removes a record, after the end of a change that is under way: what was read last is what the database has.

        Raises:
            ServiceError: CONFLICT.
        """
        subject = self._subjects[kind]

        def check(record: Any) -> None:
            if subject.account(record).claimed(self._clock.now()):
                raise _Busy

        await _when_free(lambda: subject.records.delete(mount, name, check))

    async def _rotate(self, kind: str, mount: str, name: str, demanded_at: float | None) -> None:
        subject, claim = self._subjects[kind], secrets.token_hex(8)
        async with self._locks.hold((kind, mount, name)):
            record = await self._claim(subject, mount, name, claim, demanded_at)
            if record is None:
                return
            try:
                await bounded(subject.tell(mount, record), self._config.change_seconds)
            except ServiceError as error:
                log.warning("a password could not be rotated", extra={"kind": error.kind.value})
                await self._conclude(subject, mount, name, claim, error)
                raise
            await self._conclude(subject, mount, name, claim, None)

    async def _claim(
        self, subject: Subject[Any], mount: str, name: str, claim: str, demanded_at: float | None
    ) -> Any:
        """Records what the database is going to be told; returns the record, None where there is nothing to do.

        Raises:
            _Busy: another replica is at it.
            ServiceError: INVALID where there is no such record, or no new password can be made.
        """
        begun: list[Any] = []

        async def change(before: Any) -> Any:
            begun.clear()
            if before is None:
                raise _NothingToDo if demanded_at is None else subject.unknown(name)
            account, plan, now = subject.account(before), subject.plan(before), self._clock.now()
            if account.claimed(now):
                raise _Busy
            if demanded_at is None:
                if not account.due or account.due > now:
                    raise _NothingToDo
                missed = domain.missed(account, plan, now)
                if missed is not None:
                    return subject.replaced(before, missed)
            elif account.pending is None and account.rotated >= demanded_at:
                raise _NothingToDo
            try:
                fresh = account.pending or await subject.secrets(mount, name, before)
            except ServiceError as error:
                if demanded_at is not None:
                    raise
                return subject.replaced(before, self._put_off(account, error))
            seconds = self._config.change_seconds + self._config.change_claim_seconds
            begun.append(
                subject.replaced(before, domain.claimed(account, fresh, claim, now, seconds))
            )
            return begun[0]

        try:
            await subject.records.change(mount, name, change)
        except _NothingToDo:
            return None
        return begun[0] if begun else None

    async def _conclude(
        self, subject: Subject[Any], mount: str, name: str, claim: str, error: ServiceError | None
    ) -> None:
        """Records what came of an attempt."""

        async def change(before: Any) -> Any:
            # Removed meanwhile, or taken over by another replica, which tells the database the same.
            if before is None or subject.account(before).claim != claim:
                raise _NothingToDo
            account = subject.account(before)
            if error is not None:
                return subject.replaced(before, self._put_off(account, error))
            now, plan = self._clock.now(), subject.plan(before)
            return subject.replaced(before, domain.settled(account, plan, now))

        with contextlib.suppress(_NothingToDo):
            await subject.records.change(mount, name, change)

    def _put_off(self, account: Account, error: ServiceError) -> Account:
        """Returns an account to be tried again, after a wait that doubles each time."""
        first, longest = self._config.first_retry_seconds, self._config.longest_retry_seconds
        wait = min(first * 2.0 ** min(account.attempts, 30), float(longest))
        wait *= random.uniform(0.5, 1.0)  # noqa: S311 (spreads load)
        return domain.failed(account, error.message or error.kind.value, self._clock.now(), wait)
