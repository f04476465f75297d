"""What the seal service keeps. It guards its values itself: nothing else has keys before it.

config      how the keys are split; not secret, but bound to the root key's record, so that it cannot be altered
root        the root key under the unseal key
recovery    with automatic unsealing: the recovery key under the root key
keyring     the key ring under the root key
pending     a root token that was promised and is not yet known to be usable, under the root key
sealed      counts explicit sealings, so that all seal processes notice
"""

import asyncio
import os

import msgspec

from strongroom_runtime.errors import Kind, ServiceError, invalid
from strongroom_runtime.storage import ConflictError, Path, Plain, Store, Transaction
from strongroom_seal.domain import keys
from strongroom_seal.domain.ceremony import KEY_BYTES
from strongroom_seal.domain.keys import MasterRing

CONFIG: Path = (Plain("config"),)
KEYRING: Path = (Plain("keyring"),)
SEALED: Path = (Plain("sealed"),)
_ROOT: Path = (Plain("root"),)
_RECOVERY: Path = (Plain("recovery"),)
_PENDING: Path = (Plain("pending"),)
_DOUBTS = 10  # looks, after a commit of which the outcome is not known
_DOUBT_SECONDS = 0.1


class SealConfig(msgspec.Struct, frozen=True):
    """How the keys are split: `type` is shamir or static; shares and threshold are of the recovery key for static."""

    type: str
    shares: int
    threshold: int
    cluster_id: str
    cluster_name: str


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
        encoded = msgspec.msgpack.encode(config)
        puts: dict[Path, bytes] = {
            CONFIG: encoded,
            _ROOT: keys.encrypt(unseal_key, root, "root", encoded),
            KEYRING: keys.encrypt(root, msgspec.msgpack.encode(ring), "keyring"),
            _PENDING: keys.encrypt(root, token.encode(), "pending"),
        }
        if recovery_key is not None:
            puts[_RECOVERY] = keys.encrypt(root, recovery_key, "recovery")
        try:
            await self._store.commit(Transaction(expect={CONFIG: 0}, puts=puts))
        except ConflictError:
            raise invalid("Vault is already initialized") from None
        except ServiceError as error:
            # Perhaps it was applied. The shares would be lost then, and the cluster with them.
            if error.kind is not Kind.UNAVAILABLE or not await self._is_ours(config):
                raise
        return root

    async def _is_ours(self, config: SealConfig) -> bool:
        for _ in range(_DOUBTS):
            try:
                entry = await self._store.get(CONFIG, linearizable=True)
            except ServiceError:
                await asyncio.sleep(_DOUBT_SECONDS)
                continue
            return entry is not None and entry.value == msgspec.msgpack.encode(config)
        return False

    async def root_key(self, unseal_key: bytes) -> bytes | None:
        """Returns the root key, or None where the unseal key is wrong."""
        config, sealed = await self._store.get(CONFIG), await self._store.get(_ROOT)
        if config is None or sealed is None:
            return None
        return keys.decrypt(unseal_key, sealed.value, "root", config.value)

    async def recovery_key(self, root: bytes) -> bytes | None:
        """Returns the recovery key; None with shares of the unseal key itself."""
        sealed = await self._store.get(_RECOVERY)
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
