"""Replaces the shares that people hold, and the root key with them.

New shares come with a new unseal key (or recovery key, beside a static one), and the root key and the ring are
encrypted anew. Other processes under Shamir's scheme close: they need the new shares. Those with a key file open
again by themselves. Who has old shares and an old copy of the store still has the terms in it: rotate as well.

Where verification is asked for, the new key waits in the attempt, under the old root key, until people have shown
that they have their shares. Until then nothing has changed: the old shares open the seal, and the change can be
given up.

What is done with the last share goes on when who gave it is gone: cut off in between, this process would not know the
new root key, and close for good. Its answer has the new shares, and is seen once. So it is kept for some minutes, in
the memory of this process, for who gives the same share with the same nonce again.
"""

import asyncio
import os
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.secrets import equal
from strongroom_runtime.storage import Path, Transaction
from strongroom_runtime.tasks import to_its_end
from strongroom_seal import pgp
from strongroom_seal.attempts import Attempts
from strongroom_seal.domain import ceremony
from strongroom_seal.domain.ceremony import KEY_BYTES
from strongroom_seal.openers import share_bytes
from strongroom_seal.seal import Seal
from strongroom_seal.storage import (
    BACKUP,
    GENERATE,
    RECOVERY,
    REKEY,
    Attempt,
    Backup,
    SealConfig,
    Verification,
    sealed_attempt,
)

_ANSWER_SECONDS = 600.0


class Made(NamedTuple):
    """New shares as their holders get them; none before enough of the old ones were given."""

    attempt: Attempt
    shares: list[bytes]


class _Answer:
    """What the last share of a change was answered with."""

    def __init__(self, text: str, nonce: str, made: Made) -> None:
        self._text = text
        self._nonce = nonce
        self.made = made

    def is_of(self, text: str, nonce: str) -> bool:
        """Returns whether a share is the same of the same change."""
        return equal(text, self._text) and equal(nonce, self._nonce)


class Rekey:
    """The change of shares."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self.attempts = Attempts(seal, REKEY, "rekey")
        self._adding = asyncio.Lock()
        self._answer: _Answer | None = None
        seal.subscribe(self._forget_if_sealed)

    async def begin(
        self, shares: int, threshold: int, pgp_keys: Sequence[str], backup: bool, verify: bool
    ) -> Attempt:
        """Begins a change to new numbers.

        Args:
            pgp_keys: in base64, of the holders of the new shares.
            backup: keep the encrypted shares.
            verify: the new shares take effect only when people have given enough of them.

        Raises:
            ServiceError: INVALID for what cannot be, or where a change is under way; SEALED.
        """
        ceremony.check_numbers(shares, threshold)
        if pgp_keys and len(pgp_keys) != shares:
            raise invalid("pgp_keys: there must be one for each share")
        if backup and not pgp_keys:
            raise invalid("backup: needs pgp_keys, since shares are never kept in the clear")
        keys = pgp.read_keys("pgp_keys", pgp_keys)
        attempt = Attempt(
            "",
            new_shares=shares,
            new_threshold=threshold,
            pgp_keys=keys,
            backup=backup,
            verify=verify,
        )
        return await self.attempts.begin(attempt)

    async def add(self, text: str, nonce: str) -> Made:
        """Takes a share of the old key; with the last one, makes the new shares.

        Raises:
            ServiceError: as `Attempts.add`.
        """
        return await to_its_end(self._add_once(text, nonce))

    async def _add_once(self, text: str, nonce: str) -> Made:
        """Takes a share as `add`, or returns what it was answered with before."""
        async with self._adding:
            answer = self._answer
            if answer is not None and answer.is_of(text, nonce) and await self._stands(answer.made):
                return answer.made
            made = await self._add(text, nonce)
            if made.shares:
                self._keep(_Answer(text, nonce, made))
            return made

    async def _stands(self, made: Made) -> bool:
        """Returns whether new shares were not given up before their verification."""
        if made.attempt.verification is None:
            return True
        current = await self.attempts.current()
        return current is not None and current.nonce == made.attempt.nonce

    def _keep(self, answer: _Answer) -> None:
        self._answer = answer
        asyncio.get_running_loop().call_later(_ANSWER_SECONDS, self._forget, answer)

    def _forget(self, answer: _Answer) -> None:
        if self._answer is answer:
            self._answer = None

    def _forget_if_sealed(self) -> None:
        if self._seal.sealed:
            self._answer = None

    async def _add(self, text: str, nonce: str) -> Made:
        made: list[bytes] = []
        waiting: list[Attempt] = []

        async def finish(attempt: Attempt, config: SealConfig, change: Transaction) -> None:
            key = os.urandom(KEY_BYTES)
            shares = ceremony.split(key, attempt.new_shares, attempt.new_threshold)
            given = pgp.encrypt_shares(attempt.pgp_keys, shares)
            backup = _backup(attempt, given) if attempt.backup else None
            if attempt.verify:
                new = Verification(str(uuid.uuid4()), key, backup=backup)
                waits = msgspec.structs.replace(attempt, given=(), verification=new)
                change.puts[REKEY] = sealed_attempt(self._seal.root, REKEY, waits)
                await self._seal.store.commit(change)
                waiting[:] = [waits]
            else:
                await self._replace(attempt, key, backup, config, change)
            made[:] = given

        attempt, _ = await self.attempts.add(text, nonce, finish)
        return Made(waiting[0] if waiting else attempt, made)

    async def verification(self) -> Attempt:
        """Returns the change under way, which may have come to its verification.

        Raises:
            ServiceError: INVALID without one; SEALED.
        """
        attempt = await self.attempts.current()
        if attempt is None:
            raise invalid("no rekey configuration found")
        return attempt

    async def verify(self, text: str, nonce: str) -> tuple[Attempt, bool]:
        """Takes a share of the new key; returns the change and whether the new shares have taken effect.

        Raises:
            ServiceError: INVALID for a share or nonce that is wrong, and without a verification; SEALED.
        """
        return await to_its_end(self.attempts.repeat(lambda: self._verify(text, nonce)))

    async def restart_verification(self) -> Attempt:
        """Forgets the new shares given so far; returns the change.

        Raises:
            ServiceError: INVALID without a change; SEALED.
        """

        async def restart() -> Attempt:
            stored = await self.attempts.read()
            if stored is None:
                raise invalid("no rekey configuration found")
            attempt, revision = stored
            if attempt.verification is not None:
                attempt = _restarted(attempt, attempt.verification)
                await self.attempts.replace(attempt, revision)
            return attempt

        return await self.attempts.repeat(restart)

    async def backup(self) -> Backup:
        """Returns the encrypted shares that the last change with a backup made.

        Raises:
            ServiceError: INVALID where there are none; SEALED.
        """
        await self._seal.catch_up()
        backup = await self._seal.store.backup(self._seal.root)
        if backup is None:
            raise invalid("no backed-up keys found")
        return backup

    async def delete_backup(self) -> None:
        """Forgets the encrypted shares.

        Raises:
            ServiceError: SEALED.
        """
        _ = self._seal.root
        await self._seal.store.commit(Transaction(deletes=[BACKUP]))

    async def _verify(self, text: str, nonce: str) -> tuple[Attempt, bool]:
        stored = await self.attempts.read()
        if stored is None or stored[0].verification is None:
            raise invalid("no rekey verification in progress")
        (attempt, revision), verification = stored, stored[0].verification
        if not equal(nonce, verification.nonce):
            raise invalid("nonce: does not name the verification in progress")
        share = ceremony.parse_share(text, share_bytes(attempt.new_shares))
        if not ceremony.has_share(verification.given, share):
            given = (*verification.given, share)
            verification = msgspec.structs.replace(verification, given=given)
            attempt = msgspec.structs.replace(attempt, verification=verification)
        if len(verification.given) < attempt.new_threshold:
            await self.attempts.replace(attempt, revision)
            return attempt, False
        if not _is_key(verification):
            await self.attempts.replace(_restarted(attempt, verification), revision)
            raise invalid("the shares are not the new ones; the verification begins anew")
        config = await self._seal.openers.config()
        change = Transaction(expect={REKEY: revision})
        await self._replace(attempt, verification.key, verification.backup, config, change)
        return attempt, True

    async def _replace(
        self,
        attempt: Attempt,
        key: bytes,
        backup: Backup | None,
        config: SealConfig,
        change: Transaction,
    ) -> None:
        """Makes the new shares the ones that count, and ends the attempt."""
        recovery = config.type == "static"
        outer = self._seal.openers.static_key() if recovery else key
        if outer is None:  # the old shares would not have been found right without it
            raise ServiceError(Kind.INTERNAL, "the key file is missing")
        changed = msgspec.structs.replace(
            config, shares=attempt.new_shares, threshold=attempt.new_threshold
        )
        # Shares given to make a root token are of the old key: that attempt is over.
        change.deletes += [REKEY, GENERATE]
        replaced: dict[Path, bytes] = {RECOVERY: key} if recovery else {}
        if backup is not None:
            replaced[BACKUP] = msgspec.msgpack.encode(backup)
        await self._seal.change_root(changed, outer, change, replaced)


def _backup(attempt: Attempt, shares: Sequence[bytes]) -> Backup:
    return Backup(
        attempt.nonce, tuple(zip(pgp.fingerprints(attempt.pgp_keys), shares, strict=True))
    )


def _restarted(attempt: Attempt, verification: Verification) -> Attempt:
    anew = msgspec.structs.replace(verification, nonce=str(uuid.uuid4()), given=())
    return msgspec.structs.replace(attempt, verification=anew)


def _is_key(verification: Verification) -> bool:
    try:
        return equal(ceremony.combine(verification.given), verification.key)
    except ServiceError:
        return False  # shares that cannot belong together
