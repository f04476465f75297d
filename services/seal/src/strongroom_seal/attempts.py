"""Shares that people give for one purpose, one at a time, to whichever process they reach.

An attempt is in the store, under the root key. Each share is one transaction that expects the attempt as it was
read, so that two shares that come at once both count. The last share ends the attempt, right or wrong: shares that do
not fit must not be tried one by one. Whoever ends it has claimed it: the same transaction holds what came of it.
"""

import uuid
from collections.abc import Awaitable, Callable

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.secrets import equal
from strongroom_runtime.storage import ConflictError, Path, Transaction
from strongroom_seal.domain import ceremony
from strongroom_seal.openers import share_bytes
from strongroom_seal.seal import Seal
from strongroom_seal.storage import Attempt, SealConfig, sealed_attempt

Finish = Callable[[Attempt, SealConfig, Transaction], Awaitable[None]]
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
        stored = await self._seal.store.attempt(self._seal.root, self._path)
        return stored[0] if stored else None

    async def begin(self, attempt: Attempt) -> Attempt:
        """Begins an attempt under a new nonce.

        Raises:
            ServiceError: INVALID where there is one; SEALED.
        """
        begun = msgspec.structs.replace(attempt, nonce=str(uuid.uuid4()))
        value = sealed_attempt(self._seal.root, self._path, begun)
        try:
            await self._seal.store.commit(
                Transaction(expect={self._path: 0}, puts={self._path: value})
            )
        except ConflictError:
            raise invalid(f"{self._purpose} already in progress") from None
        return begun

    async def cancel(self) -> None:
        """Ends the attempt, if there is one.

        Raises:
            ServiceError: SEALED.
        """
        if await self.current() is not None:
            await self._seal.store.commit(Transaction(deletes=[self._path]))

    async def add(self, text: str, nonce: str, finish: Finish) -> tuple[Attempt, bool]:
        """Takes a share; returns the attempt and whether it is complete.

        Args:
            finish: commits the transaction that it is given, which ends the attempt, with more in it.

        Raises:
            ServiceError: INVALID for a share or nonce that is wrong, and without an attempt; SEALED.
        """
        for _ in range(_TRIES):
            try:
                return await self._add(text, nonce, finish)
            except ConflictError:
                continue  # another share came first, or something that `finish` rests on has changed
        raise ServiceError(Kind.CONFLICT, f"{self._purpose}: too many changes at once")

    async def _add(self, text: str, nonce: str, finish: Finish) -> tuple[Attempt, bool]:
        stored = await self._seal.store.attempt(self._seal.root, self._path)
        if stored is None:
            raise invalid(f"no {self._purpose} in progress")
        attempt, revision = stored
        if not equal(nonce, attempt.nonce):
            raise invalid(f"nonce: does not name the {self._purpose} in progress")
        config = await self._seal.openers.config()
        share = ceremony.parse_share(text, share_bytes(config))
        if not ceremony.has_share(attempt.given, share):
            attempt = msgspec.structs.replace(attempt, given=(*attempt.given, share))
        change = Transaction(expect={self._path: revision})
        if len(attempt.given) < config.threshold:
            change.puts[self._path] = sealed_attempt(self._seal.root, self._path, attempt)
            await self._seal.store.commit(change)
            return attempt, False
        change.deletes.append(self._path)
        try:
            await self._seal.openers.root_from(config, ceremony.combine(attempt.given))
        except ServiceError as error:
            if error.kind is Kind.INVALID:
                await self._seal.store.commit(change)
            raise
        await finish(attempt, config, change)
        return attempt, True
