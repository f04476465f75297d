"""Replaces the shares that people hold, and the root key with them.

New shares come with a new unseal key (or recovery key, beside a static one), and the root key and the ring are
encrypted anew. Other processes under Shamir's scheme close: they need the new shares. Those with a key file open
again by themselves. Who has old shares and an old copy of the store still has the terms in it: rotate as well.
"""

import os

import msgspec

from strongroom_runtime.errors import Kind, ServiceError
from strongroom_runtime.storage import Transaction
from strongroom_seal.attempts import Attempts
from strongroom_seal.domain import ceremony
from strongroom_seal.domain.ceremony import KEY_BYTES
from strongroom_seal.seal import Seal
from strongroom_seal.storage import GENERATE, REKEY, Attempt, SealConfig


class Rekey:
    """The change of shares."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self.attempts = Attempts(seal, REKEY, "rekey")

    async def begin(self, shares: int, threshold: int) -> Attempt:
        """Begins a change to new numbers.

        Raises:
            ServiceError: INVALID for numbers that cannot be, or where a change is under way; SEALED.
        """
        ceremony.check_numbers(shares, threshold)
        return await self.attempts.begin(Attempt("", new_shares=shares, new_threshold=threshold))

    async def add(self, text: str, nonce: str) -> tuple[Attempt, list[bytes]]:
        """Takes a share of the old key; returns the attempt and, with the last one, the new shares.

        Raises:
            ServiceError: as `Attempts.add`.
        """
        made: list[bytes] = []

        async def finish(attempt: Attempt, config: SealConfig, change: Transaction) -> None:
            key = os.urandom(KEY_BYTES)
            shares = ceremony.split(key, attempt.new_shares, attempt.new_threshold)
            recovery = config.type == "static"
            outer = self._seal.openers.static_key() if recovery else key
            if outer is None:  # the old shares would not have been found right without it
                raise ServiceError(Kind.INTERNAL, "the key file is missing")
            changed = msgspec.structs.replace(
                config, shares=attempt.new_shares, threshold=attempt.new_threshold
            )
            # Shares given to make a root token are of the old key: that attempt is over.
            change.deletes.append(GENERATE)
            await self._seal.change_root(changed, outer, key if recovery else None, change)
            made[:] = shares

        attempt, _ = await self.attempts.add(text, nonce, finish)
        return attempt, made
