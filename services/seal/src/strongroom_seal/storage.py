"""What the seal service keeps. It guards its values itself: nothing else has keys before it.

config      how the keys are split; not secret, but bound to the root key's record, so that it cannot be altered
root        the root key under the unseal key
recovery    with automatic unsealing: the recovery key under the root key
keyring     the key ring under the root key
pending     a root token that was promised and is not yet known to be usable, under the root key
generate    shares given to make a root token, under the root key
rekey       shares given to replace the shares, and the new key until it is verified, under the root key
backup      shares encrypted with PGP, that were made last with a backup, under the root key
sealed      changes with each explicit sealing, so that all seal processes notice
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction
from strongroom_seal.domain import keys
from strongroom_seal.domain.ceremony import KEY_BYTES
from strongroom_seal.domain.keys import MasterRing

CONFIG: Path = (Plain("config"),)
KEYRING: Path = (Plain("keyring"),)
SEALED: Path = (Plain("sealed"),)
GENERATE: Path = (Plain("generate"),)
REKEY: Path = (Plain("rekey"),)
BACKUP: Path = (Plain("backup"),)
RECOVERY: Path = (Plain("recovery"),)
ROOT: Path = (Plain("root"),)
_PENDING: Path = (Plain("pending"),)
_UNDER_ROOT = (KEYRING, RECOVERY, _PENDING, GENERATE, REKEY, BACKUP)
_DOUBTS = 50  # commits again, where the outcome is not known
_DOUBT_SECONDS = 0.2


class SealConfig(msgspec.Struct, frozen=True):
    """How the keys are split: `type` is shamir or static; shares and threshold are of the recovery key for static."""

    type: str
    shares: int
    threshold: int
    cluster_id: str
    cluster_name: str


class Verification(msgspec.Struct, frozen=True):
    """The second half of a change of shares that asks for it: the new key, and the new shares that people gave.

    `backup` is what is kept of the encrypted shares when they take effect.
    """

    nonce: str
    key: bytes
    given: tuple[bytes, ...] = ()
    backup: "Backup | None" = None

    def __repr__(self) -> str:
        return f"Verification(given={len(self.given)})"


class Backup(msgspec.Struct, frozen=True):
    """Shares encrypted with PGP, by the fingerprints of their holders' keys. `nonce` names what made them."""

    nonce: str
    shares: tuple[tuple[str, bytes], ...]


class Attempt(msgspec.Struct, frozen=True):
    """Shares that people gave for one purpose. Kept in the store, so that any process can take the next one.

    `otp` belongs to the making of a root token; the numbers of new shares, `backup`, `verify` and `verification` to a
    change of shares. What is made is encrypted with `pgp_keys`, if there are any.
    """

    nonce: str
    given: tuple[bytes, ...] = ()
    otp: str = ""
    new_shares: int = 0
    new_threshold: int = 0
    pgp_keys: tuple[bytes, ...] = ()
    backup: bool = False
    verify: bool = False
    verification: Verification | None = None

    def __repr__(self) -> str:
        return f"Attempt(given={len(self.given)})"


class SealStore:
    """The records of the seal service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def config(self) -> SealConfig | None:
        """Returns how the keys are split, or None before there are any."""
        entry = await self._store.get(CONFIG)
        return msgspec.msgpack.decode(entry.value, type=SealConfig) if entry else None

    async def initialise(
        self,
        config: SealConfig,
        unseal_key: bytes,
        recovery_key: bytes | None,
        ring: MasterRing,
        token: str,
    ) -> bytes:
        """Writes everything in one transaction; returns the new root key.

        Raises:
            ServiceError: INVALID where it was done before, by this process or another.
        """
        root = os.urandom(KEY_BYTES)
        puts = _records(config, unseal_key, recovery_key, root, ring, token)
        encoded = msgspec.msgpack.encode(config)

        async def is_ours() -> bool:
            entry = await self._store.get(CONFIG, linearizable=True)
            return entry is not None and entry.value == encoded

        try:
            await self._commit_surely(Transaction(expect={CONFIG: 0}, puts=puts), is_ours)
        except ConflictError:
            raise invalid("Vault is already initialized") from None
        return root

    async def _commit_surely(
        self, transaction: Transaction, is_ours: Callable[[], Awaitable[bool]]
    ) -> None:
        """Commits what makes new shares: not to know the outcome would lose them, and the cluster with them.

        The same transaction again is applied, or finds what the first one did. A mere look could be too early.

        Raises:
            ConflictError: something was changed by somebody else.
            ServiceError: UNAVAILABLE where the store stays away.
        """
        doubtful = False
        for _ in range(_DOUBTS):
            try:
                try:
                    await self._store.commit(transaction)
                except ConflictError:
                    if not (doubtful and await is_ours()):
                        raise
                return
            except ServiceError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
                doubtful = True
                await asyncio.sleep(_DOUBT_SECONDS)
        raise ServiceError(Kind.UNAVAILABLE, "the store cannot be reached; the outcome is unknown")

    async def root_key(self, unseal_key: bytes) -> bytes | None:
        """Returns the root key, or None where the unseal key is wrong."""
        config = await self._store.get(CONFIG, linearizable=True)
        sealed = await self._store.get(ROOT, linearizable=True)
        if config is None or sealed is None:
            return None
        return keys.decrypt(unseal_key, sealed.value, "root", config.value)

    async def recovery_key(self, root: bytes) -> bytes | None:
        """Returns the recovery key; None with shares of the unseal key itself."""
        sealed = await self._store.get(RECOVERY)
        return keys.decrypt(root, sealed.value, "recovery") if sealed else None

    async def ring(self, root: bytes) -> tuple[MasterRing, int]:
        """Returns the key ring and its revision."""
        sealed = await self._store.get(KEYRING, linearizable=True)
        opened = keys.decrypt(root, sealed.value, "keyring") if sealed else None
        if sealed is None or opened is None:
            raise ServiceError(Kind.INTERNAL, "the key ring does not open")
        return msgspec.msgpack.decode(opened, type=MasterRing), sealed.revision

    async def replace_ring(self, root: bytes, ring: MasterRing, revision: int) -> None:
        """Writes a key ring over the one of a revision.

        Raises:
            ConflictError: another process was faster.
        """
        value = keys.encrypt(root, msgspec.msgpack.encode(ring), "keyring")
        await self._store.commit(Transaction(expect={KEYRING: revision}, puts={KEYRING: value}))

    async def replace_root(
        self,
        transaction: Transaction,
        config: SealConfig | None,
        unseal_key: bytes,
        old: bytes,
        replaced: Mapping[Path, bytes],
    ) -> tuple[bytes, MasterRing, int]:
        """Replaces the root key, together with what a transaction holds, and encrypts all that is under it anew.

        Args:
            transaction: its deletes are not written again.
            config: how the keys are split from now on; None for as before.
            unseal_key: what the new root key is kept under.
            old: the root key so far.
            replaced: what comes in place of what is under the root key.

        Returns the new root key, the ring, and the revision, 0 where that is not known.

        Raises:
            ConflictError: something of it was changed meanwhile; nothing is done.
        """
        transaction.expect[ROOT] = await self.root_revision()
        opening = await self._store.get(CONFIG, linearizable=True)
        if opening is None:
            raise ServiceError(Kind.INTERNAL, "there is a root key without a configuration")
        encoded = msgspec.msgpack.encode(config) if config else opening.value
        transaction.expect[CONFIG] = opening.revision
        new = os.urandom(KEY_BYTES)
        transaction.puts[CONFIG] = encoded
        transaction.puts[ROOT] = keys.encrypt(unseal_key, new, "root", encoded)
        values: dict[Path, bytes] = {}
        for path in _UNDER_ROOT:
            if path in transaction.deletes:
                continue
            entry = await self._store.get(path, linearizable=True)
            transaction.expect.setdefault(path, entry.revision if entry else 0)
            value = replaced.get(path)
            if value is None and entry is not None:
                value = keys.decrypt(old, entry.value, path[0])
                if value is None:
                    raise ConflictError  # the root key was replaced since `old`
            if value is not None:
                values[path] = value
                transaction.puts[path] = keys.encrypt(new, value, path[0])

        async def is_ours() -> bool:
            return await self.root_key(unseal_key) == new

        await self._commit_surely(transaction, is_ours)
        revision = 0
        with contextlib.suppress(
            ServiceError
        ):  # who asks has shares to hand out; it will be found later
            revision = await self.root_revision()
        return new, msgspec.msgpack.decode(values[KEYRING], type=MasterRing), revision

    async def root_revision(self) -> int:
        """Returns the revision that wrote the root key."""
        entry = await self._store.get(ROOT, linearizable=True)
        return entry.revision if entry else 0

    async def attempt(self, root: bytes, path: Path) -> tuple[Attempt, int] | None:
        """Returns the attempt under way and its revision.

        Raises:
            ServiceError: INTERNAL where it does not open.
        """
        found = await self._opened(root, path, "the attempt")
        return (msgspec.msgpack.decode(found[0], type=Attempt), found[1]) if found else None

    async def backup(self, root: bytes) -> Backup | None:
        """Returns the encrypted shares that are kept.

        Raises:
            ServiceError: INTERNAL where they do not open.
        """
        found = await self._opened(root, BACKUP, "the backup")
        return msgspec.msgpack.decode(found[0], type=Backup) if found else None

    async def _opened(self, root: bytes, path: Path, what: str) -> tuple[bytes, int] | None:
        """Returns what is encrypted under the root key, and its revision."""
        entry = await self._store.get(path, linearizable=True)
        if entry is None:
            return None
        opened = keys.decrypt(root, entry.value, path[0])
        if opened is None:
            raise ServiceError(Kind.INTERNAL, f"{what} does not open")
        return opened, entry.revision

    async def commit(self, transaction: Transaction) -> int:
        """Applies a transaction; as `Store.commit`."""
        return await self._store.commit(transaction)

    async def promised(self, root: bytes) -> tuple[str, int] | None:
        """Returns the root token that is not yet known to be usable, and its record's revision."""
        sealed = await self._store.get(_PENDING, linearizable=True)
        if sealed is None:
            return None
        opened = keys.decrypt(root, sealed.value, "pending")
        return (opened.decode(), sealed.revision) if opened is not None else None

    async def kept_promise(self, revision: int) -> None:
        """Forgets it. Another process may have done so before."""
        try:
            await self._store.commit(Transaction(expect={_PENDING: revision}, deletes=[_PENDING]))
        except ConflictError:
            return

    async def sealed_at(self) -> int:
        """Returns the revision of the last explicit sealing, 0 for none."""
        entry = await self._store.get(SEALED, linearizable=True)
        return entry.revision if entry else 0

    async def count_sealing(self) -> None:
        """Lets every seal process know that the seal is to close."""
        await self._store.commit(Transaction(puts={SEALED: os.urandom(8)}))


def sealed_attempt(root: bytes, path: Path, attempt: Attempt) -> bytes:
    """Returns an attempt as it is stored under a path."""
    return keys.encrypt(root, msgspec.msgpack.encode(attempt), path[0])


def _records(
    config: SealConfig,
    unseal_key: bytes,
    recovery_key: bytes | None,
    root: bytes,
    ring: MasterRing,
    token: str | None,
) -> dict[Path, bytes]:
    """Returns everything that depends on the root key."""
    encoded = msgspec.msgpack.encode(config)
    puts: dict[Path, bytes] = {
        CONFIG: encoded,
        ROOT: keys.encrypt(unseal_key, root, "root", encoded),
        KEYRING: keys.encrypt(root, msgspec.msgpack.encode(ring), "keyring"),
    }
    if token is not None:
        puts[_PENDING] = keys.encrypt(root, token.encode(), "pending")
    if recovery_key is not None:
        puts[RECOVERY] = keys.encrypt(root, recovery_key, "recovery")
    return puts
