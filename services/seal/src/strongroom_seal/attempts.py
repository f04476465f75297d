"""Shares that people give for one purpose, one at a time, to whichever process they reach.

An attempt is in the store, under the root key. Each share is one transaction that expects the attempt as it was
read, so that two shares that come at once both count. The last share ends the attempt, right or wrong: shares that do
not fit must not be tried one by one. Whoever ends it has claimed it: the same transaction holds what came of it.
"""

import contextlib
import uuid
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.secrets import equal
from strongroom_runtime.storage import ConflictError, Path, Transaction
from strongroom_seal.domain import ceremony
from strongroom_seal.openers import share_bytes
from strongroom_seal.seal import Seal
from strongroom_seal.storage import ROOT, Attempt, SealConfig, sealed_attempt

Finish = Callable[[Attempt, SealConfig, Transaction], Awaitable[None]]
T = TypeVar("T")
_TRIES = 20


class Attempts:
    """The attempts for one purpose, of which there is one at a time.

    Args:
        path: where the attempt is kept.
        purpose: what it is called in errors.
    """

    def __init__(self, seal: Seal, path: Path, purpose: str) -> None:
        self._seal = seal
        self._path = path
        self._purpose = purpose

    async def current(self) -> Attempt | None:
        """Returns the attempt under way.

        Raises:
            ServiceError: SEALED.
        """
        stored = await self.read()
        return stored[0] if stored else None

    async def read(self) -> tuple[Attempt, int] | None:
        """Returns the attempt under way and its revision.

        Raises:
            ServiceError: SEALED.
        """
        await (
            self._seal.catch_up()
        )  # attempts are under the root key, and another process may have replaced it
        return await self._seal.store.attempt(self._seal.root, self._path)

    async def begin(self, attempt: Attempt) -> Attempt:
        """Begins an attempt under a new nonce.

        Raises:
            ServiceError: INVALID where there is one; SEALED.
        """
        begun = msgspec.structs.replace(attempt, nonce=str(uuid.uuid4()))

        async def start() -> Attempt:
            if await self.current() is not None:
                raise invalid(f"{self._purpose} already in progress")
            # Read first: the root key in memory is then this one or a later one, with which the commit fails. Under
            # one that was replaced nobody could ever open the attempt again.
            as_read = {ROOT: await self._seal.store.root_revision(), self._path: 0}
            await self._seal.catch_up()
            value = sealed_attempt(self._seal.root, self._path, begun)
            await self._seal.store.commit(Transaction(expect=as_read, puts={self._path: value}))
            return begun

        return await self.repeat(start)

    async def cancel(self) -> None:
        """Ends the attempt, if there is one; one that does not open as well.

        Raises:
            ServiceError: SEALED.
        """
        await self._seal.catch_up()
        _ = self._seal.root
        await self._seal.store.commit(Transaction(deletes=[self._path]))

    async def add(self, text: str, nonce: str, finish: Finish) -> tuple[Attempt, bool]:
        """Takes a share; returns the attempt and whether it is complete.

        Args:
            finish: commits the transaction that it is given, which expects the attempt as it was; it ends the
                attempt or writes it anew.

        Raises:
            ServiceError: INVALID for a share or nonce that is wrong, and without an attempt; SEALED.
        """
        return await self.repeat(lambda: self._add(text, nonce, finish))

    async def repeat(self, change: Callable[[], Awaitable[T]]) -> T:
        """Returns what a change of the attempt gives, which is tried again where it found that others were faster.

        Raises:
            ServiceError: CONFLICT where that goes on.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(ConflictError):
                return await change()
        raise ServiceError(Kind.CONFLICT, f"{self._purpose}: too many changes at once")

    async def replace(self, attempt: Attempt, revision: int) -> None:
        """Writes an attempt over the one of a revision.

        Raises:
            ConflictError: others were faster.
        """
        value = sealed_attempt(self._seal.root, self._path, attempt)
        change = Transaction(expect={self._path: revision}, puts={self._path: value})
        await self._seal.store.commit(change)

    async def _add(self, text: str, nonce: str, finish: Finish) -> tuple[Attempt, bool]:
        stored = await self.read()
        if stored is None:
            raise invalid(f"no {self._purpose} in progress")
        attempt, revision = stored
        if attempt.verification is not None:
            raise invalid("enough shares were given; the new ones must be verified now")
        if not equal(nonce, attempt.nonce):
            raise invalid(f"nonce: does not name the {self._purpose} in progress")
        config = await self._seal.openers.config()
        share = ceremony.parse_share(text, share_bytes(config.shares))
        if not ceremony.has_share(attempt.given, share):
            attempt = msgspec.structs.replace(attempt, given=(*attempt.given, share))
        if len(attempt.given) < config.threshold:
            await self.replace(attempt, revision)
            return attempt, False
        change = Transaction(expect={self._path: revision})
        try:
            await self._seal.openers.root_from(config, ceremony.combine(attempt.given))
        except ServiceError as error:
            if error.kind is Kind.INVALID:
                change.deletes.append(self._path)
                await self._seal.store.commit(change)
            raise
        await finish(attempt, config, change)
        return attempt, True
